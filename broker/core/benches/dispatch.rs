//! What the core alone costs for one task, from READY to the commit of its outcome, on one thread:
//! `cargo bench -p laneway-core --bench dispatch`. Prints nanoseconds a task.

#![expect(clippy::print_stdout, reason = "the figures are its output")]
#![expect(clippy::disallowed_methods, reason = "it measures")]
#![expect(clippy::cast_precision_loss, reason = "a number of tasks is small")]

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use laneway_core::{
    Action, Asker, Broker, ConnId, EndedAs, Event, KindSettings, Loaded, Millis, Now, Op, OpResult, QueuedTask,
    ReplyTo, Settings, Start, UnixMillis,
};
use laneway_protocol::message::{Answer, End, LaneValues, Lanes, Outcome, Ready, Request, SetLane};
use laneway_protocol::{Epoch, Kind, LaneName, SessionName, TaskId, TaskState};

const TASKS: u64 = 200_000;
const ROUNDS: usize = 5;
const SLOTS: u32 = 16;

struct Bench {
    core: Broker,
    now: Now,
    actions: Vec<Action>,
    next_task: u64,
    next_reply: u64,
    held: BTreeMap<u32, Outcome>,
    slots: HashMap<ReplyTo, u32>,
    seqs: BTreeMap<u32, u64>,
    done: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let share = LaneValues { share: Some(10), ..LaneValues::default() };
    let cap = LaneValues { cap: Some(1_000), ..LaneValues::default() };
    for (name, values) in [("plain", LaneValues::default()), ("a share", share), ("a cap", cap)] {
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let mut bench = Bench::new()?;
            if values != LaneValues::default() {
                let set = vec![SetLane { lane: LaneName::new("low")?, values: values.clone() }];
                bench.ask(Request::Lanes(Lanes { set, ..Lanes::default() }), u32::MAX);
            }
            let begun = Instant::now();
            bench.run()?;
            best = best.min(begun.elapsed().as_secs_f64() * 1e9 / TASKS as f64);
        }
        println!("{name:<10} {best:>8.0} ns a task, the best of {ROUNDS} rounds");
    }
    Ok(())
}

impl Bench {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let lane = |name| LaneName::new(name);
        let defaults = KindSettings {
            lane: lane("normal")?,
            max_attempts: 3,
            timeout_ms: 60_000,
            backoff_base_ms: 1_000,
            backoff_max_ms: 1_000,
        };
        let settings = Settings {
            lanes: vec![lane("high")?, lane("normal")?, lane("low")?],
            defaults,
            kinds: HashMap::new(),
            kind_values: BTreeMap::new(),
            fair_key_values: BTreeMap::new(),
            lane_values: BTreeMap::new(),
            losses_max: 3,
            resume_grace_ms: 15_000,
            restart_hold_ms: 2_000,
            disconnect_grace_ms: 500,
            cancel_grace_ms: 5_000,
            abandon_grace_ms: 5_000,
            beat_ms: 5_000,
            payload_bytes_max: 1_024,
            result_bytes_max: 1_024,
            bulk_rows: 512,
            window_rows_min: 128,
            window_rows_max: 4_096,
            window_bytes_max: 1 << 24,
            backlog_bytes_max: 1 << 28,
            sessions_max: 100,
            kinds_max: 100,
            waiters_max: 100,
        };
        let now = Now { mono: Millis(1_000), wall: UnixMillis(1_800_000_000_000) };
        let (core, actions) = Broker::new(settings, Start::fresh(Epoch(1), [7; 16], 1), now);
        Ok(Self {
            core,
            now,
            actions,
            next_task: 0,
            next_reply: 0,
            held: BTreeMap::new(),
            slots: HashMap::new(),
            seqs: BTreeMap::new(),
            done: 0,
        })
    }

    fn ask(&mut self, request: Request, slot: u32) {
        self.next_reply += 1;
        let reply = ReplyTo(self.next_reply);
        self.slots.insert(reply, slot);
        let from = Asker { reply, conn: ConnId(1) };
        self.core.handle(Event::Asked { from, request }, self.now, &mut self.actions);
        self.act();
    }

    fn run(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let (session, kind) = (SessionName::new("bench")?, Kind::new("bench")?);
        while self.done < TASKS {
            for slot in 0..SLOTS {
                let outcomes: Vec<Outcome> = self.held.remove(&slot).into_iter().collect();
                self.done += outcomes.len() as u64;
                let ready = Ready {
                    session: session.clone(),
                    slot,
                    epoch: None,
                    ack: Some(self.seqs.get(&slot).copied().unwrap_or(0)),
                    n: None,
                    max: 1,
                    wait_ms: 10_000,
                    outcomes,
                    batch: Some(self.next_reply + 1),
                    committed: false,
                    kinds: Some(vec![kind.clone()]),
                    lanes: None,
                };
                self.ask(Request::Ready(ready), slot);
            }
            self.now.mono = self.now.mono.after(1);
        }
        Ok(())
    }

    fn act(&mut self) {
        let mut events = Vec::new();
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Answer { to, answer: Answer::Tasks(tasks) } => {
                    let slot = self.slots.remove(&to).unwrap_or(0);
                    self.seqs.insert(slot, tasks.seq);
                    let task = &tasks.tasks[0];
                    self.held.insert(slot, Outcome::new(task.task, task.lease, End::Done));
                }
                Action::Store { id: Some(id), op: Op::Ended(_) } => {
                    let result = OpResult::Ended(EndedAs::Written(TaskState::Done));
                    events.push(Event::Committed(vec![(id, result)]));
                }
                Action::Demand { key, rows, .. } if rows > 0 => {
                    let tasks = (0..rows).map(|_| self.task()).collect();
                    events.push(Event::Loaded(vec![Loaded {
                        key,
                        tasks,
                        more: true,
                        left: Vec::new(),
                        passed: Vec::new(),
                    }]));
                }
                _ => {}
            }
        }
        for event in events {
            self.core.handle(event, self.now, &mut self.actions);
            self.act();
        }
    }

    fn task(&mut self) -> QueuedTask {
        self.next_task += 1;
        QueuedTask {
            id: TaskId::new(self.next_task).unwrap_or_else(|| unreachable!("ids count from 1")),
            due: self.now.wall,
            created_at: self.now.wall,
            runs: 0,
            attempts: 0,
            losses: 0,
            max_attempts: None,
            timeout_ms: None,
            expires_at: None,
            payload: None,
            checkpoint: None,
            trace: None,
            fair_key: None,
            group: None,
        }
    }
}

//! Any frames in any number and order, from several peers at once, into the reader of messages, the codec and the core: no
//! panic, a state that holds together after each event, every question answered at most once, and every answer fits a message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use laneway_core::{
    Action, Asker, Broker, BulkSliced, ConnId, Counts, EndedAs, Ending, Event, FoundGroup, Loaded, Millis, Now, Op,
    OpId, OpResult, QueueKey, QueuedTask, ReplyTo, Start, UnixMillis,
};
use laneway_protocol::message::{GroupRow, ScheduleRows, StatusRows, Stored, Verdict};
use laneway_protocol::{Answer, Epoch, FairKey, Payload, TaskId, TaskState, codec};

use super::Input;
use crate::config::Config;
use crate::incoming::Incoming;

/// More would only be slow.
const STEPS_MAX: usize = 256;
const PEERS: u8 = 4;

/// Steps: a message of one of the peers, time, a commit, a disconnect, rows read ahead, a disk that fails.
pub fn peers(input: &[u8]) {
    let mut input = Input(input);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match input.byte() % 10 {
            0..=4 => world.message(&mut input),
            5 => world.pass(u64::from(input.word()) * 4),
            6 => world.commit(usize::from(input.byte())),
            7 => world.disconnect(input.byte() % PEERS),
            8 => world.load(input.byte()),
            _ => world.toggle_disk(),
        }
    }
    // Everybody leaves, and what was promised comes.
    world.commit(usize::MAX);
    (0..PEERS).for_each(|peer| world.disconnect(peer));
    world.pass(60_000);
}

struct World {
    core: Broker,
    now: Now,
    conns: BTreeMap<u8, ConnId>,
    n_conns: u64,
    n_replies: u64,
    open: BTreeSet<ReplyTo>,
    ops: VecDeque<(OpId, Op)>,
    demands: BTreeMap<QueueKey, usize>,
    n_tasks: u64,
    failing: bool,
}

impl World {
    fn new() -> Self {
        let now = Now { mono: Millis(1_000), wall: UnixMillis(1_820_000_000_000) };
        // Small bounds, so that an input of some hundred bytes meets them.
        let config = Config { sessions_max: 3, kinds_max: 8, waiters_max: 4, ..Config::default() };
        let start = Start { past_secrets: vec![[6; 16]], ..Start::fresh(Epoch(2), [7; 16], 1) };
        let (core, actions) = Broker::new(crate::run::settings(&config), start, now);
        let mut world = Self {
            core,
            now,
            conns: BTreeMap::new(),
            n_conns: 0,
            n_replies: 0,
            open: BTreeSet::new(),
            ops: VecDeque::new(),
            demands: BTreeMap::new(),
            n_tasks: 0,
            failing: false,
        };
        world.act(actions);
        world
    }

    // ------------------------------------------------------------------------------------------------------- steps

    fn message(&mut self, input: &mut Input<'_>) {
        let peer = input.byte() % PEERS;
        let mut incoming = Incoming::new();
        // Most messages are well-formed up to their header, so that the bytes behind it matter.
        let shape = input.byte();
        if shape & 0x80 == 0 {
            incoming.take(&[]);
        }
        for _ in 0..shape & 0x0f {
            incoming.take(input.piece());
        }
        let conn = *self.conns.entry(peer).or_insert_with(|| {
            self.n_conns += 1;
            ConnId(self.n_conns)
        });
        if incoming.envelope().is_none() {
            return self.event(Event::BadMessage);
        }
        self.n_replies += 1;
        let reply = ReplyTo(self.n_replies);
        match incoming.into_request() {
            Ok(request) => {
                self.open.insert(reply);
                self.event(Event::Asked { from: Asker { reply, conn }, request });
            }
            Err(error) => {
                codec::encode_answer(Answer::Error(error)).unwrap();
                self.event(Event::BadMessage);
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.after(ms);
        self.now.wall = self.now.wall.after(ms);
        if self.core.next_deadline().is_some_and(|at| at <= self.now.mono) {
            self.event(Event::Tick);
        }
    }

    fn commit(&mut self, n: usize) {
        while !self.failing && !self.ops.is_empty() {
            let ops: Vec<(OpId, Op)> = self.ops.drain(..n.min(self.ops.len())).collect();
            if ops.is_empty() {
                return;
            }
            let results = ops.into_iter().map(|(id, op)| (id, self.result(op))).collect();
            self.event(Event::Committed(results));
            if n != usize::MAX {
                return;
            }
        }
    }

    fn disconnect(&mut self, peer: u8) {
        if let Some(conn) = self.conns.remove(&peer) {
            self.event(Event::Disconnected(conn));
        }
    }

    fn load(&mut self, choice: u8) {
        let Some((key, &rows)) = self.demands.iter().nth(usize::from(choice) % self.demands.len().max(1)) else {
            return;
        };
        let tasks = (0..rows.min(usize::from(choice % 5))).map(|_| {
            self.n_tasks += 1;
            QueuedTask {
                id: TaskId::new(self.n_tasks).unwrap(),
                due: self.now.wall,
                created_at: self.now.wall,
                runs: 0,
                attempts: 0,
                losses: 0,
                max_attempts: None,
                timeout_ms: Some(u64::from(choice) * 100 + 1),
                expires_at: None,
                payload: Some(Payload::json("1")),
                checkpoint: None,
                trace: None,
                fair_key: FairKey::new(["x", "y"][usize::from(choice % 2)]).ok().filter(|_| choice.is_multiple_of(3)),
                group: choice.is_multiple_of(4).then_some(1),
            }
        });
        let loaded = Loaded {
            key: key.clone(),
            tasks: tasks.collect(),
            more: choice > 127,
            left: Vec::new(),
            passed: Vec::new(),
        };
        self.event(Event::Loaded(vec![loaded]));
    }

    fn toggle_disk(&mut self) {
        self.failing = !self.failing;
        let event = if self.failing { Event::StoreFailed("no space".into()) } else { Event::StoreRecovered };
        self.event(event);
    }

    // ------------------------------------------------------------------------------------------------ what follows

    fn event(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.core.handle(event, self.now, &mut actions);
        self.act(actions);
        self.core.check();
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Answer { to, answer } => {
                    assert!(self.open.remove(&to), "{to:?} is answered twice");
                    codec::encode_answer(answer).unwrap();
                }
                // One whose connection is gone may be forgotten after it was answered.
                Action::Forget(reply) => drop(self.open.remove(&reply)),
                Action::Store { id: Some(id), op } => self.ops.push_back((id, op)),
                Action::Demand { key, rows: 0, .. } => drop(self.demands.remove(&key)),
                Action::Demand { key, rows, .. } => drop(self.demands.insert(key, rows)),
                Action::Store { id: None, .. }
                | Action::Unload(_)
                | Action::Watch(_)
                | Action::Unwatch(_)
                | Action::Tell(_)
                | Action::TellAbandoned(_) => {}
            }
        }
    }

    /// What a store without any of these rows would say, and one with room for new ones.
    fn result(&mut self, op: Op) -> OpResult {
        match op {
            Op::Ended(ended) => {
                let state = match ended.next {
                    laneway_core::Next::Done(_) | laneway_core::Next::Already => TaskState::Done,
                    laneway_core::Next::Queued { .. } => TaskState::Queued,
                    laneway_core::Next::Dead => TaskState::Dead,
                    laneway_core::Next::Cancelled => TaskState::Cancelled,
                };
                OpResult::Ended(EndedAs::Written(state))
            }
            Op::Submit { tasks, .. } => {
                let stored = tasks.iter().map(|_| {
                    self.n_tasks += 1;
                    Stored::new(TaskId::new(self.n_tasks).unwrap())
                });
                OpResult::Submitted(stored.collect())
            }
            Op::Cancel(tasks) | Op::Requeue(tasks) | Op::Edit { tasks, .. } => {
                OpResult::Verdicts(vec![Verdict::NotFound; tasks.len()])
            }
            Op::Bulk(slice) => {
                OpResult::Bulk(BulkSliced { over: slice.after.is_some(), at: TaskId::new(9), ..BulkSliced::default() })
            }
            Op::Find(_) | Op::FindKey { .. } | Op::FindTwins(_) => OpResult::Found(Vec::new()),
            Op::Endings(tasks) => OpResult::Endings(tasks.into_iter().map(|task| (task, Ending::NotFound)).collect()),
            Op::List(_) | Op::Show { .. } => OpResult::Rows(StatusRows::default()),
            Op::Counts => OpResult::Counts(Counts::default()),
            Op::Schedules(_) => OpResult::Schedules(ScheduleRows::default()),
            Op::SetKind { .. }
            | Op::SetLane { .. }
            | Op::SetFairKey { .. }
            | Op::PauseLane { .. }
            | Op::Started(_)
            | Op::Noted(_)
            | Op::SessionUp { .. }
            | Op::SessionGone { .. } => OpResult::Paused,
            Op::Group { group, .. } => {
                let row = GroupRow { group, ..GroupRow::default() };
                OpResult::Group((group == 1).then_some(FoundGroup { row, live: Vec::new(), last: None }))
            }
            Op::CancelGroup { .. } => OpResult::GroupCancelled { more: false },
            Op::Parents { .. } => OpResult::Parents { endings: Vec::new(), more: false },
        }
    }
}

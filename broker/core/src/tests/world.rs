//! The world around a core under test: a table, its store, a clock, and the lines of what the core asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use laneway_protocol::message::{
    Answer, Beat, Bye, End, Final, Held, Hello, NewTask, Outcome, Ready, Request, Submit, WaitFor,
};
use laneway_protocol::{Epoch, FairKey, Kind, LaneName, Lease, RequestId, SessionName, TaskId, TaskState};

use super::table::{Row, Table};
use super::words::line;
use crate::action::{Action, Op};
use crate::broker::{Broker, Start};
use crate::event::{Asker, ConnId, Event, Loaded, OpId, ReplyTo};
use crate::settings::{KindSettings, Settings};
use crate::time::{Millis, Now, UnixMillis};

pub(super) const WALL: i64 = 1_700_000_000_000;

pub(super) fn id(n: u64) -> TaskId {
    TaskId::new(n).unwrap()
}

pub(super) fn kind(name: &str) -> Kind {
    Kind::new(name).unwrap()
}

pub(super) fn lane(name: &str) -> LaneName {
    LaneName::new(name).unwrap()
}

pub(super) fn session(name: &str) -> SessionName {
    SessionName::new(name).unwrap()
}

pub(super) fn settings() -> Settings {
    Settings {
        lanes: ["high", "normal", "low"].map(lane).to_vec(),
        defaults: KindSettings {
            lane: lane("normal"),
            max_attempts: 3,
            timeout_ms: 60_000,
            backoff_base_ms: 1_000,
            backoff_max_ms: 1_000,
        },
        kinds: HashMap::new(),
        kind_values: BTreeMap::new(),
        lane_values: BTreeMap::new(),
        fair_key_values: BTreeMap::new(),
        losses_max: 3,
        resume_grace_ms: 15_000,
        restart_hold_ms: 2_000,
        disconnect_grace_ms: 500,
        cancel_grace_ms: 5_000,
        abandon_grace_ms: 5_000,
        beat_ms: 5_000,
        payload_bytes_max: 1_024,
        result_bytes_max: 512,
        window_rows_min: 32,
        window_rows_max: 64,
        window_bytes_max: 64 * 1_024,
        backlog_bytes_max: 64 * 1_024 * 1_024,
        sessions_max: 100,
        kinds_max: 10,
        waiters_max: 100,
        bulk_rows: 2,
    }
}

/// Kinds, lanes and fair keys of which nothing can start.
type Closed = (Vec<Kind>, Vec<LaneName>, Vec<FairKey>);

pub(super) struct World {
    pub(super) broker: Broker,
    pub(super) settings: Settings,
    pub(super) now: Now,
    pub(super) table: Table,
    pub(super) epoch: u64,
    /// What the core did since the last look, a line each.
    pub(super) lines: Vec<String>,
    /// Questions without an answer.
    pub(super) open: BTreeSet<ReplyTo>,
    pub(super) answers: BTreeMap<ReplyTo, Answer>,
    next_reply: u64,
    /// What the slots can run whose TASKS are to be checked: nothing of a higher lane may have waited.
    pub(super) abilities: BTreeMap<ReplyTo, (Vec<LaneName>, Vec<Kind>)>,
    /// Kinds and lanes of which nothing could start before the last event.
    held_before: Closed,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(settings())
    }

    pub(super) fn with(settings: Settings) -> Self {
        let now = Now { mono: Millis(1_000_000), wall: UnixMillis(WALL) };
        let (broker, actions) = Broker::new(settings.clone(), start(1, &Table::default(), false), now);
        assert!(actions.is_empty());
        Self {
            broker,
            settings,
            now,
            table: Table::default(),
            epoch: 1,
            lines: Vec::new(),
            open: BTreeSet::new(),
            answers: BTreeMap::new(),
            next_reply: 0,
            abilities: BTreeMap::new(),
            held_before: Closed::default(),
        }
    }

    /// A new core on the same table. Operations that were not committed are lost; so are all questions.
    pub(super) fn restart(&mut self, clean: bool) {
        if clean {
            self.commit();
        }
        self.epoch += 1;
        self.table.forget();
        self.open.clear();
        self.lines.clear();
        let (broker, actions) = Broker::new(self.settings.clone(), start(self.epoch, &self.table, !clean), self.now);
        self.broker = broker;
        self.act(actions);
    }

    // ------------------------------------------------------------------------------------------------ the table

    /// Inserts due rows of one lane and kind; their ids follow on the last one.
    pub(super) fn insert(&mut self, lane_name: &str, kind_name: &str, n: u64) -> Vec<TaskId> {
        (0..n).map(|_| self.insert_with(lane_name, kind_name, |_| {})).collect()
    }

    pub(super) fn insert_with(&mut self, lane_name: &str, kind_name: &str, change: impl FnOnce(&mut Row)) -> TaskId {
        self.table.insert(kind(kind_name), lane(lane_name), self.now, change)
    }

    pub(super) fn row(&self, n: u64) -> &Row {
        &self.table.rows[&id(n)]
    }

    pub(super) fn state(&self, n: u64) -> TaskState {
        self.row(n).state
    }

    /// `runs attempts losses releases`
    pub(super) fn counts(&self, n: u64) -> [u32; 4] {
        let row = self.row(n);
        [row.runs, row.attempts, row.losses, row.releases]
    }

    /// An app ends or deletes a row by SQL; the store notices.
    pub(super) fn overtake(&mut self, n: u64, state: Option<TaskState>) {
        let id = id(n);
        let ended = state.map(|state| {
            let row = self.table.rows.get_mut(&id).unwrap();
            (row.state, row.lease) = (state, None);
            Final { task: id, state, result: None, error: None }
        });
        if ended.is_none() {
            self.table.rows.remove(&id);
            self.table.pruned.insert(id);
        }
        self.table.out.remove(&id);
        self.event(Event::Overtaken(vec![(id, ended)]));
    }

    // ------------------------------------------------------------------------------------------------ the store

    /// Commits everything that the core asked for, reports it, and answers demands, until nothing is left to do.
    pub(super) fn commit(&mut self) {
        loop {
            let did = self.commit_ops();
            if !self.load() && !did {
                return;
            }
        }
    }

    /// Commits the operations given so far, without reading ahead. False when there were none.
    pub(super) fn commit_ops(&mut self) -> bool {
        self.commit_first(self.table.inbox.len())
    }

    /// The same for the first `n` of them.
    pub(super) fn commit_first(&mut self, n: usize) -> bool {
        if n == 0 {
            return false;
        }
        let ops: Vec<(Option<OpId>, Op)> = self.table.inbox.drain(..n).collect();
        let mut results = Vec::new();
        for (op_id, op) in ops {
            let result = self.table.apply(op, self.now);
            results.extend(op_id.map(|op_id| (op_id, result.expect("an operation with a number has a result"))));
        }
        self.event(Event::Committed(results));
        true
    }

    /// Answers demands. False when there was nothing to tell.
    pub(super) fn load(&mut self) -> bool {
        let loads = self.read_ahead();
        let did = !loads.is_empty();
        if did {
            self.event(Event::Loaded(loads));
        }
        let appeared = self.table.appeared(self.now);
        if !appeared.is_empty() {
            self.event(Event::Appeared(appeared));
            return true;
        }
        did
    }

    /// What the store reads for the open demands, not told yet.
    pub(super) fn read_ahead(&mut self) -> Vec<Loaded> {
        self.table.load(self.now)
    }

    // ------------------------------------------------------------------------------------------------ questions

    /// Where the next answer goes.
    pub(super) fn next_reply(&self) -> ReplyTo {
        ReplyTo(self.next_reply + 1)
    }

    /// Asks on connection `conn`, and gives the place of the answer.
    pub(super) fn ask(&mut self, conn: u64, request: Request) -> ReplyTo {
        self.next_reply += 1;
        let reply = ReplyTo(self.next_reply);
        self.open.insert(reply);
        self.event(Event::Asked { from: Asker { reply, conn: ConnId(conn) }, request });
        reply
    }

    /// Asks without a check of the whole state after it, for many questions. Whether it was refused.
    pub(super) fn broker_only(&mut self, conn: u64, request: Request) -> bool {
        self.next_reply += 1;
        let reply = ReplyTo(self.next_reply);
        self.open.insert(reply);
        let mut actions = Vec::new();
        self.broker.handle(Event::Asked { from: Asker { reply, conn: ConnId(conn) }, request }, self.now, &mut actions);
        self.act(actions);
        matches!(self.answers.get(&reply), Some(Answer::Error(_)))
    }

    /// The tasks of the TASKS that answered `reply`.
    pub(super) fn tasks(&self, reply: ReplyTo) -> Vec<(u64, Lease)> {
        match self.answers.get(&reply) {
            Some(Answer::Tasks(tasks)) => tasks.tasks.iter().map(|task| (task.task.value(), task.lease)).collect(),
            other => panic!("{reply:?} was answered with {other:?}"),
        }
    }

    /// The lease of the only task of an answer.
    pub(super) fn lease(&self, reply: ReplyTo) -> Lease {
        let tasks = self.tasks(reply);
        assert_eq!(tasks.len(), 1);
        tasks[0].1
    }

    /// A session with one connection of the same number says HELLO and is welcome.
    pub(super) fn hello(&mut self, name: &str, conn: u64, kinds: &[&str]) {
        self.ask(conn, hello(name, kinds, &[]));
        self.commit();
        self.take();
    }

    // --------------------------------------------------------------------------------------------- time and events

    pub(super) fn event(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.held_before = self.held();
        self.broker.handle(event, self.now, &mut actions);
        self.broker.check();
        self.check_bounds(&actions);
        for action in &actions {
            if let Action::Answer { to, answer: Answer::Tasks(tasks) } = action {
                let lowest = tasks.tasks.iter().map(|task| self.rank(&task.lane)).max().expect("TASKS has tasks");
                self.check_order(*to, lowest);
            }
        }
        self.act(actions);
    }

    /// No task of a lane above `lowest` waited that the slot of this answer could run: queued before the last look at the
    /// queues began, and not handed out since.
    fn check_order(&self, reply: ReplyTo, lowest: usize) {
        let Some((lanes, kinds)) = self.abilities.get(&reply) else { return };
        let (held_kinds, held_lanes, held_keys) = self.held();
        for (task, row) in &self.table.rows {
            let waits = row.state == TaskState::Queued
                && row.queued_in < self.table.turn
                && row.due <= self.table.turn_at
                && !self.broker.running.contains_key(task)
                && !self.broker.settling.contains_key(task);
            let dispatch = &self.broker.dispatch;
            let paused = dispatch.lane(&row.lane).is_none_or(|lane| dispatch.is_paused(lane));
            let held = row.fair_key.as_ref().is_some_and(|key| held_keys.contains(key))
                || row.fair_key.as_ref().is_some_and(|key| self.held_before.2.contains(key))
                || held_kinds.contains(&row.kind)
                || held_lanes.contains(&row.lane)
                || self.held_before.0.contains(&row.kind)
                || self.held_before.1.contains(&row.lane);
            let fits = lanes.contains(&row.lane) && kinds.contains(&row.kind) && !paused && !held;
            let overtaken = waits && fits && row.losses == 0 && self.rank(&row.lane) < lowest;
            assert!(!overtaken, "task {task} of lane {} waited while {reply:?} took of lane {lowest}", row.lane);
        }
    }

    fn held(&self) -> Closed {
        let gates = &self.broker.gates;
        let kinds = ["a", "b"].map(kind).into_iter().filter(|kind| gates.why_kind(kind).is_some());
        let keys = ["x", "y"].map(|name| FairKey::new(name).unwrap());
        let keys = keys.into_iter().filter(|key| gates.why_key(key).is_some());
        let lanes = self.settings.lanes.iter().filter(|lane| gates.why_lane(lane).is_some()).cloned();
        (kinds.collect(), lanes.collect(), keys.collect())
    }

    /// Whatever was handed out: no more runs of a kind or a lane than its cap says, counted from what runs.
    fn check_bounds(&self, actions: &[Action]) {
        for action in actions {
            let Action::Store { op: Op::Started(started), .. } = action else { continue };
            if self.broker.running.get(&started.task).is_none_or(|task| task.slot.is_none()) {
                // Adopted, or over already.
                continue;
            }
            let running = self.broker.running.values();
            let of_kind = running.clone().filter(|task| task.kind == started.kind).count();
            let of_lane = running.filter(|task| task.lane == started.lane).count();
            let kind_cap =
                self.broker.set_kinds.get(&started.kind).and_then(|set| set.values.cap).filter(|&cap| cap > 0);
            if let Some(key) = &self.broker.running[&started.task].fair_key {
                let of_key = self.broker.running.values().filter(|task| task.fair_key.as_ref() == Some(key)).count();
                let cap = self.broker.key_bounds(key).cap;
                assert!(cap.is_none_or(|cap| of_key <= cap as usize), "{of_key} of key {key} run");
            }
            let lane_cap = self.broker.set_lanes.get(&started.lane).and_then(|set| set.cap).filter(|&cap| cap > 0);
            assert!(kind_cap.is_none_or(|cap| of_kind <= cap as usize), "{of_kind} of kind {} run", started.kind);
            assert!(lane_cap.is_none_or(|cap| of_lane <= cap as usize), "{of_lane} of lane {} run", started.lane);
        }
    }

    fn rank(&self, lane: &LaneName) -> usize {
        self.settings.lanes.iter().position(|known| known == lane).expect("a lane of the settings")
    }

    /// Lets time pass, with a tick at each deadline on the way.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now.mono.after(ms);
        while let Some(at) = self.broker.next_deadline().filter(|&at| at <= end) {
            self.jump(at.since(self.now.mono));
            self.event(Event::Tick);
        }
        self.jump(end.since(self.now.mono));
    }

    /// Lets time pass while the core does not run.
    pub(super) fn jump(&mut self, ms: u64) {
        self.now = Now { mono: self.now.mono.after(ms), wall: self.now.wall.after(ms) };
    }

    /// The lines since the last look.
    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// The lines since the last look, without those about reading ahead and those for the log.
    pub(super) fn said(&mut self) -> Vec<String> {
        let ahead = |line: &String| ["demand ", "unload ", "tell "].iter().any(|word| line.starts_with(word));
        self.take().into_iter().filter(|line| !ahead(line)).collect()
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.lines.push(line(&action));
            match action {
                Action::Answer { to, answer } => {
                    assert!(self.open.remove(&to), "{to:?} is answered twice or was never asked");
                    self.answers.insert(to, answer);
                }
                Action::Forget(to) => assert!(self.open.remove(&to), "{to:?} is forgotten twice or was never asked"),
                Action::Store { id, op } => self.table.inbox.push_back((id, op)),
                Action::Demand { key, rows: 0, .. } => {
                    self.table.demands.remove(&key);
                }
                Action::Demand { key, rows, fair } => {
                    self.table.demands.insert(key, (rows, true, fair, BTreeSet::new()));
                }
                Action::Unload(tasks) => {
                    for task in tasks {
                        self.table.out.remove(&task);
                    }
                }
                Action::Watch(task) => {
                    self.table.watched.insert(task);
                }
                Action::Unwatch(task) => {
                    self.table.watched.remove(&task);
                }
                Action::Tell(_) | Action::TellAbandoned(_) => {}
            }
        }
    }
}

fn start(epoch: u64, table: &Table, unclean: bool) -> Start {
    let running = table.rows.iter().filter(|(_, row)| row.state == TaskState::Running);
    Start {
        version: "1.2.3".into(),
        epoch: Epoch(epoch),
        secret: secret(epoch),
        past_secrets: (1..epoch).rev().map(secret).collect(),
        seed: 1,
        running: running.filter_map(|(&id, _)| table.find(id)).collect(),
        sessions: table.sessions.iter().map(|(name, &plain)| (name.clone(), plain)).collect(),
        unclean,
        paused: table.paused.iter().cloned().collect(),
        kinds: table.kinds.iter().map(|(kind, (paused, values))| (kind.clone(), *paused, values.clone())).collect(),
        lanes: table.lanes.clone().into_iter().collect(),
        fair_keys: table.fair_keys.clone().into_iter().collect(),
    }
}

fn secret(epoch: u64) -> [u8; 16] {
    u128::from(epoch).to_le_bytes()
}

// ------------------------------------------------------------------------------------------------- questions, built

pub(super) fn hello(name: &str, kinds: &[&str], resume: &[Held]) -> Request {
    Request::Hello(Hello {
        session: session(name),
        name: name.into(),
        host: String::new(),
        pid: 1,
        sdk: String::new(),
        kinds: kinds.iter().map(|name| kind(name)).collect(),
        lanes: None,
        slots: 1,
        resume: resume.to_vec(),
        more: false,
    })
}

/// A READY of slot 0 for one task, parked for 10 s.
pub(super) fn ready(name: &str) -> Ready {
    Ready {
        session: session(name),
        slot: 0,
        epoch: None,
        ack: None,
        n: None,
        max: 1,
        wait_ms: 10_000,
        outcomes: Vec::new(),
        batch: None,
        committed: false,
        kinds: None,
        lanes: None,
    }
}

/// The same of a worker that says no HELLO.
pub(super) fn plain(name: &str, kinds: &[&str]) -> Ready {
    Ready { kinds: Some(kinds.iter().map(|name| kind(name)).collect()), ..ready(name) }
}

pub(super) fn beat(name: &str, running: &[Held]) -> Request {
    Request::Beat(Beat { session: session(name), epoch: None, running: running.to_vec(), wait_ms: 10_000 })
}

pub(super) fn bye(name: &str) -> Bye {
    Bye { session: session(name), release: Vec::new(), outcomes: Vec::new(), more: false }
}

pub(super) fn done(task: u64, lease: Lease) -> Outcome {
    Outcome::new(id(task), lease, End::Done)
}

pub(super) fn failed(task: u64, lease: Lease) -> Outcome {
    Outcome { error: Some("it broke".into()), ..Outcome::new(id(task), lease, End::Fail) }
}

pub(super) fn held(task: u64, lease: Lease) -> Held {
    Held(id(task), lease)
}

pub(super) fn submit(tasks: Vec<NewTask>, wait_ms: u64) -> Request {
    Request::Submit(Submit { request: RequestId([1; 16]), tasks, wait_ms, abandon: false, group: None })
}

pub(super) fn wait_for(tasks: &[u64], wait_ms: u64) -> WaitFor {
    WaitFor {
        tasks: tasks.iter().map(|&n| id(n)).collect(),
        kind: None,
        unique_key: None,
        cursor: None,
        wait_ms,
        abandon: false,
        group: None,
    }
}

/// A world where session w, known by HELLO, holds tasks 1 and 2 in slot 0, by one hand-out. Gives them with their leases.
pub(super) fn two_in_a_slot() -> (World, Vec<(u64, Lease)>) {
    let mut world = World::new();
    world.insert("low", "a", 2);
    world.hello("w", 1, &["a"]);
    let reply = world.ask(1, Request::Ready(Ready { max: 2, ..ready("w") }));
    world.commit();
    let leases = world.tasks(reply);
    (world, leases)
}

//! The world around a core under test: a table, its store, a clock, and the lines of what the core asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use laneway_protocol::message::{
    Answer, Beat, Bye, End, Final, Held, Hello, NewTask, Outcome, Ready, Request, Stored, TaskRow, Verdict, WaitFor,
};
use laneway_protocol::message::{StatusRows, Submit};
use laneway_protocol::{Epoch, Kind, LaneName, Lease, Payload, RequestId, SessionName, TaskId, TaskState};

use crate::action::{Action, Counts, Ended, EndedAs, Ending, Next, Op, OpResult, Started};
use crate::broker::{Broker, Start};
use crate::event::{Asker, ConnId, Event, FoundTask, Loaded, OpId, QueueKey, QueuedTask, ReplyTo};
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
        losses_max: 3,
        resume_grace_ms: 15_000,
        restart_hold_ms: 2_000,
        disconnect_grace_ms: 500,
        cancel_grace_ms: 5_000,
        beat_ms: 5_000,
        payload_bytes_max: 1_024,
        window_rows_max: 64,
        window_bytes_max: 64 * 1_024,
        sessions_max: 100,
        kinds_max: 10,
        waiters_max: 100,
    }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) lane: LaneName,
    pub(super) state: TaskState,
    pub(super) lease: Option<Lease>,
    pub(super) runs: u32,
    pub(super) attempts: u32,
    pub(super) losses: u32,
    pub(super) releases: u32,
    pub(super) max_attempts: Option<u32>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) expires_at: Option<UnixMillis>,
    pub(super) due: UnixMillis,
    pub(super) started_at: Option<UnixMillis>,
    pub(super) worker: Option<String>,
    pub(super) cancel_requested: bool,
    pub(super) unique_key: Option<String>,
    pub(super) payload: Option<Payload>,
    pub(super) result: Option<Payload>,
    pub(super) error: Option<String>,
    pub(super) progress: (Option<u64>, Option<u64>, Option<String>),
    /// The last look at the queues before it became queued.
    pub(super) queued_in: u64,
}

/// The table, and what the store has in memory about it. Survives a restart of the core, but for that memory.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: BTreeMap<TaskId, Row>,
    pub(super) sessions: BTreeMap<SessionName, bool>,
    pub(super) paused: BTreeSet<LaneName>,
    /// Told to have been given out once, but deleted.
    pub(super) pruned: BTreeSet<TaskId>,
    next: u64,
    demands: BTreeMap<QueueKey, (usize, bool)>,
    out: BTreeSet<TaskId>,
    watched: BTreeSet<TaskId>,
    /// Looks at the queues, and when the last one began.
    pub(super) turn: u64,
    pub(super) turn_at: UnixMillis,
    pub(super) inbox: VecDeque<(Option<OpId>, Op)>,
}

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
        }
    }

    /// A new core on the same table. Operations that were not committed are lost; so are all questions.
    pub(super) fn restart(&mut self, clean: bool) {
        if clean {
            self.commit();
        }
        self.epoch += 1;
        let Table { demands, out, watched, inbox, .. } = &mut self.table;
        (demands.clear(), out.clear(), watched.clear(), inbox.clear());
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
        let mut row = Row {
            kind: kind(kind_name),
            lane: lane(lane_name),
            state: TaskState::Queued,
            lease: None,
            runs: 0,
            attempts: 0,
            losses: 0,
            releases: 0,
            max_attempts: None,
            timeout_ms: None,
            expires_at: None,
            due: self.now.wall,
            started_at: None,
            worker: None,
            cancel_requested: false,
            unique_key: None,
            payload: None,
            result: None,
            error: None,
            progress: (None, None, None),
            queued_in: self.table.turn,
        };
        change(&mut row);
        self.table.next += 1;
        let id = id(self.table.next);
        self.table.rows.insert(id, row);
        id
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
        let ended = match state {
            Some(state) => {
                let row = self.table.rows.get_mut(&id).unwrap();
                (row.state, row.lease) = (state, None);
                Some(Final { task: id, state, result: None, error: None })
            }
            None => {
                self.table.rows.remove(&id);
                self.table.pruned.insert(id);
                None
            }
        };
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
        if self.table.inbox.is_empty() {
            return false;
        }
        let ops: Vec<(Option<OpId>, Op)> = self.table.inbox.drain(..).collect();
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
        did
    }

    /// What the store reads for the open demands, not told yet.
    pub(super) fn read_ahead(&mut self) -> Vec<Loaded> {
        self.table.load(self.now)
    }

    // ------------------------------------------------------------------------------------------------ questions

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
        self.broker.handle(event, self.now, &mut actions);
        self.broker.check();
        self.act(actions);
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

    /// The lines since the last look, without those about reading ahead.
    pub(super) fn said(&mut self) -> Vec<String> {
        let ahead = |line: &String| ["demand ", "unload "].iter().any(|word| line.starts_with(word));
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
                Action::Demand { key, rows: 0 } => {
                    self.table.demands.remove(&key);
                }
                Action::Demand { key, rows } => {
                    self.table.demands.insert(key, (rows, true));
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
            }
        }
    }
}

impl Table {
    pub(super) fn apply(&mut self, op: Op, now: Now) -> Option<OpResult> {
        match op {
            Op::Started(started) => self.started(&started),
            Op::Ended(ended) => return Some(OpResult::Ended(self.ended(ended))),
            Op::Noted(noted) => {
                if let Some(row) = self.rows.get_mut(&noted.task).filter(|row| row.lease == Some(noted.lease)) {
                    row.progress = (noted.done, noted.total, noted.note);
                }
            }
            Op::Submit { tasks, .. } => return Some(self.submit(tasks, now)),
            Op::Cancel(tasks) => {
                return Some(OpResult::Verdicts(tasks.into_iter().map(|task| self.cancel(task)).collect()));
            }
            Op::Requeue(tasks) => {
                return Some(OpResult::Verdicts(tasks.into_iter().map(|_| Verdict::Unchanged).collect()));
            }
            Op::Find(tasks) => {
                return Some(OpResult::Found(tasks.into_iter().filter_map(|task| self.find(task)).collect()));
            }
            Op::FindKey { kind, unique_key } => {
                let has_key = |row: &Row| row.kind == kind && row.unique_key.as_ref() == Some(&unique_key);
                let newest = self.rows.iter().rev().find(|(_, row)| has_key(row)).map(|(&id, _)| id);
                return Some(OpResult::Found(newest.and_then(|id| self.find(id)).into_iter().collect()));
            }
            Op::Endings(tasks) => {
                return Some(OpResult::Endings(tasks.into_iter().map(|task| (task, self.ending(task))).collect()));
            }
            Op::List(_) => return Some(OpResult::Rows(StatusRows::default())),
            Op::Show { tasks, .. } => return Some(OpResult::Rows(self.show(&tasks))),
            Op::Counts => return Some(OpResult::Counts(Counts::default())),
            Op::SessionUp { session, plain, .. } => {
                self.sessions.insert(session, plain);
            }
            Op::SessionGone { session } => {
                self.sessions.remove(&session);
            }
            Op::PauseLane { lane, paused } => {
                if paused {
                    self.paused.insert(lane)
                } else {
                    self.paused.remove(&lane)
                };
                return Some(OpResult::Paused);
            }
        }
        None
    }

    fn started(&mut self, started: &Started) {
        let Some(row) = self.rows.get_mut(&started.task) else { return };
        if row.state != TaskState::Queued || row.runs + 1 != started.run {
            return;
        }
        row.state = TaskState::Running;
        (row.lease, row.runs) = (Some(started.lease), started.run);
        (row.worker, row.started_at) = (Some(started.worker.to_string()), Some(started.at));
    }

    fn ended(&mut self, ended: Ended) -> EndedAs {
        self.out.remove(&ended.task);
        let Some(row) = self.rows.get_mut(&ended.task) else { return EndedAs::Overtaken };
        if row.state.is_final() && row.lease == Some(ended.lease) {
            return EndedAs::Recorded(row.state);
        }
        if row.state != TaskState::Running || row.lease != Some(ended.lease) {
            return EndedAs::Overtaken;
        }
        match ended.count {
            crate::action::Count::Attempt => row.attempts += 1,
            crate::action::Count::Loss => row.losses += 1,
            crate::action::Count::Release => row.releases += 1,
            crate::action::Count::Nothing => {}
        }
        row.state = match ended.next {
            Next::Done(result) => {
                row.result = result;
                TaskState::Done
            }
            Next::Already => return EndedAs::Overtaken,
            _ if row.cancel_requested => TaskState::Cancelled,
            Next::Queued { run_at } => {
                row.due = run_at.unwrap_or(row.due);
                row.queued_in = self.turn;
                row.lease = None;
                TaskState::Queued
            }
            Next::Dead => TaskState::Dead,
            Next::Cancelled => TaskState::Cancelled,
        };
        row.error = ended.error;
        EndedAs::Written(row.state)
    }

    fn submit(&mut self, tasks: Vec<NewTask>, now: Now) -> OpResult {
        if let Some(index) = tasks.iter().position(|task| task.max_attempts == Some(0)) {
            return OpResult::Refused { index, field: "max_attempts", reason: "0 is not at least 1".into() };
        }
        let mut stored = Vec::new();
        for task in tasks {
            let live = |row: &Row| row.kind == task.kind && !row.state.is_final() && row.unique_key == task.unique_key;
            let twin = task.unique_key.as_ref().and(self.rows.iter().find(|(_, row)| live(row)).map(|(&id, _)| id));
            if let Some(task) = twin {
                stored.push(Stored { task, new: false });
                continue;
            }
            self.next += 1;
            let row = Row {
                kind: task.kind,
                lane: task.lane.unwrap_or_else(|| lane("normal")),
                state: TaskState::Queued,
                lease: None,
                runs: 0,
                attempts: 0,
                losses: 0,
                releases: 0,
                max_attempts: task.max_attempts,
                timeout_ms: task.timeout_ms,
                expires_at: None,
                due: now.wall,
                started_at: None,
                worker: None,
                cancel_requested: false,
                unique_key: task.unique_key,
                payload: task.payload,
                result: None,
                error: None,
                progress: (None, None, None),
                queued_in: self.turn,
            };
            self.rows.insert(id(self.next), row);
            stored.push(Stored { task: id(self.next), new: true });
        }
        OpResult::Submitted(stored)
    }

    fn cancel(&mut self, task: TaskId) -> Verdict {
        let Some(row) = self.rows.get_mut(&task) else { return Verdict::NotFound };
        if row.state.is_final() {
            return Verdict::Unchanged;
        }
        row.cancel_requested = true;
        if row.state == TaskState::Queued {
            (row.state, row.lease) = (TaskState::Cancelled, None);
            self.out.remove(&task);
            return Verdict::Cancelled;
        }
        Verdict::Requested
    }

    fn find(&self, id: TaskId) -> Option<FoundTask> {
        let row = self.rows.get(&id)?;
        Some(FoundTask {
            id,
            kind: row.kind.clone(),
            lane: row.lane.clone(),
            state: row.state,
            lease: row.lease,
            runs: row.runs,
            attempts: row.attempts,
            losses: row.losses,
            max_attempts: row.max_attempts,
            timeout_ms: row.timeout_ms,
            due: row.due,
            started_at: row.started_at,
            worker: row.worker.clone(),
            cancel_requested: row.cancel_requested,
        })
    }

    fn ending(&self, task: TaskId) -> Ending {
        let Some(row) = self.rows.get(&task) else {
            return if self.pruned.contains(&task) { Ending::Pruned } else { Ending::NotFound };
        };
        if row.state.is_final() {
            let Row { state, result, error, .. } = row.clone();
            return Ending::Final(Final { task, state, result, error });
        }
        let (done, total, note) = row.progress.clone();
        Ending::Live { done, total, note }
    }

    fn show(&self, tasks: &[TaskId]) -> StatusRows {
        let row = |&id: &TaskId| {
            let row = self.rows.get(&id)?;
            Some(TaskRow {
                id,
                kind: row.kind.to_string(),
                lane: Some(row.lane.to_string()),
                state: row.state,
                run_at: Some(row.due.0),
                unique_key: None,
                max_attempts: None,
                timeout_ms: None,
                expires_at: None,
                runs: row.runs,
                attempts: row.attempts,
                losses: row.losses,
                releases: row.releases,
                worker: row.worker.clone(),
                created_at: 0,
                started_at: None,
                finished_at: None,
                progress_done: None,
                progress_total: None,
                progress_note: None,
                cancel_requested: row.cancel_requested,
                error: row.error.clone(),
                payload: None,
                result: None,
                failures: Vec::new(),
                explain: None,
            })
        };
        StatusRows { rows: tasks.iter().filter_map(row).collect(), ..StatusRows::default() }
    }

    fn load(&mut self, now: Now) -> Vec<Loaded> {
        let mut loads = Vec::new();
        self.turn += 1;
        self.turn_at = now.wall;
        for (key, (rows, fresh)) in &mut self.demands {
            let mut due: Vec<(UnixMillis, TaskId)> = self
                .rows
                .iter()
                .filter(|(id, row)| {
                    row.state == TaskState::Queued
                        && row.lane == key.lane
                        && row.kind == key.kind
                        && !self.out.contains(id)
                })
                .filter(|(_, row)| row.due <= now.wall && row.expires_at.is_none_or(|at| row.runs > 0 || at > now.wall))
                .map(|(&id, row)| (row.due, id))
                .collect();
            due.sort_unstable();
            let more = due.len() > *rows;
            due.truncate(*rows);
            if due.is_empty() && !*fresh {
                continue;
            }
            *fresh = false;
            *rows = if more { 0 } else { *rows - due.len() };
            let tasks = due.iter().map(|(due, id)| queued(*id, &self.rows[id], *due)).collect();
            self.out.extend(due.iter().map(|&(_, id)| id));
            loads.push(Loaded { key: key.clone(), tasks, more });
        }
        self.demands.retain(|_, (rows, _)| *rows > 0);
        loads
    }
}

fn queued(id: TaskId, row: &Row, due: UnixMillis) -> QueuedTask {
    QueuedTask {
        id,
        due,
        runs: row.runs,
        attempts: row.attempts,
        losses: row.losses,
        max_attempts: row.max_attempts,
        timeout_ms: row.timeout_ms,
        expires_at: row.expires_at,
        payload: row.payload.clone(),
        checkpoint: None,
        trace: None,
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
    Request::Submit(Submit { request: RequestId([1; 16]), tasks, wait_ms })
}

pub(super) fn wait_for(tasks: &[u64], wait_ms: u64) -> WaitFor {
    WaitFor { tasks: tasks.iter().map(|&n| id(n)).collect(), kind: None, unique_key: None, cursor: None, wait_ms }
}

// ---------------------------------------------------------------------------------------------------- actions, in words

fn line(action: &Action) -> String {
    match action {
        Action::Answer { to, answer } => format!("#{} {}", to.0, answer_line(answer)),
        Action::Forget(to) => format!("#{} forgotten", to.0),
        Action::Store { op, .. } => op_line(op),
        Action::Demand { key, rows } => format!("demand {}/{} {rows}", key.lane, key.kind),
        Action::Unload(tasks) => format!("unload {}", join(tasks)),
        Action::Watch(task) => format!("watch {task}"),
        Action::Unwatch(task) => format!("unwatch {task}"),
    }
}

fn answer_line(answer: &Answer) -> String {
    match answer {
        Answer::Welcome(welcome) => format!("WELCOME lost [{}]", helds(&welcome.lost)),
        Answer::Tasks(tasks) => {
            let ids: Vec<TaskId> = tasks.tasks.iter().map(|task| task.task).collect();
            format!("TASKS seq {} [{}]{}", tasks.seq, join(&ids), codes(&tasks.outcomes, tasks.settled))
        }
        Answer::Wait(wait) => format!("WAIT {:?}{}", wait.reason, codes(&wait.outcomes, wait.settled)),
        Answer::Progress(noted) => format!("OK cancel {}", noted.cancel),
        Answer::Beat(noted) => {
            let drain = if noted.release {
                " release"
            } else if noted.drain {
                " drain"
            } else {
                ""
            };
            format!("BEAT cancel [{}] stale [{}]{drain}", helds(&noted.cancel), helds(&noted.stale))
        }
        Answer::Bye(noted) => format!("BYE{}", codes(&noted.outcomes, 0)),
        Answer::Submit(submitted) => {
            let stored: Vec<String> = submitted
                .tasks
                .iter()
                .map(|stored| format!("{}{}", stored.task, if stored.new { "" } else { " known" }))
                .collect();
            format!("SUBMITTED [{}] finals [{}]", stored.join(", "), finals(&submitted.finals))
        }
        Answer::WaitFor(waited) => format!(
            "WAITED n {} gap {} events {:?} finals [{}] pending [{}] not found [{}] pruned [{}]",
            waited.cursor.n,
            waited.gap,
            waited.events.iter().map(|event| (event.n, event.done)).collect::<Vec<_>>(),
            finals(&waited.finals),
            join(&waited.pending),
            join(&waited.not_found),
            join(&waited.pruned),
        ),
        Answer::Cancel(verdicts) | Answer::Requeue(verdicts) => format!("VERDICTS {:?}", verdicts.verdicts),
        Answer::Drain(drained) => {
            format!("DRAINED {} workers {} running {}", drained.draining, drained.workers, drained.running)
        }
        Answer::Error(error) => format!("ERR {}", error.code),
        Answer::Status(rows) => format!("STATUS {:?}", rows.rows.iter().map(|row| &row.explain).collect::<Vec<_>>()),
        Answer::Lanes(_) => "LANES".into(),
        Answer::Workers(rows) => format!("WORKERS {}", rows.workers.len()),
        Answer::Stats(_) => "STATS".into(),
        Answer::Pong(_) => "PONG".into(),
    }
}

fn op_line(op: &Op) -> String {
    match op {
        Op::Started(started) => format!("started {} run {} by {}", started.task, started.run, started.worker),
        Op::Ended(ended) => {
            let next = match &ended.next {
                Next::Done(_) => "done".into(),
                Next::Queued { run_at: None } => "queued".into(),
                Next::Queued { run_at: Some(at) } => format!("queued +{}", at.since(ended.at)),
                other => format!("{other:?}").to_lowercase(),
            };
            let cause = ended.cause.map_or(String::new(), |cause| format!(" {}", cause.as_str()));
            format!("ended {} {next}, {}{cause}", ended.task, format!("{:?}", ended.count).to_lowercase())
        }
        Op::Noted(noted) => format!("noted {} {:?}", noted.task, noted.done),
        Op::Submit { tasks, .. } => format!("submit {}", tasks.len()),
        Op::Cancel(tasks) => format!("cancel {}", join(tasks)),
        Op::Requeue(tasks) => format!("requeue {}", join(tasks)),
        Op::Find(tasks) => format!("find {}", join(tasks)),
        Op::FindKey { unique_key, .. } => format!("find key {unique_key}"),
        Op::Endings(tasks) => format!("endings {}", join(tasks)),
        Op::List(_) => "list".into(),
        Op::Show { tasks, .. } => format!("show {}", join(tasks)),
        Op::Counts => "counts".into(),
        Op::SessionUp { session, plain, .. } => format!("session {session} up{}", if *plain { " plain" } else { "" }),
        Op::SessionGone { session } => format!("session {session} gone"),
        Op::PauseLane { lane, paused } => format!("pause {lane} {paused}"),
    }
}

fn codes(outcomes: &[laneway_protocol::message::OutcomeCode], settled: u64) -> String {
    let codes: String = outcomes.iter().map(|code| format!(" {}", format!("{code:?}").to_lowercase())).collect();
    if settled > 0 { format!("{codes} settled {settled}") } else { codes }
}

fn finals(finals: &[Final]) -> String {
    let words: Vec<String> = finals
        .iter()
        .map(|ended| {
            let result = ended.result.as_ref().map(|result| String::from_utf8_lossy(&result.bytes).into_owned());
            format!("{} {}{}", ended.task, ended.state, result.map_or(String::new(), |result| format!(" {result}")))
        })
        .collect();
    words.join(", ")
}

fn helds(held: &[Held]) -> String {
    join(&held.iter().map(|held| held.0).collect::<Vec<_>>())
}

fn join(tasks: &[TaskId]) -> String {
    tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

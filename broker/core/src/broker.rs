//! The state machine: one short arm for each event, and the next deadline.
//!
//! What the arms do stands beside: [`ready`](crate::ready) takes in who is idle, [`handout`](crate::handout) gives tasks
//! out, [`outcome`](crate::outcome) takes them back, [`session`](crate::session) knows who is there and who died,
//! [`resume`](crate::resume) what outlives a restart, [`stop`](crate::stop) tells workers to stop, [`client`](crate::client)
//! and [`admin`](crate::admin) answer those who submit, wait and look, [`abandon`](crate::abandon) gives up what nobody waits
//! for, [`bulk`](crate::bulk) answers those who change tasks, [`settle`](crate::settle) takes in what the store reports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use laneway_protocol::message::{Answer, FairKeyValues, KindValues, LaneValues, Pong, Request};
use laneway_protocol::{Code, Epoch, FairKey, Kind, LaneName, SessionName, TaskId, WireError};

use crate::abandon::Marks;
use crate::action::{Action, Op};
use crate::backlog::Backlog;
use crate::bulk::Batches;
use crate::dispatch::{Dispatch, QueueIndex};
use crate::event::{Asker, Event, FoundTask, OpId, ReplyTo};
use crate::gate::Gates;
use crate::id_map::IdMap;
use crate::kinds::SetValues;
use crate::lease::LeaseKey;
use crate::limits::{BUSY_FACTOR, OPS_BUSY_MAX, OPS_MAX, QUESTIONS_MAX};
use crate::lost::LostWorkers;
use crate::progress::LastWords;
use crate::resume::{Grace, Hold};
use crate::retry::Random;
use crate::settings::Settings;
use crate::settle::{Pending, Question, Settling};
use crate::stop::Drain;
use crate::task::Running;
use crate::time::{Millis, Now};
use crate::timer::{Timer, Timers};
use crate::unique::Secured;
use crate::waiter::Waiters;
use crate::worker::{SessionId, SlotId, Workers};

/// The broker's mind: ready workers, tasks read ahead, running tasks, waiters. Opens nothing, reads no clock.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each holds hand-outs back for a reason of its own, or is a word to the shell"
)]
pub struct Broker {
    pub(crate) settings: Settings,
    pub(crate) version: String,
    pub(crate) epoch: Epoch,
    pub(crate) key: LeaseKey,
    pub(crate) past_keys: Vec<LeaseKey>,
    pub(crate) random: Random,
    pub(crate) dispatch: Dispatch,
    pub(crate) gates: Gates,
    /// What was set of kinds while a broker ran, over the settings.
    pub(crate) set_kinds: BTreeMap<Kind, SetValues>,
    pub(crate) set_lanes: BTreeMap<LaneName, LaneValues>,
    pub(crate) set_keys: BTreeMap<FairKey, FairKeyValues>,
    pub(crate) workers: Workers,
    pub(crate) lost_workers: LostWorkers,
    pub(crate) running: IdMap<TaskId, Running>,
    pub(crate) last_words: LastWords,
    /// Runs that have ended and are on their way to the disk.
    pub(crate) settling: IdMap<TaskId, Settling>,
    /// Sessions with waiting slots whose outcomes have come to disk with the commit that is being taken in.
    pub(crate) settled_idle: BTreeSet<SessionId>,
    pub(crate) questions: IdMap<ReplyTo, Question>,
    pub(crate) pending: Backlog,
    pub(crate) waiters: Waiters,
    pub(crate) marks: Marks,
    /// Not to be started before a submit that replaces them is on disk.
    pub(crate) secured: Secured,
    pub(crate) batches: Batches,
    pub(crate) timers: Timers,
    /// The latest hand-outs, until it is sure that the socket took them.
    pub(crate) handed: VecDeque<(ReplyTo, SlotId, u64)>,
    pub(crate) hold: Option<Hold>,
    /// Sessions of the last epoch that have not spoken in this one, and whether each is plain.
    pub(crate) before: BTreeMap<SessionName, bool>,
    pub(crate) grace: Grace,
    pub(crate) drain: Option<Drain>,
    /// Nothing is handed out, by the wish of whoever runs this broker.
    pub(crate) quiet: bool,
    pub(crate) stopping: bool,
    pub(crate) store_error: Option<String>,
    pub(crate) next_op: u64,
    /// Number of the last progress event.
    pub(crate) event_n: u64,
    pub(crate) stats: Stats,
    pub(crate) started: Millis,
    /// Hand-outs stopped for a full list of operations, until it is half empty.
    pub(crate) blocked: bool,
    /// Sessions that may take suspects again, whose waiting slots have not been offered any yet.
    pub(crate) cleared: Vec<SessionId>,
    /// Somebody waits for an operation that was asked for since the shell last looked.
    pub(crate) awaited: bool,
    pub(crate) out: Vec<Action>,
}

/// What the core starts from, as the store found it.
#[derive(Debug)]
pub struct Start {
    /// The program's version, for PONG and STATS.
    pub version: String,
    pub epoch: Epoch,
    pub secret: [u8; 16],
    /// Of earlier epochs, newest first.
    pub past_secrets: Vec<[u8; 16]>,
    /// Seeds the jitter of retries.
    pub seed: u64,
    pub running: Vec<FoundTask>,
    /// Worker sessions that were connected, and whether each is plain.
    pub sessions: Vec<(SessionName, bool)>,
    /// The last epoch did not end cleanly.
    pub unclean: bool,
    pub paused: Vec<LaneName>,
    /// What was set of kinds while a broker ran: whether it is paused, and its values.
    pub kinds: Vec<(Kind, bool, KindValues)>,
    pub lanes: Vec<(LaneName, LaneValues)>,
    pub fair_keys: Vec<(FairKey, FairKeyValues)>,
}

impl Start {
    /// On a table that no broker has worked on.
    pub fn fresh(epoch: Epoch, secret: [u8; 16], seed: u64) -> Self {
        Self {
            version: String::new(),
            epoch,
            secret,
            past_secrets: Vec::new(),
            seed,
            running: Vec::new(),
            sessions: Vec::new(),
            unclean: false,
            paused: Vec::new(),
            kinds: Vec::new(),
            lanes: Vec::new(),
            fair_keys: Vec::new(),
        }
    }
}

/// Counted since start.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) handed_out: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) released: u64,
    /// Tasks, not runs: however they came to be cancelled.
    pub(crate) cancelled: u64,
    pub(crate) stale: u64,
    pub(crate) bad_messages: u64,
}

impl Broker {
    /// A broker that serves at once, or after the workers of an earlier epoch had their chance to resume.
    pub fn new(settings: Settings, start: Start, now: Now) -> (Self, Vec<Action>) {
        let dispatch = Dispatch::new(&settings);
        let mut broker = Self {
            version: start.version,
            epoch: start.epoch,
            key: LeaseKey::new(start.secret),
            past_keys: start.past_secrets.into_iter().map(LeaseKey::new).collect(),
            random: Random::new(start.seed),
            dispatch,
            gates: Gates::default(),
            set_kinds: BTreeMap::new(),
            set_lanes: BTreeMap::new(),
            set_keys: BTreeMap::new(),
            workers: Workers::default(),
            lost_workers: LostWorkers::default(),
            running: IdMap::default(),
            last_words: LastWords::default(),
            settling: IdMap::default(),
            settled_idle: BTreeSet::new(),
            questions: IdMap::default(),
            pending: Backlog::default(),
            waiters: Waiters::default(),
            marks: Marks::default(),
            secured: Secured::default(),
            batches: Batches::default(),
            timers: Timers::default(),
            handed: VecDeque::new(),
            hold: None,
            before: BTreeMap::new(),
            grace: Grace::default(),
            drain: None,
            quiet: false,
            stopping: false,
            store_error: None,
            next_op: 0,
            event_n: 0,
            stats: Stats::default(),
            started: now.mono,
            blocked: false,
            cleared: Vec::new(),
            awaited: false,
            out: Vec::new(),
            settings,
        };
        for lane in &start.paused {
            if let Some(rank) = broker.dispatch.lane(lane) {
                broker.dispatch.pause(rank, true);
            }
        }
        broker.begin_limits(start.kinds, start.lanes, now);
        broker.begin_fair_keys(start.fair_keys, now);
        for task in start.running {
            broker.add_orphan(task, now);
        }
        broker.expect_back(start.sessions, start.unclean, now);
        broker.feed_gates(now);
        let actions = std::mem::take(&mut broker.out);
        (broker, actions)
    }

    /// Takes in one event and appends what to do about it to `actions`, in the order in which to do it.
    pub fn handle(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        std::mem::swap(&mut self.out, actions);
        self.wake_gates(now);
        match event {
            Event::Asked { from, request } => self.on_asked(from, request, now),
            Event::BadMessage => self.stats.bad_messages += 1,
            Event::Disconnected(conn) => self.on_disconnected(conn, now),
            Event::Undelivered(reply) => self.on_undelivered(reply, now),
            Event::Loaded(loads) => self.on_loaded(loads, now),
            Event::Appeared(rows) => self.on_appeared(rows),
            Event::Committed(results) => self.on_committed(results, now),
            Event::EndedByStore(ended) => self.on_ended_by_store(&ended, now),
            Event::Overtaken(ended) => self.on_overtaken(ended),
            Event::CancelRequested(tasks) => self.on_cancel_requested(&tasks, now),
            Event::StoreFailed(cause) => self.on_store_failed(cause),
            Event::StoreRecovered => self.on_store_recovered(now),
            Event::Stalled { .. } => self.on_stalled(now),
            Event::Tick => self.on_tick(now),
            Event::Quiet(quiet) => self.on_quiet(quiet, now),
            Event::Stop => self.on_stop(),
        }
        self.feed_cleared(now);
        self.feed_gates(now);
        self.keep_crowds(now);
        self.begin_abandon(now);
        std::mem::swap(&mut self.out, actions);
    }

    /// When [`Event::Tick`] is due, if nothing else comes first.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.timers.next()
    }

    /// Operations given to the store whose results are not in.
    pub fn n_unsettled(&self) -> usize {
        self.pending.len()
    }

    /// Whether somebody waits for one of the operations since the last call: a question, or one who waits for its task.
    /// Otherwise they may gather for a moment.
    pub fn take_awaited(&mut self) -> bool {
        std::mem::take(&mut self.awaited)
    }

    /// Tasks that workers hold.
    pub fn n_running(&self) -> usize {
        self.running.len()
    }

    fn on_asked(&mut self, from: Asker, request: Request, now: Now) {
        if self.is_backlog_over(OPS_BUSY_MAX, BUSY_FACTOR * self.settings.backlog_bytes_max)
            && adds_operations(&request)
        {
            return self.refuse(from.reply, self.too_busy());
        }
        let is_question = match &request {
            Request::Status(_)
            | Request::Stats
            | Request::Lanes(_)
            | Request::Kinds(_)
            | Request::FairKeys(_)
            | Request::Schedules(_)
            | Request::Group(_) => true,
            Request::WaitFor(wait) => wait.group.is_some(),
            _ => false,
        };
        if is_question && self.pending.n_questions() >= QUESTIONS_MAX {
            let text = format!("{QUESTIONS_MAX} questions about tasks wait for the database, as many as may");
            return self.refuse(from.reply, WireError::new(Code::Full, text).after_ms(100));
        }
        match request {
            Request::Hello(hello) => self.on_hello(from, hello, now),
            Request::Ready(ready) => self.on_ready(from, ready, now),
            Request::Progress(progress) => self.on_progress(from, progress, now),
            Request::Beat(beat) => self.on_beat(from, &beat, now),
            Request::Bye(bye) => self.on_bye(from, bye, now),
            Request::Submit(submit) => self.on_submit(from, submit, now),
            Request::WaitFor(wait) => self.on_wait_for(from, wait, now),
            Request::Status(status) => self.on_status(from, status, now),
            Request::Cancel(tasks) => self.on_cancel(from, tasks.tasks, now),
            Request::Requeue(tasks) => self.on_requeue(from, tasks.tasks, now),
            Request::Lanes(lanes) => self.on_lanes(from, &lanes, now),
            Request::Workers(question) => self.on_workers(from, &question, now),
            Request::Stats => self.on_stats(from, now),
            Request::Drain(drain) => self.on_drain(from, &drain),
            Request::Schedules(schedules) => self.on_schedules(from, schedules, now),
            Request::Bulk(bulk) => self.on_bulk(from, bulk, now),
            Request::Kinds(kinds) => self.on_kinds(from, kinds, now),
            Request::FairKeys(keys) => self.on_fair_keys(from, keys, now),
            Request::Group(about) => self.on_group(from, &about, now),
            Request::Ping => {
                self.answer(from.reply, Answer::Pong(Pong { epoch: self.epoch, version: self.version.clone() }));
            }
        }
    }

    fn on_tick(&mut self, now: Now) {
        let mut abandoned = Vec::new();
        while let Some(timer) = self.timers.pop_due(now.mono) {
            match timer {
                Timer::Lease(task) => self.on_lease_over(task, now),
                Timer::Note(task) => self.write_note(task, now),
                Timer::Parked(slot) => self.on_parked_over(slot),
                Timer::Beat(session) => self.answer_beat(session),
                Timer::Away(session) => self.on_away_over(session, now),
                Timer::Waiter(reply) => self.on_waiter_over(reply),
                Timer::Abandon(task) => abandoned.push(task),
                Timer::Crowd(group) => self.drop_crowd(group),
                Timer::Question(reply) => self.on_question_late(reply),
                Timer::Orphans => self.on_orphans_over(now),
                Timer::Hold => self.end_hold(now),
                // The gates were looked at before any event.
                Timer::Token(_) => {}
            }
        }
        self.on_abandoned(abandoned, now);
    }

    fn on_quiet(&mut self, quiet: bool, now: Now) {
        self.quiet = quiet;
        // Whoever has waited meanwhile is served.
        self.feed_all(now);
    }

    fn on_stop(&mut self) {
        self.stopping = true;
        self.send_parked_away();
    }

    fn on_store_failed(&mut self, cause: String) {
        self.store_error = Some(cause);
    }

    fn on_store_recovered(&mut self, now: Now) {
        self.store_error = None;
        self.feed_all(now);
    }

    // ------------------------------------------------------------------------------------------------ small words

    pub(crate) fn answer(&mut self, to: ReplyTo, answer: Answer) {
        self.out.push(Action::Answer { to, answer });
    }

    pub(crate) fn refuse(&mut self, to: ReplyTo, error: WireError) {
        self.answer(to, Answer::Error(error));
    }

    /// Asks the store for something whose result nobody waits for.
    pub(crate) fn store(&mut self, op: Op) {
        self.out.push(Action::Store { id: None, op });
    }

    /// Asks the store for something and remembers what to do with the result.
    pub(crate) fn store_for(&mut self, op: Op, pending: Pending) -> OpId {
        self.next_op += 1;
        let id = OpId(self.next_op);
        self.awaited |= pending.is_awaited();
        self.pending.insert(id, &op, pending);
        self.out.push(Action::Store { id: Some(id), op });
        id
    }

    /// Reads ahead where it is time.
    pub(crate) fn demand(&mut self, queue: QueueIndex) {
        if let Some(rows) = self.dispatch.next_demand(queue) {
            self.demand_rows(queue, rows);
        }
    }

    pub(crate) fn demand_rows(&mut self, queue: QueueIndex, rows: usize) {
        let (key, fair) = (self.dispatch.key(queue), Arc::clone(self.dispatch.fair_rules()));
        self.out.push(Action::Demand { key, rows, fair });
    }

    /// Why no new work is taken in now, if so.
    pub(crate) fn intake_refusal(&self) -> Option<WireError> {
        if let Some(cause) = &self.store_error {
            return Some(WireError::new(Code::Storage, format!("{cause}; nothing was stored")).after_ms(1_000));
        }
        self.is_backlog_over(OPS_MAX, self.settings.backlog_bytes_max).then(|| self.too_busy())
    }

    fn is_backlog_over(&self, ops: usize, bytes: usize) -> bool {
        self.pending.len() >= ops || self.pending.bytes() >= bytes
    }

    fn too_busy(&self) -> WireError {
        let text = format!(
            "{} operations with {} bytes wait for the disk; nothing was stored (backlog_bytes_max)",
            self.pending.len(),
            self.pending.bytes()
        );
        WireError::new(Code::Full, text).after_ms(100)
    }
}

/// Whether a question asks something of the store that nothing else bounds.
fn adds_operations(request: &Request) -> bool {
    match request {
        Request::Ready(ready) => !ready.outcomes.is_empty(),
        Request::Hello(hello) => !hello.resume.is_empty(),
        Request::Bye(bye) => !bye.outcomes.is_empty(),
        Request::Progress(progress) => progress.checkpoint.is_some() || progress.parents.is_some(),
        Request::Submit(_)
        | Request::WaitFor(_)
        | Request::Status(_)
        | Request::Cancel(_)
        | Request::Requeue(_)
        | Request::Lanes(_)
        | Request::Bulk(_)
        | Request::Kinds(_)
        | Request::FairKeys(_)
        | Request::Group(_)
        | Request::Schedules(_)
        | Request::Stats => true,
        Request::Beat(_) | Request::Workers(_) | Request::Drain(_) | Request::Ping => false,
    }
}

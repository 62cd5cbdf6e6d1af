//! Holds the truth and says what was done against it. It knows the table, the words on the wire and the operations that the
//! core asked for; it decides nothing and shares no code with what it watches. Where it cannot know, it lets pass.
//!
//! Its rules:
//! - What was answered is on disk.
//! - A lease is given once, with the attempts and the timeout of its row or its kind, and ends by them. Nothing ends or speaks under one
//!   that is not current. A run that its worker holds is not taken back; a loss is somebody's death; counters add up.
//! - No task leaves the table or its lane unless somebody asked for that and it was in a state for it, or it ended longer ago than rows
//!   are kept, or is one more than are. None leaves that a child, its group or a window still needs. No two live rows share a key.
//! - A change of many meets those that its filter describes, a dry run none. Nobody is cancelled whom nobody meant, a cancelled group as
//!   a whole. What is shown of a task or a group is what the table said since that was asked.
//! - No task goes before those that it waits for, and none waits for nobody; a child is told how its parents ended.
//! - The higher lane goes first, and within a lane the fair keys take turns; no slot is idle beside work. A broker that was told to be
//!   quiet starts nothing, and one that was told to go on does.
//! - Everybody is answered, a submit with the one task that has its key, or had it within its window; what was replaced does not run. Who
//!   waits by key finds the newest. A task goes with the last of those who wait for it when one of them said so, and then only.
//! - Those who wait hear every word of progress, of a result or of a log once, whole and in order, or of a gap, and every end after its
//!   words; of a group the end of its last task, after those of all. A row keeps the last checkpoint, and each hand-out carries it.
//! - Each slot of a schedule is fired once and in time, and a schedule is what the last of those who were answered has made it.
//! - Whenever the broker has nothing left to write, the table alone says all that it knows, which is what "an equivalent state after a
//!   restart" means here: the same tasks running under the same leases, every other one queued or ended.

mod abandon;
mod answers;
mod batches;
mod bulk;
mod by_key;
mod cancels;
mod checkpoints;
mod counts;
mod cron;
mod defaults;
mod dispatch;
mod group_news;
mod groups;
mod kept;
mod keys;
mod limits;
mod looks;
mod moving;
mod news;
mod parents;
mod replaced;
mod runs;
mod schedules;
mod shares;
mod status;
mod table;
mod turns;
mod waits;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use laneway_broker::internals::{Edges, Table};
use laneway_core::{OpId, ReplyTo};
use laneway_protocol::message::{Change, Held, Hello, Request};
use laneway_protocol::{TaskId, TaskState};

use crate::plan::Plan;
use crate::row::{Row, rows};
use crate::tally::Tally;

/// An answer, or a task for an idle slot, may take this long on top of what it may take anyway: turns, latencies, retries.
const LATE_MS: u64 = 3_000;

type Leases = BTreeMap<i64, BTreeSet<i64>>;

#[derive(Debug, Default)]
pub(crate) struct Auditor {
    pub(crate) tally: Tally,
    /// What the table says now.
    pub(crate) rows: BTreeMap<i64, Row>,
    /// Who waits, or waited, for whom.
    edges: Edges,
    /// What it said at the last synced commit.
    synced: BTreeMap<i64, Row>,
    /// The first thing that was wrong.
    pub(crate) found: Option<String>,
    /// Rows that an app has changed under the broker: they may be anything, as long as they end.
    touched: BTreeSet<i64>,
    requeued: BTreeSet<i64>,
    /// A cancel was asked for, at some time.
    cancelled: BTreeSet<i64>,
    cancelled_groups: groups::Cancelled,
    /// Runs that are to stop, by lease: the task, and since when.
    stopping: BTreeMap<i64, (i64, Option<u64>)>,
    promises: Promises,
    leases: Current,
    peers: Peers,
    waiting: Waiting,
    slots: schedules::Slots,
    cron: cron::Cron,
    open: BTreeMap<ReplyTo, Open>,
    edits: bulk::Edits,
    batches: batches::Batches,
    moving: moving::Moving,
    looks: looks::Looks,
    /// Cancels and other changes on their way to the store.
    cancels: BTreeMap<OpId, Vec<TaskId>>,
    limits: limits::Limits,
    owed: shares::Owed,
    turns: turns::Turns,
    stakes: abandon::Stakes,
    now: u64,
    window_rows_max: usize,
    /// The broker that runs now was told to hand nothing out.
    quiet: bool,
    kept: kept::Kept,
    counts: counts::Counts,
    defaults: defaults::Defaults,
    heard: news::Heard,
    saved: checkpoints::Saved,
    keys: keys::Keys,
    void: replaced::Void,
    /// For how long after its end a task was promised to stay.
    windows: BTreeMap<i64, i64>,
    /// Waits by key, with the newest task that had it when they came.
    by_key: BTreeMap<ReplyTo, Option<i64>>,
    /// Questions after parents, of those who ran the task when they asked.
    asked_by_holders: BTreeSet<ReplyTo>,
    /// The last moment at which something was wrong that excuses a delay.
    disturbed: u64,
}

/// What somebody was told and may rely on.
#[derive(Debug, Default)]
struct Promises {
    stored: BTreeSet<i64>,
    /// Tasks settled as done, with the lease that did it.
    done: BTreeMap<i64, i64>,
    /// Words that a worker was told not to repeat: stale, or recorded before.
    void: BTreeSet<(i64, i64)>,
}

/// Who may speak for a task.
#[derive(Debug, Default)]
struct Current {
    /// More than one only after a start: hand-outs that no row shows.
    of: Leases,
    /// Handed out or adopted by the broker that runs now, or shown by a row.
    sure: BTreeSet<i64>,
    /// Task, when that was made, run.
    ever: BTreeMap<i64, (i64, i64, i64)>,
    ended_by_word: BTreeSet<(i64, i64)>,
    /// Tasks whose runs end by what the core is told at this moment.
    ending: BTreeSet<i64>,
    /// Hand-outs that never arrived, for each task.
    nothing: BTreeMap<i64, i64>,
    /// The number of the newest run that this broker has handed out.
    newest_run: BTreeMap<i64, i64>,
}

/// The sessions, as this broker knows them.
#[derive(Debug, Default)]
struct Peers {
    of_conn: BTreeMap<u64, String>,
    hello: BTreeMap<String, Hello>,
    spoke: BTreeSet<String>,
    welcome: BTreeSet<String>,
    shaken: BTreeSet<String>,
    /// Told to leave, and not to stay.
    drained: BTreeSet<String>,
}

/// What waits for a worker, as the last whole turn of the scheduler saw it.
#[derive(Debug, Default)]
struct Waiting {
    begun: (i64, BTreeMap<i64, Row>),
    whole: Option<(i64, BTreeMap<i64, Row>)>,
    told: (i64, BTreeMap<i64, Row>),
    /// Since when a task has been due, and with how many runs.
    since: BTreeMap<i64, (u64, i64)>,
    /// Since when a task has waited for nobody.
    vain: BTreeMap<i64, u64>,
    /// Tasks with a cancel on its way.
    cancelling: BTreeSet<i64>,
    /// Rows that waited for others when the broker started: what happened to their parents before is found step by step.
    inherited: BTreeSet<i64>,
}

impl Waiting {
    fn forget(&mut self, task: i64) {
        for rows in [Some(&mut self.begun), self.whole.as_mut(), Some(&mut self.told)].into_iter().flatten() {
            rows.1.remove(&task);
        }
    }
}

#[derive(Debug)]
struct Open {
    conn: u64,
    at: u64,
    wait_ms: u64,
    gone: bool,
    request: Request,
}

impl Auditor {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            kept: kept::Kept::new(plan),
            window_rows_max: plan.window_rows_max,
            limits: limits::Limits::new(plan),
            defaults: defaults::Defaults::new(plan),
            turns: turns::Turns::new(plan),
            ..Self::default()
        }
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.found.get_or_insert(what);
    }

    /// Delays are excused until then.
    pub(crate) fn disturbed(&mut self, until: u64) {
        self.disturbed = self.disturbed.max(until);
        self.waiting.whole = None;
    }

    pub(crate) fn on_touched(&mut self, id: i64) {
        self.touched.insert(id);
    }

    pub(crate) fn on_requeue(&mut self, tasks: &[TaskId]) {
        self.requeued.extend(tasks.iter().map(|task| id(*task)));
    }

    pub(crate) fn on_start(&mut self, now: u64, epoch: u64, table: &Table) {
        self.tally.starts += 1;
        (self.now, self.quiet) = (now, false);
        (self.rows, self.edges) = (rows(table), table.edges());
        self.news_on_start(epoch);
        self.checkpoints_on_start();
        self.keys_on_start();
        self.groups_on_start();
        self.by_key.clear();
        self.asked_by_holders.clear();
        self.disturbed(now);
        self.peers = Peers::default();
        let waits = self.rows.iter().filter(|(_, row)| row.state == TaskState::Waiting);
        self.waiting = Waiting { inherited: waits.map(|(task, _)| *task).collect(), ..Waiting::default() };
        self.open.clear();
        self.cancels.clear();
        self.edits.on_start();
        self.looks_on_start();
        self.turns_on_start();
        self.cron_on_start();
        (self.batches, self.moving) = (batches::Batches::default(), moving::Moving::default());
        self.stakes_on_start(now);
        self.leases.newest_run.clear();
        self.leases.of.clear();
        for (task, row) in &self.rows {
            let candidates: BTreeSet<i64> = if row.state == TaskState::Running {
                row.lease.into_iter().collect()
            } else {
                // An id that a power cut has freed may stand for another task now.
                let is_it =
                    |(of, made, run): &(i64, i64, i64)| (of, *made) == (task, row.created_at) && *run > row.runs;
                let of = self.leases.ever.iter().filter(|(_, of)| is_it(of));
                of.map(|(lease, _)| *lease).collect()
            };
            if row.state == TaskState::Running {
                self.leases.sure.insert(*task);
            } else {
                self.leases.sure.remove(task);
            }
            if !candidates.is_empty() {
                self.leases.of.insert(*task, candidates);
            }
        }
    }

    pub(crate) fn on_stall(&mut self, now: u64) {
        self.stakes_on_stall(now);
        self.disturbed(now);
    }

    pub(crate) fn on_asked(&mut self, reply: ReplyTo, conn: u64, request: &Request, now: u64) {
        self.now = now;
        let (session, wait_ms) = match request {
            Request::Hello(hello) => (Some(&hello.session), 0),
            Request::Ready(ready) => (Some(&ready.session), ready.wait_ms),
            Request::Beat(beat) => (Some(&beat.session), beat.wait_ms),
            Request::Progress(progress) => (Some(&progress.session), 0),
            Request::Bye(bye) => (Some(&bye.session), 0),
            Request::Submit(submit) => (None, submit.wait_ms),
            Request::WaitFor(wait) => (None, wait.wait_ms),
            _ => (None, 0),
        };
        if let Some(session) = session {
            self.peers.of_conn.insert(conn, session.to_string());
            self.peers.spoke.insert(session.to_string());
        }
        if let Some(session) = session.filter(|session| self.peers.shaken.contains(session.as_str())) {
            // It may have been lost, and be another one now.
            self.peers.drained.remove(session.as_str());
        }
        match request {
            Request::Progress(progress) => self.on_parents_asked(reply, progress),
            Request::Submit(submit) => self.on_submit_asked(submit),
            Request::WaitFor(wait) => self.on_key_asked(reply, wait),
            _ => {}
        }
        if let Request::Hello(hello) = request {
            self.peers.hello.insert(hello.session.to_string(), hello.clone());
        }
        if let Request::Cancel(tasks) = request {
            self.waiting.cancelling.extend(tasks.tasks.iter().map(|task| id(*task)));
            self.cancelled.extend(tasks.tasks.iter().map(|task| id(*task)));
        }
        if let Request::Bulk(bulk) = request
            && bulk.change == Some(Change::Cancel)
        {
            self.waiting.cancelling.extend(bulk.tasks.iter().map(|task| id(*task)));
        }
        self.looks_on_asked(reply, request);
        self.counts_on_asked(request);
        if let Request::Group(about) = request {
            self.on_group_asked(about);
        }
        self.stakes_on_asked(request);
        self.on_limit_asked(reply);
        self.cron_on_asked(reply);
        let open = Open { conn, at: now, wait_ms, gone: false, request: request.clone() };
        if self.open.insert(reply, open).is_some() {
            self.fail(format!("{reply:?} was used twice"));
        }
    }

    pub(crate) fn on_gone(&mut self, conn: u64, now: u64) {
        self.now = now;
        if let Some(session) = self.peers.of_conn.get(&conn) {
            self.peers.shaken.insert(session.clone());
        }
        for open in self.open.values_mut().filter(|open| open.conn == conn) {
            open.gone = true;
        }
    }

    pub(crate) fn on_forget(&mut self, reply: ReplyTo) {
        self.take_look(reply);
        if self.open.remove(&reply).is_none() {
            self.fail(format!("{reply:?} is forgotten and was not there"));
        }
    }

    pub(crate) fn at_rest(&self, waiting: bool) -> Result<(), String> {
        let done = |row: &&Row| row.state == TaskState::Done;
        for (task, row) in self.rows.iter().filter(|(task, row)| done(row) && !self.touched.contains(task)) {
            let by = |lease: &&i64| row.result == Some(result(**lease));
            let of = self.leases.ever.iter().filter(|(_, (of, ..))| of == task).map(|(lease, _)| lease);
            if !of.into_iter().any(|lease| by(&lease)) {
                return Err(format!("task {task} is done with a result of nobody: {row:?}"));
            }
        }
        if waiting { Err("somebody waits for an answer".into()) } else { Ok(()) }
    }

    pub(crate) fn unfinished(&self) -> String {
        let live: Vec<_> = self.rows.iter().filter(|(_, row)| !row.state.is_final()).collect();
        format!("{live:?}")
    }
}
/// What a handler of the workers here gives as its result.
fn result(lease: i64) -> String {
    format!("\"{lease:016x}\"")
}

fn held(held: &Held) -> (i64, i64) {
    (id(held.0), held.1.value())
}

fn id(task: TaskId) -> i64 {
    i64::try_from(task.value()).expect("an id has 53 bits")
}

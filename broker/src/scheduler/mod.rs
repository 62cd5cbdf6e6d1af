//! The scheduler thread: owns the one writing connection, polls the table for change and feeds the router.
//!
//! It works in turns, one transaction each: operations of the router in, what the table brought out. A turn is bounded in
//! rows. After it the heads of the queues are read ahead, outside of the transaction: apps may write meanwhile. What turns have promised is synced by another thread (`outlet.rs`), once for all that is written by then, while the
//! next ones are written: that is the group commit. A storage error undoes the turn and keeps its operations; they are said
//! again until they are written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select};
use laneway_core::{
    Ended, Event, FairRules, IdSet, Loaded, Millis, Next, Now, Op, OpId, OpResult, QueueKey, UnixMillis,
};
use laneway_protocol::message::{Final, Verdict};
use laneway_protocol::{FairKey, LaneName, TaskId};

use crate::clock::Clock;
use crate::doorbell::Doorbell;
use crate::store::{Fired, Keeping, Limits, Store, StoreError, Sync, Unstarted};
use crate::telemetry::TaskLog;

mod agenda;
mod ahead;
mod docket;
mod lines;
mod outlet;
mod promise;
#[cfg(feature = "internals")]
mod step;

use agenda::Agenda;
use docket::Docket;
use lines::{Names, is_routine, let_go_event, task_event, tell_ended, tell_fired};
use outlet::{Outlet, Told};
use promise::{brings_back, needs_sync};

/// Tasks that somebody waits for, looked at in one turn after an app's commit.
const WATCHED_PER_TURN: usize = 512;
/// Rows looked at by a sweep and a counting step.
const SWEEP_ROWS: usize = 512;
const RECOUNT_ROWS: usize = 20_000;
/// Slots of schedules that one turn fires.
const SLOTS_PER_TURN: usize = 256;
/// Between two looks at schedules though nothing has told of a change: the clock may have been wrong.
const SCHEDULES_LOOK_MS: u64 = 60_000;
const RECHECK_EDGES: usize = 2_048;
/// Between two steps of pruning while there is something to delete.
const PRUNE_PAUSE_MS: u64 = 20;
/// Between two steps of counting while there is something to count.
const RECOUNT_INTERVAL_MS: u64 = 100;
/// How long writes may fail before new work is refused.
const FAILURE_GRACE_MS: u64 = 500;
const RETRY_MS: u64 = 20;
/// After a turn the write lock is left alone for a part of the time that the turn took: SQLite's own busy handler sleeps
/// up to 100 ms between two tries, so an app only gets in when a good part of all moments is free. A third while no app
/// commits, as long as the turn itself while one does.
const BREATH_SHARE: u32 = 3;
const BREATH_MAX: Duration = Duration::from_millis(5);
const FOREIGN_MS: u64 = 2_000;
/// A turn of so many operations that leaves nothing else to do is synced by the scheduler itself.
const FEW_OPS: usize = 8;
/// Operations that the scheduler is told of at once, before more of them gather.
const GATHERED_MAX: usize = 1_024;
/// How long the scheduler looks by itself after a wake-up, at first faster: a commit can be seen once it is synced.
const BURST_MS: u64 = 50;
const FAST_BURST_MS: u64 = 5;
const FAST_SHARE: u32 = 4;
/// A wake-up so soon after an own commit may be its echo.
const OWN_ECHO: Duration = Duration::from_millis(10);
/// The poll that always runs, should a wake-up get lost.
const BACKSTOP: Duration = Duration::from_millis(250);

/// What the router asks for in one turn of its loop.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) ops: Vec<(Option<OpId>, Op)>,
    pub(crate) demands: Vec<(QueueKey, usize, Arc<FairRules>)>,
    pub(crate) unload: Vec<TaskId>,
    /// Tasks to watch (true), or not any more.
    pub(crate) watch: Vec<(TaskId, bool)>,
}

impl Orders {
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.demands.is_empty() && self.unload.is_empty() && self.watch.is_empty()
    }

    /// Whether there is more than operations that may gather.
    pub(crate) fn is_urgent(&self) -> bool {
        self.ops.len() >= GATHERED_MAX || !(self.demands.is_empty() && self.unload.is_empty() && self.watch.is_empty())
    }
}

/// The scheduler's own settings.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Between two looks for commits of apps.
    pub(crate) poll: Duration,
    /// Most urgent first.
    pub(crate) lanes: Vec<LaneName>,
    pub(crate) turn_rows: usize,
    pub(crate) window_bytes: usize,
    pub(crate) full_durability: bool,
    /// How long ended tasks are kept.
    pub(crate) keeping: Keeping,
    pub(crate) prune_interval_ms: u64,
    /// Rows that one step of pruning looks at.
    pub(crate) prune_rows: usize,
    /// What `[retention]` says from now on; looked at before each turn.
    pub(crate) retention_news: Receiver<RetentionNews>,
}

/// `[retention]`, read anew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetentionNews {
    pub(crate) limits: Limits,
    pub(crate) interval_ms: u64,
}

pub(crate) struct Scheduler<S> {
    store: S,
    inbox: Receiver<Orders>,
    outlet: Outlet,
    clock: Clock,
    pace: Pace,
    log: TaskLog,
    names: Names,
    /// The inbox was full when it was last drained.
    was_full: bool,
    /// Operations whose turn has not been committed, in order.
    ops: Docket,
    agenda: Agenda,
    /// Queues with rows at their heads that are to be rejected, which only a turn can do.
    unfit: BTreeSet<QueueKey>,
    /// Wake-ups by the folder watch, if there is one, and when the last came.
    woken: Option<Receiver<()>>,
    woken_at: Option<Millis>,
    /// Read ahead or handed out, and still `queued` in the table.
    out: IdSet<TaskId>,
    watched: BTreeSet<TaskId>,
    /// Where the last look at watched tasks ended.
    watched_from: Option<TaskId>,
    chores: Chores,
    /// When the last turn let go of the write lock, and how long it is left to the apps.
    breath: Option<(Instant, Duration)>,
    /// When an app was last seen to commit.
    foreign_at: Option<Millis>,
    /// Since when turns fail, and whether the router was told.
    failing: Option<(Now, bool)>,
}

/// What is to be done besides operations and loads.
#[derive(Debug)]
struct Chores {
    /// Rows behind the watermark have not been looked at.
    intake: bool,
    sweep: bool,
    sweep_at: Option<UnixMillis>,
    /// Watched tasks that are to be looked at.
    looks: usize,
    /// Rows may have changed that the counts do not know of.
    recount: bool,
    /// Walks over the open dependencies that are still to be made, the begun one among them.
    rechecks: usize,
    /// When the next step of either is due.
    recount_at: Millis,
    prune_at: Millis,
    schedules: Calendar,
}

/// What is known of the schedules.
#[derive(Debug)]
struct Calendar {
    /// Some may be new or changed.
    look: bool,
    /// When the next slot is due; `None` while there is no schedule.
    next_at: Option<UnixMillis>,
    /// When they are looked at in any case.
    look_at: Millis,
}

/// What a turn found, to be told after its commit.
#[derive(Debug, Default)]
struct Found {
    loaded: Vec<Loaded>,
    /// Ended by the store's own hand: cancelled, expired, rejected.
    ended: Vec<Unstarted>,
    /// Watched tasks that have ended or vanished.
    watched: Vec<(TaskId, Option<Final>)>,
    cancel_requested: Vec<TaskId>,
    /// Rows of queues that are read by turns.
    appeared: BTreeSet<(QueueKey, Option<FairKey>)>,
    fired: Fired,
    /// Queued because all that they waited for has ended.
    let_go: Vec<(TaskId, QueueKey)>,
}

impl Chores {
    fn is_counting(&self) -> bool {
        self.recount || self.rechecks > 0
    }
}

impl<S: Store> Scheduler<S> {
    pub(crate) fn new(
        store: S,
        (inbox, outbox, bell): (Receiver<Orders>, Sender<Vec<Event>>, Doorbell),
        clock: Clock,
        pace: Pace,
        woken: Option<Receiver<()>>,
        log: TaskLog,
    ) -> Self {
        let now = clock.now();
        let prune_at = now.mono.after(pace.prune_interval_ms);
        Self {
            store,
            inbox,
            outlet: Outlet::new(outbox, bell),
            clock,
            agenda: Agenda::new(pace.lanes.clone()),
            unfit: BTreeSet::new(),
            pace,
            log,
            names: Names::default(),
            was_full: false,
            ops: Docket::default(),
            woken,
            woken_at: None,
            out: IdSet::default(),
            watched: BTreeSet::new(),
            watched_from: None,
            chores: Chores {
                intake: true,
                sweep: true,
                sweep_at: None,
                looks: 0,
                recount: true,
                rechecks: 1,
                recount_at: now.mono,
                prune_at,
                schedules: Calendar { look: true, next_at: None, look_at: now.mono.after(SCHEDULES_LOOK_MS) },
            },
            breath: None,
            foreign_at: None,
            failing: None,
        }
    }

    /// Runs until the router hangs up; then everything it ever asked for is committed and the epoch is closed. Fails on a
    /// storage error that leaves doubt.
    pub(crate) fn run(mut self) -> Result<(), StoreError> {
        if let Some(log) = self.store.log_sync() {
            self.outlet.sync_apart(log)?;
        }
        loop {
            let open = self.take_orders();
            if !open {
                self.ops.let_go();
            }
            let result = self.turn_if_needed();
            let now = self.clock.now();
            match result {
                Ok(()) => self.tell_recovered(),
                Err(error) if error.retry() => {
                    self.store.rollback();
                    self.tell_failure(&error, now);
                    std::thread::sleep(Duration::from_millis(RETRY_MS));
                }
                Err(error) => {
                    self.store.rollback();
                    return Err(error);
                }
            }
            if !open
                && (self.ops.is_empty() || self.failing.is_some_and(|(since, _)| now.mono.since(since.mono) > 2_000))
            {
                // What a failing disk did not take is said again by the workers, to the next broker.
                self.outlet.finish()?;
                return if self.ops.is_empty() { self.store.close_epoch(now) } else { Ok(()) };
            }
        }
    }

    /// Takes what is in the inbox, waiting for something until the next look is due. False when the router has hung up.
    fn take_orders(&mut self) -> bool {
        let wait = self.next_wait();
        self.was_full = self.inbox.is_full();
        let (inbox, woken) = (self.inbox.clone(), self.woken.clone().unwrap_or_else(never));
        let mut next = select! {
            recv(inbox) -> orders => match orders {
                Ok(orders) => Some(orders),
                Err(_) => return false,
            },
            recv(woken) -> word => {
                match word {
                    Ok(()) => self.woken_at = Some(self.clock.now().mono),
                    // The watch has ended: polling alone must do.
                    Err(_) => self.woken = None,
                }
                self.inbox.try_recv().ok()
            }
            default(wait) => None,
        };
        while let Some(orders) = next {
            self.absorb(orders);
            next = if self.ops.len() < self.pace.turn_rows { self.inbox.try_recv().ok() } else { None };
        }
        true
    }

    fn absorb(&mut self, orders: Orders) {
        self.ops.extend(orders.ops, self.clock.now().mono);
        for task in orders.unload {
            self.out.remove(&task);
        }
        for (key, rows, fair) in orders.demands {
            self.agenda.demand(key, rows, fair);
        }
        for (task, on) in orders.watch {
            if on {
                self.watched.insert(task);
            } else {
                self.watched.remove(&task);
            }
        }
    }

    fn next_wait(&self) -> Duration {
        if self.failing.is_some() {
            return Duration::from_millis(RETRY_MS);
        }
        if self.has_work(self.clock.now()) { Duration::ZERO } else { self.idle_wait() }
    }

    fn has_work(&self, now: Now) -> bool {
        self.ops.is_due(now.mono) || self.has_chores()
    }

    /// Whether there is something to do besides operations.
    fn has_chores(&self) -> bool {
        self.has_turn_chores() || self.agenda.is_busy()
    }

    /// Whether there is something to do that takes a turn.
    fn has_turn_chores(&self) -> bool {
        let Chores { intake, sweep, looks, schedules, .. } = &self.chores;
        *intake || *sweep || *looks > 0 || schedules.look || !self.unfit.is_empty()
    }

    /// Until the next look for commits of apps.
    fn idle_wait(&self) -> Duration {
        let Some(at) = self.woken_at.filter(|_| self.woken.is_some()) else {
            return if self.woken.is_some() { self.until_next_time() } else { self.pace.poll };
        };
        // What woke may have been our own commit: every turn looks anyway.
        let own = self.breath.is_some_and(|(since, _)| since.elapsed() < OWN_ECHO);
        match self.clock.now().mono.since(at) {
            ..FAST_BURST_MS if !own => self.pace.poll / FAST_SHARE,
            ..BURST_MS => self.pace.poll,
            BURST_MS.. => self.until_next_time(),
        }
    }

    /// To the next thing that is known to come, at most until the backstop poll.
    fn until_next_time(&self) -> Duration {
        let now = self.clock.now();
        let times = self.agenda.next_at().into_iter().chain(self.chores.sweep_at).chain(self.chores.schedules.next_at);
        let next = times.map(|at| Duration::from_millis(at.since(now.wall))).min();
        let recount = self.chores.is_counting().then(|| Duration::from_millis(self.chores.recount_at.since(now.mono)));
        let prune = Duration::from_millis(self.chores.prune_at.since(now.mono));
        let starts = self.ops.next_at().map(|at| Duration::from_millis(at.since(now.mono)));
        next.into_iter().chain(recount).chain(starts).chain([prune]).min().map_or(BACKSTOP, |wait| wait.min(BACKSTOP))
    }

    fn turn_if_needed(&mut self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.outlet.check()?;
        self.take_retention(now);
        if self.store.changed()? {
            self.foreign_at = Some(now.mono);
            self.on_change();
        }
        self.note_times(now);
        let prune = now.mono >= self.chores.prune_at;
        let recount = self.chores.is_counting() && now.mono >= self.chores.recount_at;
        if self.ops.is_due(now.mono) || self.has_turn_chores() || prune || recount || self.is_slot_due(now) {
            self.turn(now, prune, recount)
        } else {
            self.look_and_tell(now)
        }
    }

    /// Ended tasks may be kept longer or shorter from now on: what is too old is deleted at once.
    fn take_retention(&mut self, now: Now) {
        if let Some(RetentionNews { limits, interval_ms }) = self.pace.retention_news.try_iter().last() {
            self.pace.prune_interval_ms = interval_ms;
            self.pace.keeping.set_general(limits);
            self.chores.prune_at = now.mono;
        }
    }

    /// An app has committed: anything may be different.
    fn on_change(&mut self) {
        self.chores.intake = true;
        self.chores.sweep = true;
        self.chores.schedules.look = true;
        self.chores.recount = true;
        // One that has begun may be past what was changed.
        self.chores.rechecks = if self.chores.rechecks == 0 { 1 } else { 2 };
        self.chores.looks = self.watched.len();
        // An UPDATE, or an explicit id, is seen by no watermark: every queue that somebody wants to read from is looked at.
        self.agenda.mark_all();
    }

    /// What the wall clock has brought.
    fn note_times(&mut self, now: Now) {
        self.agenda.mark_until(now.wall);
        if self.chores.sweep_at.is_some_and(|at| at <= now.wall) {
            (self.chores.sweep_at, self.chores.sweep) = (None, true);
        }
        if self.chores.schedules.next_at.is_some() && self.chores.schedules.look_at <= now.mono {
            self.chores.schedules.look = true;
        }
    }

    fn is_slot_due(&self, now: Now) -> bool {
        self.chores.schedules.next_at.is_some_and(|at| at <= now.wall)
    }

    fn turn(&mut self, now: Now, prune: bool, recount: bool) -> Result<(), StoreError> {
        self.leave_room();
        let begun = Instant::now();
        let (ids, ops): (Vec<Option<OpId>>, Vec<Op>) = self.ops.take(self.pace.turn_rows, now.mono).into_iter().unzip();
        let promises = self.pace.full_durability && ops.iter().any(needs_sync);
        // A slot is fired once for ever, and its task may run before the next sync.
        let synced = self.pace.full_durability && self.is_slot_due(now) || promises && !self.outlet.syncs_apart();
        let begun_turn = self.store.begin(if synced { Sync::Power } else { Sync::Process });
        match begun_turn.and_then(|()| self.steps(&ops, now, prune, recount)) {
            Ok((results, found)) => {
                self.note_breath(begun, now);
                let (mut work, events) = self.told(&ids, &ops, results, found);
                let (promises, only_new) = (promises && !synced, !ops.iter().any(brings_back));
                // At leisure new work goes out before this very thread waits for the sync; else the sync is made meanwhile.
                let at_leisure = ops.len() <= FEW_OPS && self.ops.is_empty() && self.inbox.is_empty();
                if !at_leisure {
                    self.send(Told { work, events, promises, only_new }, false)?;
                    return self.look_and_tell(now);
                }
                let ahead = self.look_ahead(&mut work, now);
                self.send(Told { work, events, promises, only_new }, true)?;
                ahead
            }
            Err(error) => {
                self.ops.put_back(ids.into_iter().zip(ops).collect());
                // What the undone turn had found is to be found again.
                self.on_change();
                Err(error)
            }
        }
    }

    /// Waits until the apps have had their part of the time since the last turn.
    fn leave_room(&mut self) {
        if let Some((since, breath)) = self.breath.take() {
            std::thread::sleep(breath.saturating_sub(since.elapsed()));
        }
    }

    fn note_breath(&mut self, begun: Instant, now: Now) {
        let took = begun.elapsed();
        let shared = self.foreign_at.is_some_and(|at| now.mono.since(at) < FOREIGN_MS);
        let breath = if shared { took } else { took / BREATH_SHARE };
        self.breath = Some((Instant::now(), breath.min(BREATH_MAX)));
    }

    /// The steps of one turn, commit included.
    fn steps(
        &mut self,
        ops: &[Op],
        now: Now,
        prune: bool,
        recount: bool,
    ) -> Result<(Vec<Option<OpResult>>, Found), StoreError> {
        let mut found = Found::default();
        let results = if ops.is_empty() { Vec::new() } else { self.store.apply(ops, now)? };
        for (op, result) in ops.iter().zip(results.iter().chain(std::iter::repeat(&None))) {
            self.note_effects(op, result.as_ref());
        }
        // A commit that landed between the last look and the begin is part of this turn already.
        if self.store.changed()? {
            self.on_change();
        }
        self.fire(&mut found, now)?;
        if self.chores.intake || self.store.is_behind() {
            self.take_in(&mut found, now)?;
        }
        if self.chores.sweep {
            let swept = self.store.sweep(SWEEP_ROWS, now)?;
            self.chores.sweep = swept.more;
            self.chores.sweep_at = swept.next_at;
            found.ended.extend(swept.ended);
            found.cancel_requested = swept.cancel_requested;
        }
        self.look_at_watched(&mut found)?;
        self.load_unfit(&mut found, now)?;
        if prune {
            let pruned = self.store.prune(self.pace.keeping.retention(), &self.watched, self.pace.prune_rows, now)?;
            let pause = if pruned.over { self.pace.prune_interval_ms } else { PRUNE_PAUSE_MS };
            self.chores.prune_at = now.mono.after(pause);
        }
        let mut let_go = false;
        if recount && self.chores.rechecks > 0 {
            let (ended, complete) = self.store.recheck(RECHECK_EDGES, now)?;
            found.ended.extend(ended);
            self.chores.rechecks -= usize::from(complete);
            // Whoever it let go is news.
            let_go = true;
            self.chores.recount_at = now.mono.after(RECOUNT_INTERVAL_MS);
        }
        // What the last steps have ended lets its children go in the same transaction.
        if let_go || self.store.is_behind() {
            self.take_in(&mut found, now)?;
        }
        // Rows that the intake has yet to see would be counted twice, here and there.
        if recount && self.chores.recount && !self.chores.intake {
            self.chores.recount = !self.store.recount(RECOUNT_ROWS)?;
            // A complete pass has met every queue, those of lanes that never were among them.
            self.chores.sweep |= !self.chores.recount;
            self.chores.recount_at = now.mono.after(RECOUNT_INTERVAL_MS);
        }
        self.store.commit()?;
        Ok((results, found))
    }

    fn take_in(&mut self, found: &mut Found, now: Now) -> Result<(), StoreError> {
        let intake = self.store.intake(self.pace.turn_rows, now)?;
        self.chores.intake = intake.rows >= self.pace.turn_rows || self.store.is_behind();
        intake.due.into_iter().for_each(|key| self.agenda.mark(key));
        found.appeared.extend(intake.turns);
        self.agenda.appear_at(intake.turns_later);
        for (key, at) in intake.later {
            self.agenda.mark_at(key, at);
        }
        found.ended.extend(intake.rejected);
        found.let_go.extend(intake.let_go);
        Ok(())
    }

    /// What an operation of our own does to the queues: our commits do not show as changes.
    fn note_effects(&mut self, op: &Op, result: Option<&OpResult>) {
        match op {
            Op::Started(started) => {
                self.out.remove(&started.task);
            }
            // The store knows the queue that a task goes back to: an app may have moved its row meanwhile.
            Op::Ended(Ended { next, spawn, .. }) => {
                self.chores.intake |= matches!(next, Next::Queued { .. }) || !spawn.is_empty();
            }
            Op::Submit { secured, .. } => {
                (self.chores.intake, self.chores.sweep) = (true, true);
                if !secured.is_empty() {
                    self.give_back(secured, result);
                }
            }
            Op::Schedules(schedules) => self.chores.schedules.look |= schedules.is_change(),
            // What it brought into a queue the store tells with the next intake, and what must not be there the sweep finds.
            Op::Edit { .. } => (self.chores.intake, self.chores.sweep) = (true, true),
            Op::Cancel(_) | Op::CancelGroup { .. } => self.chores.sweep = true,
            Op::Bulk(slice) if !slice.dry_run => (self.chores.intake, self.chores.sweep) = (true, true),
            Op::Requeue(_) => {
                self.agenda.mark_all();
                self.chores.sweep = true;
            }
            // Its tasks without a lane may stand in another queue now.
            Op::SetKind { .. } => {
                self.agenda.mark_all();
                self.chores.recount = true;
            }
            _ => {}
        }
    }

    /// Looks at the schedules, and fires what was known to be due when the turn began: then it is synced.
    fn fire(&mut self, found: &mut Found, now: Now) -> Result<(), StoreError> {
        let due = self.is_slot_due(now);
        if !self.chores.schedules.look && !due {
            return Ok(());
        }
        found.fired = self.store.fire(if due { SLOTS_PER_TURN } else { 0 }, now)?;
        self.chores.schedules.look = found.fired.more;
        self.chores.schedules.next_at = found.fired.next_at;
        self.chores.schedules.look_at = now.mono.after(SCHEDULES_LOOK_MS);
        self.chores.intake |= !found.fired.slots.is_empty();
        Ok(())
    }

    /// Tasks that a submit was free to replace are to be read ahead again. The store has told the queues of those that it
    /// replaced; the others are few, and anywhere.
    fn give_back(&mut self, secured: &[TaskId], result: Option<&OpResult>) {
        let replaced = |task: &TaskId| {
            let Some(OpResult::Submitted(stored) | OpResult::SubmittedGroup(stored, _)) = result else { return false };
            stored.iter().any(|stored| stored.replaced && stored.task == *task)
        };
        for task in secured {
            self.out.remove(task);
        }
        if !secured.iter().all(replaced) {
            self.agenda.mark_all();
        }
    }

    fn look_at_watched(&mut self, found: &mut Found) -> Result<(), StoreError> {
        let n = self.chores.looks.min(WATCHED_PER_TURN);
        if n == 0 {
            return Ok(());
        }
        let after = self.watched_from.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut tasks: Vec<TaskId> = self.watched.range((after, std::ops::Bound::Unbounded)).copied().take(n).collect();
        let rest = n - tasks.len();
        tasks.extend(self.watched.iter().copied().take(rest));
        self.watched_from = tasks.last().copied();
        self.chores.looks -= n;
        found.watched.extend(self.store.endings(&tasks)?);
        Ok(())
    }

    /// The turn is written: tells the log, and gives the work for the router, and what else it is to be told.
    fn told(
        &mut self,
        ids: &[Option<OpId>],
        ops: &[Op],
        results: Vec<Option<OpResult>>,
        found: Found,
    ) -> (Vec<Event>, Vec<Event>) {
        // A saturated log is spared the building of what it would drop.
        let wanted = self.log.is_wanted();
        self.names.learn(ops);
        let lines = ops.iter().zip(&results).filter(|(op, _)| wanted || !is_routine(op));
        self.log.push(lines.filter_map(|(op, result)| task_event(op, result.as_ref(), &self.names)).collect());
        if wanted && !found.let_go.is_empty() {
            self.log.push(found.let_go.into_iter().map(let_go_event).collect());
        }
        self.names.forget(ops);
        for (op, result) in ops.iter().zip(&results) {
            if let (Op::Cancel(tasks) | Op::Edit { tasks, .. }, Some(OpResult::Verdicts(verdicts))) = (op, result) {
                self.note_verdicts(tasks.iter().copied().zip(verdicts.iter().copied()));
            }
            if let (Op::Bulk(slice), Some(OpResult::Bulk(sliced))) = (op, result)
                && !slice.dry_run
            {
                self.note_verdicts(sliced.verdicts.iter().copied());
            }
        }
        for op in ops {
            if let Op::SetKind { kind, values, .. } = op
                && self.pace.keeping.set(kind, values)
            {
                self.chores.prune_at = self.clock.now().mono;
            }
        }
        let mut events = Vec::new();
        let committed: Vec<(OpId, OpResult)> =
            ids.iter().zip(results).filter_map(|(id, result)| Some(((*id)?, result?))).collect();
        if !committed.is_empty() {
            events.push(Event::Committed(committed));
        }
        found.ended.iter().for_each(tell_ended);
        tell_fired(&found.fired);
        let ended: Vec<Final> = found.ended.into_iter().map(|ended| ended.end).collect();
        for task in ended.iter().map(|ended| &ended.task).chain(found.watched.iter().map(|(task, _)| task)) {
            self.out.remove(task);
        }
        if !ended.is_empty() {
            events.push(Event::EndedByStore(ended));
        }
        if !found.watched.is_empty() {
            events.push(Event::Overtaken(found.watched));
        }
        if !found.cancel_requested.is_empty() {
            events.push(Event::CancelRequested(found.cancel_requested));
        }
        (self.work(found.loaded, found.appeared), events)
    }

    /// What was read ahead is that no more: queued again, or in another lane, it is to be read again.
    fn note_verdicts(&mut self, verdicts: impl Iterator<Item = (TaskId, Verdict)>) {
        for (task, verdict) in verdicts {
            match verdict {
                Verdict::Cancelled | Verdict::Purged => drop(self.out.remove(&task)),
                // Its queue was told of it while it was passed over.
                Verdict::Moved if self.out.remove(&task) => self.agenda.mark_all(),
                _ => {}
            }
        }
    }

    fn send(&mut self, told: Told, at_leisure: bool) -> Result<(), StoreError> {
        // The router may wait for the room that was made in the inbox.
        if self.was_full {
            self.outlet.ring();
        }
        self.outlet.tell(told, at_leisure)
    }

    fn tell_failure(&mut self, error: &StoreError, now: Now) {
        let (since, told) = *self.failing.get_or_insert((now, false));
        let lasting = !matches!(error, StoreError::Locked) || now.mono.since(since.mono) >= FAILURE_GRACE_MS;
        if !told && lasting {
            tracing::error!(target: "laneway::store", %error, "new work is refused, nothing is handed out; what runs goes on");
            self.failing = Some((since, true));
            // A sync that has failed ends the next turn.
            let events = vec![Event::StoreFailed(error.to_string())];
            self.send(Told { events, ..Told::default() }, true).ok();
        }
    }

    fn tell_recovered(&mut self) {
        if let Some((_, true)) = self.failing.take() {
            tracing::info!(target: "laneway::store", "the database takes writes again");
            self.send(Told { events: vec![Event::StoreRecovered], ..Told::default() }, true).ok();
        }
    }
}

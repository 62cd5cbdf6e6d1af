//! The scheduler thread: owns the one writing connection, polls the table for change and feeds the router.
//!
//! It works in turns, one transaction each: operations of the router in, what the table brought out. A turn is bounded in
//! rows. After it the heads of the queues are read ahead, outside of the transaction: apps may write meanwhile. Only the few
//! rows of queues that had run dry come within a small turn: on an idle system each look would cost more than they do. What
//! turns have promised is synced by another thread (`outlet.rs`), once for all that is written by then, while the next ones
//! are written: that is the group commit. A storage error undoes the turn and keeps its operations; they are said
//! again until they are written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, never, select};
use laneway_core::{Event, FairRules, IdMap, Millis, Now, Op, OpId, QueueKey, UnixMillis};
use laneway_protocol::{LaneName, TaskId};

use crate::clock::Clock;
use crate::doorbell::Doorbell;
use crate::store::{Keeping, Limits, Store, StoreError};
use crate::telemetry::TaskLog;

mod agenda;
mod ahead;
mod docket;
mod lines;
mod outlet;
mod promise;
mod questions;
mod spared;
#[cfg(feature = "internals")]
mod step;
mod turn;

use agenda::Agenda;
use docket::Docket;
use lines::Names;
use outlet::{Outlet, Told};
use spared::Spared;

/// Between two looks at schedules though nothing has told of a change: the clock may have been wrong.
const SCHEDULES_LOOK_MS: u64 = 60_000;
/// How long writes may fail before new work is refused.
const FAILURE_GRACE_MS: u64 = 500;
const RETRY_MS: u64 = 20;
/// Operations that the scheduler is told of at once, before more of them gather.
const GATHERED_MAX: usize = 1_024;
/// How long the scheduler looks by itself after a wake-up, at first faster: a commit can be seen once it is synced, which takes
/// a few hundred microseconds on a good disk.
const BURST_MS: u64 = 50;
const FAST_BURST_MS: u64 = 5;
const FAST_SHARE: u32 = 4;
const FASTEST_BURST_MS: u64 = 2;
const FASTEST_SHARE: u32 = 10;
/// How late the kernel may wake this thread, in nanoseconds. As it is by default, 50 us, it would be half of the time between two
/// of the fastest looks.
const TIMER_SLACK_NS: u64 = 1_000;
/// A wake-up so soon after an own commit may be its echo, and mostly is one in the first of these.
const OWN_ECHO: Duration = Duration::from_millis(10);
const OWN_ECHO_MOSTLY: Duration = Duration::from_millis(1);
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

    /// Empty ones with room for as many operations, of which the next are likely to have about as many.
    pub(crate) fn room(&self) -> Self {
        Self { ops: Vec::with_capacity(self.ops.len()), ..Self::default() }
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
    /// Read ahead or handed out, and still `queued` in the table; with `n_changes` as it was then.
    out: IdMap<TaskId, u64>,
    /// How often apps have been seen to commit.
    n_changes: u64,
    watched: BTreeSet<TaskId>,
    /// Where the last look at watched tasks ended.
    watched_from: Option<TaskId>,
    spared: Spared,
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
            out: IdMap::default(),
            n_changes: 0,
            watched: BTreeSet::new(),
            watched_from: None,
            spared: Spared::default(),
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
        // Where it cannot be set, looks come a little later.
        nix::sys::prctl::set_timerslack(TIMER_SLACK_NS).ok();
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
                    self.answer_questions(now)?;
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
        // An app may have moved the row of one to another queue, which was read while the row was to be skipped.
        let n_changes = self.n_changes;
        if orders.unload.iter().filter_map(|task| self.out.remove(task)).filter(|seen| *seen < n_changes).count() > 0 {
            self.agenda.mark_all();
        }
        for (key, rows, fair) in orders.demands {
            self.agenda.demand(key, rows, fair);
        }
        for (task, on) in orders.watch {
            if on {
                self.watched.insert(task);
                self.spared.watch(task);
            } else {
                self.watched.remove(&task);
                self.spared.leave(task, self.clock.now().mono);
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
        let is_own = |echo| self.breath.is_some_and(|(since, _)| since.elapsed() < echo);
        match self.clock.now().mono.since(at) {
            ..FASTEST_BURST_MS if !is_own(OWN_ECHO_MOSTLY) => self.pace.poll / FASTEST_SHARE,
            ..FAST_BURST_MS if !is_own(OWN_ECHO) => self.pace.poll / FAST_SHARE,
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
        self.n_changes += 1;
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

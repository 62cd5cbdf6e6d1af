//! What the scheduler tells the router: the events of each turn, in the order of the turns. Those of a turn that promises
//! something wait until it is synced, and all behind them with them; the scheduler goes on writing meanwhile. Work that a turn
//! has found does not wait where it cannot matter: a kill of the broker takes back nothing that is written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use laneway_core::Event;

use crate::doorbell::Doorbell;
use crate::store::StoreError;
use crate::store::log_sync::LogSync;

/// Turns that may be written ahead of a sync. Then the scheduler waits.
const TURNS_AHEAD_MAX: usize = 64;

pub(super) struct Outlet {
    router: Router,
    /// `None` where every commit is as durable as it is to be.
    sync: Option<SyncThread>,
}

/// What a turn has to tell, once it is written.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Work that may be handed out.
    pub(super) work: Vec<Event>,
    pub(super) events: Vec<Event>,
    /// The turn is to be synced before its `events` are told.
    pub(super) promises: bool,
    /// No operation of the turn brings a task back that the router knows, so its `work` may be told before its `events`.
    pub(super) only_new: bool,
}

/// A turn that waits for a sync.
#[derive(Debug)]
struct Written {
    events: Vec<Event>,
    promises: bool,
    /// No later work may overtake it: it has work itself, or brings a task back that later work may have.
    goes_first: bool,
    at: Instant,
}

#[derive(Clone)]
struct Router {
    outbox: Sender<Vec<Event>>,
    bell: Doorbell,
}

struct SyncThread {
    log: LogSync,
    inbox: Sender<Written>,
    waiting: Arc<Waiting>,
    failed: Receiver<StoreError>,
    thread: JoinHandle<()>,
}

/// Turns that were given to the thread and not told yet, and how many of them go before any later work.
#[derive(Debug, Default)]
struct Waiting {
    turns: AtomicUsize,
    going_first: AtomicUsize,
}

impl Outlet {
    pub(super) fn new(outbox: Sender<Vec<Event>>, bell: Doorbell) -> Self {
        Self { router: Router { outbox, bell }, sync: None }
    }

    /// Syncs `log` on a thread of its own from here on.
    pub(super) fn sync_apart(&mut self, log: LogSync) -> Result<(), StoreError> {
        let (inbox, written) = bounded(TURNS_AHEAD_MAX);
        let (to_scheduler, failed) = bounded(1);
        let waiting = Arc::new(Waiting::default());
        let (router, its_log, its_waiting) = (self.router.clone(), log.clone(), Arc::clone(&waiting));
        let thread = std::thread::Builder::new()
            .name("sync".into())
            .spawn(move || {
                if let Err(error) = run(&written, &router, &its_log, &its_waiting) {
                    to_scheduler.send(error).ok();
                }
            })
            .map_err(|error| StoreError::Unavailable(format!("cannot start the sync thread: {error}")))?;
        self.sync = Some(SyncThread { log, inbox, waiting, failed, thread });
        Ok(())
    }

    pub(super) fn syncs_apart(&self) -> bool {
        self.sync.is_some()
    }

    /// Tells what a turn that was committed has to tell. `at_leisure`: nothing else is to be done meanwhile, so the sync costs
    /// no hop to another thread.
    pub(super) fn tell(&mut self, told: Told, at_leisure: bool) -> Result<(), StoreError> {
        let Told { work, mut events, promises, only_new } = told;
        let Some(sync) = &self.sync else {
            let (first, then) = if only_new { (work, events) } else { (events, work) };
            self.router.tell(first.into_iter().chain(then).collect());
            return Ok(());
        };
        self.check()?;
        let mut goes_first = !(only_new && work.is_empty());
        if only_new && sync.waiting.going_first.load(Ordering::Acquire) == 0 {
            if self.router.tell(work) && at_leisure {
                // Woken on this very processor it would wait for all that comes before the sync's own wait.
                std::thread::yield_now();
            }
            goes_first = false;
        } else {
            events.extend(work);
        }
        if sync.waiting.turns.load(Ordering::Acquire) == 0 && (at_leisure || !promises) {
            if promises {
                let at = Instant::now();
                sync.log.sync()?;
                sync.log.took(at.elapsed());
            }
            self.router.tell(events);
            return Ok(());
        }
        if events.is_empty() {
            return Ok(());
        }
        sync.waiting.turns.fetch_add(1, Ordering::AcqRel);
        sync.waiting.going_first.fetch_add(usize::from(goes_first), Ordering::AcqRel);
        // When the thread is gone, the reason is there.
        match sync.inbox.send(Written { events, promises, goes_first, at: Instant::now() }) {
            Ok(()) => Ok(()),
            Err(_) => self.check(),
        }
    }

    /// Wakes the router though there is nothing to read.
    pub(super) fn ring(&self) {
        self.router.bell.ring();
    }

    /// Fails once a sync has failed: nothing that was told hangs on it, and nothing more can be promised.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self.sync.as_ref().map(|sync| sync.failed.try_recv()) {
            Some(Ok(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns once everything is told.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        let Some(SyncThread { inbox, failed, thread, .. }) = self.sync.take() else { return Ok(()) };
        drop(inbox);
        if thread.join().is_err() {
            return Err(StoreError::Broken("the sync thread panicked".into()));
        }
        failed.try_recv().map_or(Ok(()), Err)
    }
}

impl Router {
    /// Whether there was anything to tell.
    fn tell(&self, events: Vec<Event>) -> bool {
        if events.is_empty() {
            return false;
        }
        // It always drains this channel, so the wait is short; when it is gone nobody is left to tell.
        self.outbox.send(events).ok();
        self.bell.ring();
        true
    }
}

fn run(inbox: &Receiver<Written>, router: &Router, log: &LogSync, waiting: &Waiting) -> Result<(), StoreError> {
    while let Ok(first) = inbox.recv() {
        // All that is written by now is in this sync.
        let turns: Vec<Written> = std::iter::once(first).chain(inbox.try_iter()).collect();
        if turns.iter().any(|turn| turn.promises) {
            log.sync()?;
        }
        for turn in turns {
            if turn.promises {
                log.took(turn.at.elapsed());
            }
            router.tell(turn.events);
            waiting.going_first.fetch_sub(usize::from(turn.goes_first), Ordering::AcqRel);
            waiting.turns.fetch_sub(1, Ordering::AcqRel);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;
    use laneway_core::OpId;

    use super::*;
    use crate::doorbell::doorbell;

    fn outlet(log: Option<LogSync>) -> (Outlet, Receiver<Vec<Event>>) {
        let (outbox, told) = unbounded();
        let mut outlet = Outlet::new(outbox, doorbell().unwrap().0);
        if let Some(log) = log {
            outlet.sync_apart(log).unwrap();
        }
        (outlet, told)
    }

    /// A turn of its own number, with work and a commit to tell.
    fn turn(n: u64, promises: bool, only_new: bool) -> Told {
        Told {
            work: vec![Event::Loaded(Vec::new())],
            events: vec![Event::Committed(vec![(OpId(n), laneway_core::OpResult::Set)])],
            promises,
            only_new,
        }
    }

    /// What was told, in order: the number of a commit, or `None` for work.
    fn order(told: &Receiver<Vec<Event>>) -> Vec<Option<u64>> {
        let number = |event: Event| match event {
            Event::Committed(results) => Some(results[0].0.0),
            _ => None,
        };
        told.try_iter().flatten().map(number).collect()
    }

    #[test]
    fn each_turn_is_told_once_and_in_order() {
        // Whether the thread syncs or the scheduler itself; work of a turn that brings nothing back comes before the rest.
        let dir = tempfile::tempdir().unwrap();
        for log in [None, Some(LogSync::new(dir.path().join("none")))] {
            let (mut outlet, told) = outlet(log);
            for n in 0..200 {
                outlet.tell(turn(n, n % 3 > 0, false), n % 7 == 0).unwrap();
            }
            outlet.finish().unwrap();
            let expected: Vec<Option<u64>> = (0..200).flat_map(|n| [Some(n), None]).collect();
            assert_eq!(order(&told), expected);
        }
        let (mut outlet, told) = outlet(None);
        outlet.tell(turn(7, true, true), false).unwrap();
        assert_eq!(order(&told), [None, Some(7)]);
    }

    #[test]
    fn new_work_waits_for_no_sync_and_overtakes_no_other_work() {
        // A sync that never ends shows what does not wait for it. A turn that brings a task back may have no work: what it brings
        // back comes with a later one.
        for second in [turn(2, true, false), Told { work: Vec::new(), ..turn(2, true, false) }] {
            let dir = tempfile::tempdir().unwrap();
            let pipe = dir.path().join("log");
            nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
            let (mut outlet, told) = outlet(Some(LogSync::new(pipe.clone())));
            outlet.tell(turn(1, true, true), false).unwrap();
            assert_eq!(order(&told), [None], "its commit waits");
            outlet.tell(second, false).unwrap();
            outlet.tell(turn(3, false, true), false).unwrap();
            assert_eq!(order(&told), [], "the second turn comes first, and that waits");
            // Opened by a writer the sync fails, for there is nothing to sync in a pipe.
            drop(std::fs::OpenOptions::new().write(true).open(pipe).unwrap());
            assert!(matches!(outlet.finish(), Err(StoreError::Unsynced(_))));
            assert_eq!(order(&told), [], "what was not synced is never told");
        }
    }

    #[test]
    fn a_failed_sync_is_told_to_the_scheduler() {
        // By the thread or by itself; nothing is told that hangs on it, and nothing is promised from then on.
        for at_leisure in [true, false] {
            let (mut outlet, told) = outlet(Some(LogSync::new("/dev/null".into())));
            let deadline = Instant::now() + std::time::Duration::from_secs(10);
            let failed = loop {
                if let Err(error) = outlet.tell(turn(1, true, false), at_leisure) {
                    break error;
                }
                assert!(Instant::now() < deadline, "the failure is not told");
            };
            assert!(matches!(failed, StoreError::Unsynced(_)), "{failed}");
            assert_eq!(order(&told), []);
        }
    }
}

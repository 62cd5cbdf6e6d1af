//! The load: threads that bring tasks in every way there is, each at its pace, and note in the ledger what was
//! acknowledged. They are apps: the library and SQL, nothing of the broker's inside.

mod cancels;
mod sql;
mod system;
mod watch;
mod wire;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use self::system::SystemSqlite;
use super::crew;
use super::job::{Job, Source};
use super::ledger::{Acknowledged, Ledger};
use super::random::Random;
use crate::error::Error;

/// How long an app goes on trying: longer than any series of kills keeps the broker away.
const PATIENCE: Duration = Duration::from_mins(1);
const TICK: Duration = Duration::from_millis(4);
/// Candidates for a cancel that wait for it; what comes on top is left alone.
const CANDIDATES_MAX: usize = 64;
/// Threads that each wait for one result at a time.
const CALLERS: u64 = 4;

/// Shares of the tasks in per cent. Those with unique keys come on top, as most of them meet another.
const SHARES: [(Source, u64); 5] =
    [(Source::Wire, 14), (Source::Batch, 36), (Source::Sql, 26), (Source::SystemSql, 20), (Source::Call, 4)];
const KEYED_SHARES: [(Source, u64); 2] = [(Source::WireKeyed, 4), (Source::SqlKeyed, 4)];

/// What all threads of the load share.
pub(super) struct Desk {
    pub(super) seed: u64,
    pub(super) folder: PathBuf,
    ledger: Mutex<Ledger>,
    candidates: Mutex<VecDeque<i64>>,
    n_stored: AtomicU64,
    /// The threads that bring tasks end.
    enough: AtomicBool,
    /// All threads end.
    over: AtomicBool,
}

/// The running threads.
pub(super) struct Load {
    desk: Arc<Desk>,
    sources: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    /// What is used for the system's SQLite, for people.
    pub(super) system: String,
}

impl Load {
    /// Starts to bring `tasks` tasks, `rate` a second.
    pub(super) fn start(seed: u64, folder: PathBuf, tasks: u64, rate: u64) -> Result<Self, Error> {
        let desk = Arc::new(Desk {
            seed,
            folder,
            ledger: Mutex::default(),
            candidates: Mutex::default(),
            n_stored: AtomicU64::new(0),
            enough: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let system = SystemSqlite::find();
        let mut load =
            Self { desk, sources: Vec::new(), others: Vec::new(), system: system::described(system.as_ref()) };
        for (source, share) in SHARES.into_iter().chain(KEYED_SHARES) {
            let parts = if source == Source::Call { CALLERS } else { 1 };
            for part in 0..parts {
                let pace = Pace::new(seed, source, part, tasks * share / 100 / parts, rate * share / parts);
                load.start_source(pace, system.clone())?;
            }
        }
        let desk = Arc::clone(&load.desk);
        load.others.push(spawn("cancels", move || cancels::run(&desk))?);
        let desk = Arc::clone(&load.desk);
        load.others.push(spawn("watch", move || watch::run(&desk))?);
        Ok(load)
    }

    fn start_source(&mut self, pace: Pace, system: Option<SystemSqlite>) -> Result<(), Error> {
        let desk = Arc::clone(&self.desk);
        let source = pace.source;
        let run = move || match (source, system) {
            (Source::Wire | Source::WireKeyed, _) => wire::run_single(&desk, pace),
            (Source::Batch, _) => wire::run_batch(&desk, pace),
            (Source::Call, _) => wire::run_calls(&desk, pace),
            (Source::SystemSql, Some(system)) => system::run(&desk, pace, &system),
            (Source::Sql | Source::SqlKeyed | Source::SystemSql, _) => sql::run(&desk, pace),
        };
        self.sources.push(spawn("source", run)?);
        Ok(())
    }

    /// Tasks that were stored and acknowledged.
    pub(super) fn n_stored(&self) -> u64 {
        self.desk.n_stored.load(Ordering::Relaxed)
    }

    /// Whether all tasks are there.
    pub(super) fn is_complete(&self) -> bool {
        self.sources.iter().all(JoinHandle::is_finished)
    }

    /// No more tasks are brought, nothing more is cancelled.
    pub(super) fn stop(&self) {
        self.desk.enough.store(true, Ordering::Relaxed);
    }

    /// Ends all threads and gives what was noted. The broker must be there: an app that waits for it goes on waiting.
    pub(super) fn finish(self) -> Ledger {
        self.desk.enough.store(true, Ordering::Relaxed);
        let joined =
            |threads: Vec<JoinHandle<()>>| threads.into_iter().filter_map(|thread| thread.join().err()).count();
        let mut broken = joined(self.sources);
        self.desk.over.store(true, Ordering::Relaxed);
        broken += joined(self.others);
        let mut ledger = std::mem::take(&mut *self.desk.ledger());
        ledger.complaints.extend((broken > 0).then(|| format!("{broken} threads of the load panicked")));
        ledger
    }
}

impl Desk {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Every change of the ledger is a single step.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes tasks whose store was acknowledged; some of them become candidates for a cancel.
    fn acknowledged(&self, stored: impl IntoIterator<Item = (Job, i64)>) {
        let mut n_stored = 0;
        let mut ledger = self.ledger();
        let mut candidates = self.candidates.lock().unwrap_or_else(PoisonError::into_inner);
        for (job, task) in stored {
            ledger.tasks.push(Acknowledged { number: job.number, task });
            n_stored += 1;
            // Those that wait for their time can mostly be caught before they start.
            let odds = if job.delay_ms.is_some() { 3 } else { 100 };
            let wanted = Random::new(self.seed, !job.number).below(odds) == 0;
            if wanted && candidates.len() < CANDIDATES_MAX {
                candidates.push_back(task);
            }
        }
        self.n_stored.fetch_add(n_stored, Ordering::Relaxed);
    }

    /// A store met a live task with the same key.
    fn met(&self, number: u64, task: Option<i64>) {
        self.ledger().met.push((number, task));
    }

    /// A store ended in an error.
    fn failed(&self, what: &str, numbers: impl IntoIterator<Item = u64>, error: &dyn std::fmt::Display) {
        let mut ledger = self.ledger();
        ledger.unsure.extend(numbers);
        ledger.complaints.push(format!("{what} failed: {error}"));
    }

    fn candidate(&self) -> Option<i64> {
        self.candidates.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn is_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn endpoint(&self) -> String {
        crew::endpoint(&self.folder)
    }

    fn db(&self) -> PathBuf {
        crew::db(&self.folder)
    }
}

/// Gives the tasks of one source as they become due. Behind its time, because the broker was away, it catches up.
struct Pace {
    source: Source,
    part: u64,
    left: u64,
    given: u64,
    /// A hundredth of a task a second.
    rate: u64,
    started: Instant,
    random: Random,
}

impl Pace {
    fn new(seed: u64, source: Source, part: u64, tasks: u64, rate: u64) -> Self {
        let random = Random::new(seed, source as u64 * 100 + part);
        Self { source, part, left: tasks, given: 0, rate: rate.max(1), started: Instant::now(), random }
    }

    /// Waits until tasks are due and gives up to `max` of them, at least one; none when that was all.
    fn next(&mut self, desk: &Desk, max: u64) -> Vec<Job> {
        let max = self.random.between(1, max);
        while self.left > 0 && !desk.is_enough() {
            let due = u128::from(self.rate) * self.started.elapsed().as_millis() / 100_000;
            let due = u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(self.given);
            if due > 0 {
                let n = due.min(max).min(self.left);
                let skip = usize::try_from(self.given).unwrap_or(usize::MAX);
                let numbers = self.source.numbers(self.part).skip(skip).take(usize::try_from(n).unwrap_or(0));
                let jobs = numbers.map(|number| Job::new(desk.seed, number)).collect();
                self.given += n;
                self.left -= n;
                return jobs;
            }
            thread::sleep(TICK);
        }
        Vec::new()
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    thread::Builder::new().name(name.into()).spawn(run).map_err(|error| Error::other("start a thread", error))
}

/// Unix milliseconds, so long from now.
fn ms_from_now(ms: u64) -> i64 {
    i64::try_from(super::journal::now_us() / 1_000 + ms).unwrap_or(i64::MAX)
}

//! A normal load: an app that inserts tasks at a steady pace, and real worker processes that run them. Attacks run beside it,
//! and it must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Place, Table, WorkerProcess, wait_until};

/// Tasks that come in at once, and how often: 400 a second.
const BATCH: usize = 20;
const PACE: Duration = Duration::from_millis(50);

pub(crate) struct Load {
    table: Table,
    inserted: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    app: Option<JoinHandle<()>>,
    workers: Vec<WorkerProcess>,
}

impl Load {
    /// Starts two workers and the app, and waits until tasks are done.
    pub(crate) fn start(place: &Place) -> Self {
        let workers = (0..2).map(|_| WorkerProcess::start(place, "slots=4 kinds=echo name=load")).collect();
        let (inserted, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
        let (app_table, count, stopped) = (Table::open(place), inserted.clone(), stop.clone());
        let app = std::thread::spawn(move || {
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                app_table.insert_many(BATCH, "normal", "echo", "1");
                count.fetch_add(i64::try_from(BATCH).unwrap(), Ordering::Relaxed);
                next += PACE;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        let load = Self { table: Table::open(place), inserted, stop, app: Some(app), workers };
        wait_until("the load to run", || load.done() > 100);
        load
    }

    /// Tasks of the load that are done.
    pub(crate) fn done(&self) -> i64 {
        self.table.count("kind = 'echo' AND state = 'done'")
    }

    /// How much was done while `what` ran, as a share of what came in. 1 when the load noticed nothing.
    #[expect(clippy::cast_precision_loss, reason = "a few thousand tasks")]
    pub(crate) fn share_during(&self, what: impl FnOnce()) -> f64 {
        let (inserted, done) = (self.inserted.load(Ordering::Relaxed), self.done());
        what();
        let (inserted, done) = (self.inserted.load(Ordering::Relaxed) - inserted, self.done() - done);
        done as f64 / inserted.max(1) as f64
    }

    /// Waits until all that came in so far is done.
    #[track_caller]
    pub(crate) fn catch_up(&self) {
        let inserted = self.inserted.load(Ordering::Relaxed);
        wait_until(&format!("{inserted} tasks of the load to be done"), || self.done() >= inserted);
    }

    /// Ends the app and waits until every task is done. Gives how many there were.
    #[track_caller]
    pub(crate) fn finish(&mut self) -> i64 {
        self.stop.store(true, Ordering::Relaxed);
        self.app.take().unwrap().join().unwrap();
        let inserted = self.inserted.load(Ordering::Relaxed);
        wait_until(&format!("all {inserted} tasks of the load to be done"), || self.done() == inserted);
        assert!(self.workers.iter_mut().all(WorkerProcess::is_running), "a worker of the load has ended");
        inserted
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(app) = self.app.take() {
            app.join().ok();
        }
    }
}

//! `laneway drill`: kills brokers and workers at random under load, and holds the table against what really happened.
//!
//! The real binary, real sockets, a real database, all in a temporary folder. [`load`] brings tasks as apps do and notes
//! what was acknowledged; [`crew`] runs a broker and workers as processes, and kills, stops and restarts them as [`faults`]
//! has planned from the seed; each worker writes down what it runs ([`journal`]). When everything has ended, [`audit`] holds
//! [`table`] against all of it, and [`report`] tells the verdict. Reaches into no part of the broker. Called by the command
//! line only.

mod args;
mod audit;
mod crew;
mod faults;
mod job;
mod journal;
mod ledger;
mod load;
mod plain;
mod random;
mod report;
mod table;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use laneway::Client;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

pub(crate) use self::args::DrillArgs;
use self::args::Plan;
use self::audit::Evidence;
use self::crew::Crew;
use self::faults::{Done, Planned};
use self::ledger::Ledger;
use self::load::Load;
use self::report::Report;
use self::table::Table;
pub(crate) use self::worker::{DrillWorkerArgs, work};
use crate::cli::output;
use crate::error::Error;

/// For the first broker to answer, on a slow machine too.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Nothing has changed in the table for this long and nothing is being hurt: something hangs, which is a finding.
const STUCK_TIMEOUT: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const COUNT_EVERY: Duration = Duration::from_millis(250);
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Runs a drill and prints its report. Fails when a promise was not kept.
pub(crate) fn run(args: &DrillArgs, as_json: bool) -> Result<(), Error> {
    let plan = args.plan()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .map_err(|error| Error::other("take signals", error))?;
    }
    laneway::seed_libzmq();
    let folder = tempfile::Builder::new().prefix("laneway-drill-").tempdir_in(&plan.dir);
    let folder = folder.map_err(|error| Error::other(format!("make a folder in {}", plan.dir.display()), error))?;
    output::note(&format!("seed {}, files in {}", plan.seed, folder.path().display()));
    let report = Drill::start(folder.path(), plan.clone(), interrupted).and_then(Drill::play);
    let is_well = report.as_ref().is_ok_and(Report::is_well);
    let kept = (args.keep || !is_well).then(|| folder.keep());
    let where_to_look = |error: Error| match &kept {
        Some(kept) => Error::other(format!("finish the drill; its files are in {}", kept.display()), error.chain()),
        None => error,
    };
    let report = report.map_err(where_to_look)?;
    report.print(as_json, kept.as_deref())?;
    report.verdict()
}

/// A running drill.
struct Drill {
    // Dropped first: no child outlives the drill, however it ends.
    crew: Crew,
    load: Load,
    table: Table,
    plan: Plan,
    faults: std::iter::Peekable<std::vec::IntoIter<Planned>>,
    started: Instant,
    progress: Progress,
    interrupted: Arc<AtomicBool>,
}

/// What was last seen to move.
struct Progress {
    stored: u64,
    open: u64,
    counted: Instant,
    changed: Instant,
    told: Instant,
}

impl Drill {
    /// Starts broker and workers, waits for the broker, and lets the load begin.
    fn start(folder: &Path, plan: Plan, interrupted: Arc<AtomicBool>) -> Result<Self, Error> {
        let mut crew = Crew::start(folder)?;
        let endpoint = crew::endpoint(folder);
        let until = Instant::now() + START_TIMEOUT;
        // Each try is short, so that a broker that ended at once is noticed at once.
        while let Err(error) = Client::connect_with(&endpoint, Duration::from_millis(200)) {
            crew.look()?;
            if let Some(complaint) = crew.first_complaint() {
                return Err(complaint);
            }
            if Instant::now() > until || interrupted.load(Ordering::Relaxed) {
                return Err(error.into());
            }
        }
        let table = Table::open(&crew::db(folder))?;
        let load = Load::start(plan.seed, folder.into(), plan.tasks, plan.rate)?;
        let faults = faults::plan(plan.seed, plan.wanted, plan.span_ms(), crew::PLACES).into_iter().peekable();
        let now = Instant::now();
        let progress = Progress { stored: 0, open: 0, counted: now, changed: now, told: now };
        Ok(Self { crew, load, table, plan, faults, started: now, progress, interrupted })
    }

    /// Hurts while there is something to hurt, waits until every task has ended, and audits.
    fn play(mut self) -> Result<Report, Error> {
        let span = Duration::from_millis(self.plan.span_ms());
        while self.started.elapsed() < span || !self.load.is_complete() {
            self.hurt_what_is_due()?;
            if self.is_stuck(span)? {
                break;
            }
        }
        self.crew.let_all_go_on()?;
        self.load.stop();
        while !self.is_stuck(span)? {
            if self.load.is_complete() && self.progress.open == 0 && self.table.n_open()? == 0 {
                break;
            }
        }
        let system = self.load.system.clone();
        let Self { crew, load, table, plan, started, .. } = self;
        let ledger = load.finish();
        let lasted = started.elapsed();
        let folder = crew.folder().to_owned();
        let (done, complaints) = crew.finish()?;
        output::note("everything has ended; auditing");
        judge(&folder, &table, &plan, (done, ledger, complaints), lasted, system)
    }

    fn hurt_what_is_due(&mut self) -> Result<(), Error> {
        let elapsed_ms = self.started.elapsed().as_millis();
        while let Some(planned) = self.faults.next_if(|planned| u128::from(planned.at_ms) <= elapsed_ms) {
            self.crew.hurt(planned.what)?;
        }
        Ok(())
    }

    /// One turn of waiting. True when nothing moves any more although nothing is being hurt.
    fn is_stuck(&mut self, span: Duration) -> Result<bool, Error> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Error::other("go on", "interrupted by a signal"));
        }
        self.crew.look()?;
        thread::sleep(LOOK_EVERY);
        let now = Instant::now();
        if now.duration_since(self.progress.counted) >= COUNT_EVERY {
            self.progress.counted = now;
            let (open, stored) = (self.table.n_open()?, self.load.n_stored());
            if (open, stored) != (self.progress.open, self.progress.stored) || self.started.elapsed() < span {
                self.progress.changed = now;
            }
            (self.progress.open, self.progress.stored) = (open, stored);
        }
        if now.duration_since(self.progress.told) >= TELL_EVERY {
            self.progress.told = now;
            self.tell();
        }
        Ok(now.duration_since(self.progress.changed) > STUCK_TIMEOUT)
    }

    fn tell(&self) {
        let (seconds, done) = (self.started.elapsed().as_secs(), self.crew.done());
        let (brokers, workers) = (done.broker_kills_us.len(), done.worker_kills());
        let Progress { stored, open, .. } = self.progress;
        output::note(&format!(
            "{seconds:4} s  {stored} tasks in, {open} of them open; killed {brokers} brokers, {workers} workers"
        ));
    }
}

/// Reads all evidence and holds it against each other.
fn judge(
    folder: &Path,
    table: &Table,
    plan: &Plan,
    (done, mut ledger, complaints): (Done, Ledger, Vec<String>),
    lasted: Duration,
    system: String,
) -> Result<Report, Error> {
    ledger.complaints.extend(complaints);
    let mut executions = Vec::new();
    for worker in 0..done.workers.len() {
        let path = crew::journal(folder, worker);
        let read = journal::read(&path, worker);
        executions.extend(read.map_err(|error| Error::other(format!("read {}", path.display()), error))?);
    }
    let damage = table.damage()?;
    let evidence = Evidence::new(plan.seed, table.tasks()?, table.failures()?, executions, done);
    let mut findings = audit::audit(&evidence, &ledger);
    for text in damage {
        findings.violation("the database is damaged", None, text);
    }
    Ok(Report::new(plan.seed, lasted, system, &evidence, &ledger, findings))
}

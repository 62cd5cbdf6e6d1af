//! `laneway bench`: what this machine reaches, measured in one run with the real parts.
//!
//! Each part starts the real broker as a process of its own on a new database, and workers as processes of their own
//! (`laneway bench-worker`, the library with handlers that do nothing). The limits of the machine are measured in between,
//! because only ratios within one run mean something. Whatever ran is counted in the table afterwards: a figure from a run
//! that lost a task is no figure, and the exit code says so. Called by the command line only.

mod beside;
mod crowd;
mod dashboards;
mod drain;
mod figure;
mod footprint;
mod large;
mod limits;
mod scale;
mod sights;
mod stage;
mod submit;
mod waits;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use clap::{Args, ValueEnum};

use self::figure::Report;
use self::scale::Scale;
pub(crate) use self::worker::{BenchWorkerArgs, run as run_worker};
use crate::cli::output;
use crate::error::Error;

/// Measure what this machine reaches
///
/// Starts brokers and workers of its own on temporary databases and prints one line for each figure, with its ratio to what
/// the machine can do at most (measured in the same run: machines differ, ratios hardly). Takes some minutes; nothing else
/// should run meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway bench --quick
  laneway bench --only limits,drain --runs 3 --dir /srv/app -o json")]
pub(crate) struct BenchArgs {
    /// Everything scaled down, to see that it works: the figures mean little
    #[arg(long)]
    quick: bool,

    /// Only these parts; without limits there are no ratios
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,...")]
    only: Vec<Part>,

    /// Run everything so often, and take the median of each figure
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,

    /// Where to make the databases, on a disk that syncs [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What sockets, SQLite and the disk can do at most
    Limits,
    /// Completing queued tasks that do nothing
    Drain,
    /// Storing tasks, by wire and by SQL
    Submit,
    /// Completing queued tasks while apps commit rows by SQL
    Beside,
    /// Payloads and results of a megabyte
    Large,
    /// Thousands of workers that connect at once
    Crowd,
    /// From insert or submit to start on an idle system
    Latency,
    /// Short and long tasks mixed, over the ideal
    Makespan,
    /// How long urgent tasks wait while bulk work keeps every worker busy
    Urgent,
    /// The broker's memory with many queued tasks
    Memory,
    /// The processor time of idle processes
    Idle,
    /// Draining with fifty open dashboards and without, beside many finished tasks
    Dashboards,
}

/// What every part needs.
struct Bench {
    /// This program, to be started as broker and as worker.
    program: PathBuf,
    dir: PathBuf,
    scale: Scale,
    /// Set by SIGINT and SIGTERM: the children are ended and the files removed before this process ends.
    interrupted: Arc<AtomicBool>,
}

/// Measures and prints. Fails when a task was lost or ran twice, and when a broker or worker did not do its part in time.
pub(crate) fn run(args: &BenchArgs, as_json: bool) -> Result<(), Error> {
    let bench = Bench::new(args)?;
    let mut report = Report::default();
    let started = Instant::now();
    let parts: Vec<Part> = Part::value_variants().iter().copied().filter(|part| args.wants(*part)).collect();
    for run in 1..=args.runs {
        for part in &parts {
            let name = part.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            output::note(&format!("{:4} s  run {run} of {}: {name}", started.elapsed().as_secs(), args.runs));
            bench.run(*part, &mut report)?;
        }
    }
    report.print(as_json)?;
    report.verdict()
}

impl BenchArgs {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

impl Bench {
    fn new(args: &BenchArgs) -> Result<Self, Error> {
        let program = std::env::current_exe().map_err(|error| Error::other("find this program", error))?;
        let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
        if !dir.exists() {
            return Err(Error::NotFound(format!("there is no folder {}", dir.display())));
        }
        if !dir.is_dir() {
            return Err(Error::Usage(format!("--dir {} is not a folder", dir.display())));
        }
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .map_err(|error| Error::other("take signals", error))?;
        }
        laneway::seed_libzmq();
        let scale = if args.quick { Scale::QUICK } else { Scale::FULL };
        Ok(Self { program, dir, scale, interrupted })
    }

    fn run(&self, part: Part, report: &mut Report) -> Result<(), Error> {
        match part {
            Part::Limits => limits::measure(self, report),
            Part::Drain => drain::measure(self, report),
            Part::Submit => submit::measure(self, report),
            Part::Beside => beside::measure(self, report),
            Part::Large => large::measure(self, report),
            Part::Crowd => crowd::measure(self, report),
            Part::Latency => waits::latency(self, report),
            Part::Makespan => drain::makespan(self, report),
            Part::Urgent => waits::urgent(self, report),
            Part::Memory => footprint::memory(self, report),
            Part::Idle => footprint::idle(self, report),
            Part::Dashboards => dashboards::measure(self, report),
        }
    }

    fn check_interrupted(&self) -> Result<(), Error> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Error::other("go on", "interrupted by a signal"));
        }
        Ok(())
    }
}

/// What a thread has to tell, once it has ended.
fn join<T, E>(thread: ScopedJoinHandle<'_, Result<T, E>>) -> Result<T, Error>
where
    Error: From<E>,
{
    Ok(thread.join().map_err(|_| Error::other("go on", "a thread panicked"))??)
}

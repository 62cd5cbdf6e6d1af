//! What a drill can be asked for, and what follows from it: numbers that are not given follow from those that are.

use std::path::PathBuf;

use clap::Args;

use super::faults::Wanted;
use crate::error::Error;

const SECONDS: u64 = 60;
const RATE: u64 = 300;
/// Enough for hours; numbers of tasks are kept apart by it.
const TASKS_MAX: u64 = 100_000_000;

/// Kill brokers and workers under load and audit the table
///
/// Starts a broker and six workers of its own on a temporary database, brings tasks in every way there is (submits, batches,
/// SQL inserts, also by the system's SQLite, unique keys, cancels, calls), and meanwhile kills (kill -9) and stops (SIGSTOP)
/// broker and workers at random moments. At the end it holds the table against what was acknowledged and what really ran.
///
/// Exit code 0 says that every promise was kept, 1 that one was not; the files are kept then.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway drill
  laneway drill --seconds 600 --tasks 200000 --broker-kills 200 --worker-kills 500
  laneway drill --seed 42 -o json")]
pub(crate) struct DrillArgs {
    /// How long broker and workers are hurt
    #[arg(long, value_name = "S", default_value_t = SECONDS, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Tasks to bring [default: the rate times the seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(100..=TASKS_MAX))]
    tasks: Option<u64>,

    /// Tasks to bring a second [default: all of them within the time, or 300]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: Option<u64>,

    /// How often to kill the broker [default: every 3 seconds]
    #[arg(long, value_name = "N")]
    broker_kills: Option<u32>,

    /// How often to kill a worker [default: every 1.2 seconds]
    #[arg(long, value_name = "N")]
    worker_kills: Option<u32>,

    /// How often to hold the broker still for up to 2 seconds [default: every 20 seconds]
    #[arg(long, value_name = "N")]
    broker_stops: Option<u32>,

    /// How often to hold a worker still, every other time for longer than it may be silent [default: every 10 seconds]
    #[arg(long, value_name = "N")]
    worker_stops: Option<u32>,

    /// Repeats the tasks and the moments of an earlier drill [default: drawn anew]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Where to make the database [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Keep database, journals and logs also when all is well
    #[arg(long)]
    pub(super) keep: bool,
}

/// A drill with all its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) seconds: u64,
    pub(super) tasks: u64,
    /// Tasks a second.
    pub(super) rate: u64,
    pub(super) wanted: Wanted,
    pub(super) dir: PathBuf,
}

impl DrillArgs {
    pub(super) fn plan(&self) -> Result<Plan, Error> {
        let seconds = self.seconds;
        let tasks = self.tasks.unwrap_or_else(|| (self.rate.unwrap_or(RATE) * seconds).clamp(100, TASKS_MAX));
        let rate = self.rate.unwrap_or_else(|| tasks.div_ceil(seconds));
        let every = |tenths: u64| u32::try_from(seconds * 10 / tenths).unwrap_or(u32::MAX);
        let wanted = Wanted {
            broker_kills: self.broker_kills.unwrap_or_else(|| every(30)),
            worker_kills: self.worker_kills.unwrap_or_else(|| every(12)),
            broker_stops: self.broker_stops.unwrap_or_else(|| every(200)),
            worker_stops: self.worker_stops.unwrap_or_else(|| every(100)),
        };
        let dir = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        if !dir.exists() {
            return Err(Error::NotFound(format!("there is no folder {}", dir.display())));
        }
        if !dir.is_dir() {
            return Err(Error::Usage(format!("--dir {} is not a folder", dir.display())));
        }
        let seed = self.seed.map_or_else(new_seed, Ok)?;
        Ok(Plan { seed, seconds, tasks, rate, wanted, dir })
    }
}

impl Plan {
    /// How long broker and workers are hurt.
    pub(super) fn span_ms(&self) -> u64 {
        self.seconds * 1_000
    }
}

/// Short enough to be typed again.
fn new_seed() -> Result<u64, Error> {
    getrandom::u32().map(u64::from).map_err(|error| Error::other("draw a seed", error))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DrillArgs,
    }

    #[test]
    fn numbers_that_are_missing_follow_from_the_others() {
        // Proves that time, tasks and rate agree whichever of them are given.
        let plan = |words: &str| {
            let plan = Line::parse_from(words.split(' ')).args.plan().unwrap();
            (plan.seconds, plan.tasks, plan.rate, plan.wanted.broker_kills, plan.wanted.worker_kills)
        };
        assert_eq!(plan("drill --seed 1"), (60, 18_000, 300, 20, 50));
        assert_eq!(plan("drill --seconds 600 --tasks 200000"), (600, 200_000, 334, 200, 500));
        assert_eq!(plan("drill --seconds 10 --rate 50 --broker-kills 0"), (10, 500, 50, 0, 8));
        assert_eq!(plan("drill --seconds 10 --rate 50 --tasks 100"), (10, 100, 50, 3, 8));
    }
}

//! What the drill does to its processes: drawn in advance from the seed, and noted with its times as it happens, so that the
//! audit can say what an execution that came twice, a loss or a release was owed to.

use super::random::Random;

/// Stopped for less than this a worker must not be taken for dead, for longer it is.
pub(super) const HEARTBEAT_TIMEOUT_MS: u64 = 2_500;
pub(super) const HEARTBEAT_INTERVAL_MS: u64 = 1_000;

/// The stream of the seed that faults are drawn from.
const STREAM: u64 = 101;

/// Something that is to happen at `at_ms` after the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) at_ms: u64,
    pub(super) what: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    KillBroker,
    StopBroker { ms: u64 },
    KillWorker { place: usize },
    StopWorker { place: usize, ms: u64 },
}

/// How many faults there are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) broker_kills: u32,
    pub(super) worker_kills: u32,
    pub(super) broker_stops: u32,
    pub(super) worker_stops: u32,
}

/// Faults at random moments within `span_ms`, in order of time.
pub(super) fn plan(seed: u64, wanted: Wanted, span_ms: u64, workers: usize) -> Vec<Planned> {
    let mut random = Random::new(seed, STREAM);
    let place = |random: &mut Random| usize::try_from(random.below(workers as u64)).unwrap_or(0);
    let mut faults = Vec::new();
    let mut add = |random: &mut Random, what| faults.push(Planned { at_ms: random.below(span_ms), what });
    for _ in 0..wanted.broker_kills {
        add(&mut random, Fault::KillBroker);
    }
    for _ in 0..wanted.worker_kills {
        let place = place(&mut random);
        add(&mut random, Fault::KillWorker { place });
    }
    for _ in 0..wanted.broker_stops {
        let ms = random.between(200, 2_000);
        add(&mut random, Fault::StopBroker { ms });
    }
    for n in 0..wanted.worker_stops {
        // Every other one outlasts the timeout, the others stay well within.
        let ms = if n % 2 == 0 {
            random.between(HEARTBEAT_TIMEOUT_MS * 3 / 2, HEARTBEAT_TIMEOUT_MS * 2)
        } else {
            random.between(100, HEARTBEAT_TIMEOUT_MS / 3)
        };
        let place = place(&mut random);
        add(&mut random, Fault::StopWorker { place, ms });
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

/// From when to when a process was held still, in Unix microseconds; `to` is `u64::MAX` while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) from_us: u64,
    pub(super) to_us: u64,
}

/// One worker process, as the audit knows it.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkerLife {
    pub(super) name: String,
    pub(super) plain: bool,
    pub(super) committed: bool,
    /// Unix microseconds, just before the signal.
    pub(super) killed_us: Option<u64>,
    pub(super) stops: Vec<Stop>,
}

/// Everything that was done. A worker's number is its place in `workers`.
#[derive(Debug, Clone, Default)]
pub(super) struct Done {
    pub(super) workers: Vec<WorkerLife>,
    /// Unix microseconds, just before the signal.
    pub(super) broker_kills_us: Vec<u64>,
    pub(super) broker_stops: Vec<Stop>,
}

impl Done {
    pub(super) fn worker_kills(&self) -> usize {
        self.workers.iter().filter(|worker| worker.killed_us.is_some()).count()
    }

    pub(super) fn worker_stops(&self) -> usize {
        self.workers.iter().map(|worker| worker.stops.len()).sum()
    }

    /// Whether the broker was killed within these moments.
    pub(super) fn broker_killed_between(&self, from_us: u64, to_us: u64) -> bool {
        self.broker_kills_us.iter().any(|at| (from_us..=to_us).contains(at))
    }

    /// Whether anything at all was killed or held still within these moments.
    pub(super) fn any_between(&self, from_us: u64, to_us: u64) -> bool {
        let overlaps = |stop: &Stop| stop.from_us <= to_us && stop.to_us >= from_us;
        self.broker_killed_between(from_us, to_us)
            || self.broker_stops.iter().any(overlaps)
            || self.workers.iter().any(|worker| {
                worker.killed_us.is_some_and(|at| (from_us..=to_us).contains(&at)) || worker.stops.iter().any(overlaps)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_what_was_wanted_and_is_the_same_for_a_seed() {
        // Proves that a seed repeats the moments, and that none is forgotten or lies outside the span.
        let wanted = Wanted { broker_kills: 5, worker_kills: 9, broker_stops: 2, worker_stops: 4 };
        let faults = plan(1, wanted, 10_000, 3);
        assert_eq!(faults, plan(1, wanted, 10_000, 3));
        assert_ne!(faults, plan(2, wanted, 10_000, 3));
        assert_eq!(faults.iter().filter(|fault| fault.what == Fault::KillBroker).count(), 5);
        assert!(faults.len() == 20 && faults.windows(2).all(|two| two[0].at_ms <= two[1].at_ms));
        assert!(faults.last().is_some_and(|last| last.at_ms < 10_000));
    }
}

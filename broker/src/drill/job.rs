//! What the drill's tasks are and what their handlers do. Seed and number say everything about a task, so the audit works
//! out by itself what must stand in the table; handlers work out their result from the payload they were given.

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::random::Random;

/// Ends at once.
const QUICK: &str = "quick";
/// Takes its time.
const SLOW: &str = "slow";
/// Fails in its first attempts.
const FLAKY: &str = "flaky";
/// Never succeeds.
const DOOMED: &str = "doomed";
/// Does not listen in its first attempt until its time is long up.
const HANG: &str = "hang";
/// Asks for a pause in its first run.
const SNOOZE: &str = "snooze";

pub(super) const KINDS: [&str; 6] = [QUICK, SLOW, FLAKY, DOOMED, HANG, SNOOZE];
/// What workers without the library take too: nothing that needs to hear of a cancel.
pub(super) const PLAIN_KINDS: [&str; 3] = [QUICK, SLOW, FLAKY];

/// A task's number is that of its source times this, and its place there.
pub(super) const PER_SOURCE: u64 = 1_000_000_000;
/// Names that the tasks with a unique key share; few, so that they meet.
const KEYS: u64 = 40;
const HANG_TIMEOUT_MS: u64 = 400;
const RETRY_MS: u64 = 20;
const SLICE: Duration = Duration::from_millis(5);

/// Who brings tasks. The number is part of every task's own and stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    /// One SUBMIT for each task.
    Wire = 1,
    /// Many tasks in one SUBMIT.
    Batch = 2,
    /// INSERT by the SQLite in this program.
    Sql = 3,
    /// INSERT by the SQLite that the system has.
    SystemSql = 4,
    /// SUBMIT with unique keys.
    WireKeyed = 5,
    /// INSERT with unique keys.
    SqlKeyed = 6,
    /// SUBMIT, and waits for the result.
    Call = 7,
}

impl Source {
    pub(super) const ALL: [Self; 7] =
        [Self::Wire, Self::Batch, Self::Sql, Self::SystemSql, Self::WireKeyed, Self::SqlKeyed, Self::Call];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Wire => "submits, one task each",
            Self::Batch => "submits, many tasks each",
            Self::Sql => "SQL inserts",
            Self::SystemSql => "SQL inserts by the system's SQLite",
            Self::WireKeyed => "submits with unique keys",
            Self::SqlKeyed => "SQL inserts with unique keys",
            Self::Call => "calls that wait for the result",
        }
    }

    pub(super) fn is_keyed(self) -> bool {
        matches!(self, Self::WireKeyed | Self::SqlKeyed)
    }

    /// Where a task with this number came from.
    pub(super) fn of(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|source| *source as u64 == number / PER_SOURCE)
    }

    /// The numbers of its tasks, one after the other.
    pub(super) fn numbers(self, part: u64) -> impl Iterator<Item = u64> {
        (1..).map(move |n| self as u64 * PER_SOURCE + part * (PER_SOURCE / 100) + n)
    }
}

/// Everything about a task that is stored with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) kind: &'static str,
    pub(super) lane: Option<&'static str>,
    pub(super) payload: String,
    pub(super) unique_key: Option<String>,
    pub(super) max_attempts: Option<u32>,
    pub(super) timeout_ms: Option<u64>,
    /// Not before this long after it was stored.
    pub(super) delay_ms: Option<u64>,
}

/// The payload; `fill` makes sizes differ.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Work {
    n: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    ms: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    fails: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    fill: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Job {
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut random = Random::new(seed, number);
        let keyed = Source::of(number).is_some_and(Source::is_keyed);
        let mut work = Work { n: number, ..Work::default() };
        let (mut max_attempts, mut timeout_ms) = (None, None);
        let kind = match random.below(1_000) {
            // Tasks with a key stay a moment, so that others with the same key meet them.
            _ if keyed => {
                work.ms = random.between(0, 60);
                SLOW
            }
            0..720 => QUICK,
            720..920 => {
                work.ms = random.between(1, 20);
                SLOW
            }
            // Long enough to outlive a broker.
            920..928 => {
                work.ms = random.between(300, 1_500);
                SLOW
            }
            928..968 => {
                work.fails = random.between(1, 2);
                FLAKY
            }
            968..988 => {
                max_attempts = Some(2);
                work.fails = random.between(1, 2);
                DOOMED
            }
            988..999 => SNOOZE,
            _ => {
                timeout_ms = Some(HANG_TIMEOUT_MS);
                work.ms = HANG_TIMEOUT_MS + random.between(100, 400);
                HANG
            }
        };
        if random.below(50) == 0 {
            work.fill = "x".repeat(usize::try_from(random.between(100, 6_000)).unwrap_or(0));
        }
        Self {
            number,
            kind,
            lane: [None, None, Some("low"), Some("low"), Some("normal"), Some("high")]
                .get(usize::try_from(random.below(6)).unwrap_or(0))
                .copied()
                .flatten(),
            payload: serde_json::to_string(&work).unwrap_or_default(),
            unique_key: keyed.then(|| format!("key-{}", random.below(KEYS))),
            max_attempts,
            timeout_ms,
            delay_ms: (random.below(50) == 0).then(|| random.between(100, 2_000)),
        }
    }

    /// Whether it is to end as `dead`.
    pub(super) fn is_doomed(&self) -> bool {
        self.kind == DOOMED
    }

    /// Whether its first attempt is to time out.
    pub(super) fn hangs(&self) -> bool {
        self.kind == HANG
    }

    /// What its row's `result` must be when it is done.
    pub(super) fn result(&self) -> String {
        result(self.number, self.payload.as_bytes())
    }
}

/// The number in a payload, `None` when it is not of this drill.
pub(super) fn number_in(payload: &str) -> Option<u64> {
    serde_json::from_str::<Work>(payload).ok().map(|work| work.n)
}

/// How a handler ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Done(String),
    Fail { after_ms: u64 },
    Dead,
    Snooze { after_ms: u64 },
    Cancelled,
}

impl End {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Fail { .. } | Self::Dead => "fail",
            Self::Snooze { .. } => "snooze",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Runs a task, the same way in every worker.
pub(super) fn run(kind: &str, payload: &[u8], run: u32, attempt: u32, is_cancelled: impl Fn() -> bool) -> End {
    let Ok(work) = serde_json::from_slice::<Work>(payload) else { return End::Dead };
    match kind {
        FLAKY if u64::from(attempt) <= work.fails => End::Fail { after_ms: RETRY_MS },
        DOOMED if work.fails > 1 => End::Fail { after_ms: RETRY_MS },
        DOOMED => End::Dead,
        SNOOZE if run == 1 => End::Snooze { after_ms: RETRY_MS },
        HANG if attempt == 1 => {
            thread::sleep(Duration::from_millis(work.ms));
            End::Done(result(work.n, payload))
        }
        SLOW if !slept(Duration::from_millis(work.ms), is_cancelled) => End::Cancelled,
        _ => End::Done(result(work.n, payload)),
    }
}

/// False when it was cancelled meanwhile.
fn slept(time: Duration, is_cancelled: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < time {
        if is_cancelled() {
            return false;
        }
        thread::sleep(time.saturating_sub(begun.elapsed()).min(SLICE));
    }
    true
}

/// A checksum of the whole payload (FNV-1a), so that bytes which changed on the way show.
fn result(number: u64, payload: &[u8]) -> String {
    let sum = payload
        .iter()
        .fold(0xCBF2_9CE4_8422_2325, |sum: u64, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3));
    format!(r#"{{"n":{number},"sum":"{sum:016x}"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_computes_what_the_audit_expects() {
        // Proves that both sides agree for every kind, from the seed on one side and the stored payload on the other.
        let mut kinds = std::collections::HashSet::new();
        for number in Source::Wire.numbers(0).take(5_000) {
            let job = Job::new(3, number);
            assert_eq!((number_in(&job.payload), Source::of(number)), (Some(number), Some(Source::Wire)));
            if kinds.insert(job.kind) {
                let ended = run(job.kind, job.payload.as_bytes(), 2, 3, || false);
                assert_eq!(matches!(&ended, End::Done(result) if *result == job.result()), !job.is_doomed(), "{job:?}");
            }
        }
        assert_eq!(kinds.len(), KINDS.len());
    }
}

//! When a schedule fires: a cron expression in a time zone, and which of the slots that have passed still count. Pure: no
//! clock, no table. Called by the stores, which keep the schedules, and by the command line, which shows what comes.

mod rhythm;

use laneway_core::UnixMillis;

pub(crate) use self::rhythm::Rhythm;

/// Slots that `all` may make up for at once, and what it does when nobody says.
pub(crate) const CATCH_UP_MAX: u32 = 1_000;
pub(crate) const CATCH_UP_DEFAULT: u32 = 100;
/// A slot no later than this is on time: what `skip` still fires.
const ON_TIME_MS: i64 = 60_000;
/// A last slot that lies ahead by no more than this was fired before the wall clock went back: nothing fires until it is
/// passed again. One further ahead was fired by a clock that was wrong.
const CLOCK_WENT_BACK_MS: i64 = 24 * 3_600_000;

/// What becomes of slots that passed while nobody fired them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CatchUp {
    /// Nothing, but for one of the last minute.
    Skip,
    /// However many there were, the newest alone.
    One,
    /// The newest of them, at most so many.
    All(u32),
}

impl CatchUp {
    /// `None` when `word` is none of the three.
    pub(crate) fn parse(word: &str, max: Option<u32>) -> Option<Self> {
        match word {
            "skip" => Some(Self::Skip),
            "one" => Some(Self::One),
            "all" => Some(Self::All(max.unwrap_or(CATCH_UP_DEFAULT))),
            _ => None,
        }
    }

    fn slots_max(self) -> usize {
        match self {
            Self::Skip | Self::One => 1,
            Self::All(n) => n as usize,
        }
    }
}

/// Which slots from `next_at` up to now are to be fired, in order.
pub(crate) fn due(rhythm: &Rhythm, catch_up: CatchUp, next_at: UnixMillis, now: UnixMillis) -> Vec<UnixMillis> {
    let mut slots = rhythm.newest(next_at, now, catch_up.slots_max());
    if catch_up == CatchUp::Skip {
        slots.retain(|slot| now.0 - slot.0 <= ON_TIME_MS);
    }
    slots
}

/// The first slot of a schedule that is new, was changed, or was paused until now: what has passed is not made up for.
/// `None` when no time to come matches.
pub(crate) fn first(rhythm: &Rhythm, last: Option<UnixMillis>, now: UnixMillis) -> Option<UnixMillis> {
    let ahead = last.filter(|last| *last > now && !is_absurd(*last, now));
    rhythm.next_after(ahead.unwrap_or(now))
}

/// Whether a slot that was fired lies so far ahead that the clock must have been wrong then.
pub(crate) fn is_absurd(last: UnixMillis, now: UnixMillis) -> bool {
    last.0 > now.0.saturating_add(CLOCK_WENT_BACK_MS)
}

#[cfg(test)]
mod tests {
    use super::rhythm::tests::{at, rhythm};
    use super::*;

    #[test]
    fn what_has_passed_counts_as_the_policy_says() {
        // Every minute, looked at after an hour of silence: nothing is made up for, one is, or the newest of all are.
        let every_minute = rhythm("* * * * *", "UTC");
        let (from, now) = (at("2027-01-01T10:00:00Z"), at("2027-01-01T10:59:30Z"));
        let slots = |catch_up| due(&every_minute, catch_up, from, now);
        assert_eq!(slots(CatchUp::One), [at("2027-01-01T10:59:00Z")]);
        assert_eq!(slots(CatchUp::Skip), [at("2027-01-01T10:59:00Z")], "30 s late is on time");
        assert_eq!(slots(CatchUp::All(2)), [at("2027-01-01T10:58:00Z"), at("2027-01-01T10:59:00Z")]);
        assert_eq!(slots(CatchUp::All(1_000)).len(), 60);

        let daily = rhythm("0 3 * * *", "UTC");
        let from = at("2027-01-01T03:00:00Z");
        let late = |now| due(&daily, CatchUp::Skip, from, now);
        assert_eq!(late(at("2027-01-01T03:01:00Z")), [from]);
        assert_eq!(late(at("2027-01-01T03:01:01Z")), []);
        assert_eq!(due(&daily, CatchUp::One, from, at("2027-01-05T02:59:59Z")), [at("2027-01-04T03:00:00Z")]);
        assert_eq!(due(&daily, CatchUp::All(9), from, at("2027-01-01T02:59:59.999Z")), [], "not yet");
    }

    #[test]
    fn a_clock_that_went_back_makes_no_slot_due_again() {
        // Planned anew after an hour back, a schedule waits for its last slot to pass; after a year back, the clock was wrong.
        let hourly = rhythm("0 * * * *", "UTC");
        let now = at("2027-01-01T10:30:00Z");
        let first = |last: &str| first(&hourly, Some(at(last)), now);
        assert_eq!(first("2027-01-01T09:00:00Z"), Some(at("2027-01-01T11:00:00Z")));
        assert_eq!(first("2027-01-01T12:00:00Z"), Some(at("2027-01-01T13:00:00Z")));
        assert_eq!(first("2028-01-01T12:00:00Z"), Some(at("2027-01-01T11:00:00Z")));
    }

    #[test]
    fn each_policy_has_one_word() {
        assert_eq!(CatchUp::parse("skip", Some(5)), Some(CatchUp::Skip));
        assert_eq!(CatchUp::parse("all", None), Some(CatchUp::All(CATCH_UP_DEFAULT)));
        assert_eq!(CatchUp::parse("all", Some(5)), Some(CatchUp::All(5)));
        assert_eq!(CatchUp::parse("ALL", None), None);
    }
}

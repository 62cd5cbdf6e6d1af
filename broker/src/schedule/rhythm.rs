//! A cron expression in a time zone: which instants are its slots. The calendar is croner's, the time zones are jiff's with
//! the database that is built in; what happens when a clock is put forward or back is decided here, as vixie cron does it.
//!
//! An expression whose second, minute and hour name no `*` means times of the day: one that the clock leaps over happens at
//! the leap, one that the clock shows twice happens the first time. Any other means a beat, every ten minutes say, and that
//! goes on through the hour that comes twice and has no part of the one that is left out.

use std::collections::VecDeque;

use croner::Cron;
use croner::errors::CronError;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, Zoned};
use laneway_core::UnixMillis;

/// Longer ones are a mistake.
const CRON_BYTES_MAX: usize = 256;
const ZONE_BYTES_MAX: usize = 64;
/// What a row without a time zone means.
const ZONE_DEFAULT: &str = "UTC";
/// How far back the newest slots are looked for at first, and by how much further each next time.
const LOOK_BACK_MS: i64 = 60_000;
const LOOK_FURTHER: i64 = 8;

/// An expression that makes sense, in a zone that exists.
#[derive(Debug, Clone)]
pub(crate) struct Rhythm {
    cron: Cron,
    zone: TimeZone,
    /// Times of the day, not a beat.
    fixed: bool,
}

impl Rhythm {
    /// # Errors
    /// The column that is wrong, and what to write there instead.
    pub(crate) fn parse(cron: &str, zone: Option<&str>) -> Result<Self, (&'static str, String)> {
        let parsed = if cron.len() > CRON_BYTES_MAX {
            Err(format!("it has {} bytes, at most {CRON_BYTES_MAX} are allowed", cron.len()))
        } else {
            cron.parse().map_err(|error: CronError| cause(&error))
        };
        let parsed: Cron = parsed.map_err(|cause| {
            let shown: String = cron.chars().take(64).collect();
            let text = format!(
                "cron '{shown}' makes no sense, {cause}: write minute, hour, day of the month, month and day of the week, \
                 such as '30 2 * * MON-FRI', with the second before them if it matters"
            );
            ("cron", text)
        })?;
        let name = zone.unwrap_or(ZONE_DEFAULT);
        let known = if name.len() > ZONE_BYTES_MAX { None } else { TimeZone::get(name).ok() };
        let zone = known.filter(|_| !name.is_empty()).ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            ("time_zone", format!("time_zone '{shown}' is not known: write a name such as Europe/Berlin, or UTC"))
        })?;
        Ok(Self { fixed: is_fixed(cron), cron: parsed, zone })
    }

    /// The first slot behind `at`; `None` when there is none up to the year 5000.
    pub(crate) fn next_after(&self, at: UnixMillis) -> Option<UnixMillis> {
        let at = Timestamp::from_millisecond(at.0).ok()?;
        let next = if self.fixed { self.next_time(at)? } else { self.next_beat(at)? };
        Some(UnixMillis(next.as_millisecond()))
    }

    /// The newest slots from `from` to `to`, both included, in order, at most `n` of them. The cost grows with `n` and
    /// hardly with the time between.
    pub(crate) fn newest(&self, from: UnixMillis, to: UnixMillis, n: usize) -> Vec<UnixMillis> {
        let mut span = LOOK_BACK_MS;
        loop {
            let start = from.0.max(to.0.saturating_sub(span));
            let mut slots = VecDeque::new();
            let mut last = UnixMillis(start.saturating_sub(1));
            while let Some(slot) = self.next_after(last).filter(|slot| *slot <= to) {
                if slots.len() == n {
                    slots.pop_front();
                }
                slots.push_back(slot);
                last = slot;
            }
            if slots.len() >= n || start <= from.0 {
                return slots.into();
            }
            span = span.saturating_mul(LOOK_FURTHER);
        }
    }

    fn next_beat(&self, at: Timestamp) -> Option<Timestamp> {
        let next = self.cron.find_next_occurrence(&at.to_zoned(self.zone.clone()), false).ok()?;
        Some(next.timestamp())
    }

    /// Walks the calendar, where no hour is missing and none comes twice, and asks of each match when it is. An earlier one
    /// never happens later, so the first that is behind `at` is the next.
    fn next_time(&self, at: Timestamp) -> Option<Timestamp> {
        let mut shown = at.to_zoned(self.zone.clone()).datetime();
        loop {
            let civil: Zoned = shown.to_zoned(TimeZone::UTC).ok()?;
            shown = self.cron.find_next_occurrence(&civil, false).ok()?.datetime();
            let next = self.instant(shown)?;
            if next > at {
                return Some(next);
            }
        }
    }

    fn instant(&self, shown: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
                offset.to_timestamp(shown).ok()
            }
            // Read with the offset to come it lies before the leap, which is the next change from there.
            AmbiguousOffset::Gap { after, .. } => {
                let before = after.to_timestamp(shown).ok()?;
                Some(self.zone.following(before).next()?.timestamp())
            }
        }
    }
}

/// Whether second, minute and hour name no `*`.
fn is_fixed(cron: &str) -> bool {
    let cron = cron.trim();
    if let Some(nickname) = cron.strip_prefix('@') {
        return !nickname.eq_ignore_ascii_case("hourly");
    }
    let times = if cron.split_whitespace().count() > 5 { 3 } else { 2 };
    !cron.split_whitespace().take(times).any(|field| field.contains('*'))
}

/// What croner says, in a sentence of ours.
fn cause(error: &CronError) -> String {
    match error {
        CronError::EmptyPattern => "it is empty".into(),
        CronError::InvalidPattern(text) | CronError::IllegalCharacters(text) | CronError::ComponentError(text) => {
            let text = text.trim_end_matches('.');
            let mut letters = text.chars();
            letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::schedule) fn rhythm(cron: &str, zone: &str) -> Rhythm {
        Rhythm::parse(cron, Some(zone)).unwrap()
    }

    pub(in crate::schedule) fn at(text: &str) -> UnixMillis {
        UnixMillis(text.parse::<Timestamp>().unwrap().as_millisecond())
    }

    /// The slots behind `from`, as the clocks of the zone show them, with the offset.
    fn check(cron: &str, zone: &str, from: &str, expected: &[&str]) {
        let rhythm = rhythm(cron, zone);
        let mut last = at(from);
        let slots: Vec<String> = (0..expected.len())
            .map(|_| {
                last = rhythm.next_after(last).unwrap();
                let shown = Timestamp::from_millisecond(last.0).unwrap().to_zoned(TimeZone::get(zone).unwrap());
                shown.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
            })
            .collect();
        assert_eq!(slots, expected, "{cron} in {zone}");
    }

    #[test]
    fn a_time_that_the_clock_leaps_over_happens_at_the_leap() {
        // In the spring, with one hour in the list or several, in a zone that leaps by half an hour, and at midnight.
        let berlin = "Europe/Berlin";
        let days = ["2027-03-27T02:30:00+01:00", "2027-03-28T03:00:00+02:00", "2027-03-29T02:30:00+02:00"];
        check("30 2 * * *", berlin, "2027-03-26T12:00:00Z", &days);
        let twice = ["2027-03-28T03:00:00+02:00", "2027-03-28T14:30:00+02:00", "2027-03-29T02:30:00+02:00"];
        check("30 2,14 * * *", berlin, "2027-03-27T20:00:00Z", &twice);
        // Two that were left out are one slot, for they happen at one instant.
        let both = ["2027-03-28T03:00:00+02:00", "2027-03-29T02:00:00+02:00", "2027-03-29T02:30:00+02:00"];
        check("0,30 2 * * *", berlin, "2027-03-27T20:00:00Z", &both);
        let half = ["2027-10-03T02:30:00+11:00", "2027-10-04T02:15:00+11:00"];
        check("15 2 * * *", "Australia/Lord_Howe", "2027-10-02T12:00:00Z", &half);
        let midnight = ["2027-09-05T01:00:00-03:00", "2027-09-06T00:00:00-03:00"];
        check("0 0 * * *", "America/Santiago", "2027-09-04T12:00:00Z", &midnight);
    }

    #[test]
    fn a_time_that_the_clock_shows_twice_happens_the_first_time() {
        // In the autumn, with one hour in the list or several.
        let berlin = "Europe/Berlin";
        let days = ["2027-10-30T02:30:00+02:00", "2027-10-31T02:30:00+02:00", "2027-11-01T02:30:00+01:00"];
        check("30 2 * * *", berlin, "2027-10-29T12:00:00Z", &days);
        let twice = ["2027-10-31T02:30:00+02:00", "2027-10-31T14:30:00+01:00"];
        check("30 2,14 * * *", berlin, "2027-10-30T20:00:00Z", &twice);
        // Asked in the second of the two hours, the first has passed.
        check("30 2 * * *", berlin, "2027-10-31T01:10:00Z", &["2027-11-01T02:30:00+01:00"]);
        check(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2027-04-02T20:00:00Z",
            &["2027-04-04T02:15:00+10:30", "2027-04-05T02:15:00+10:30"],
        );
    }

    #[test]
    fn a_beat_goes_on_through_both_changes() {
        // Every half hour of real time: none is left out, none comes twice at one instant.
        let berlin = "Europe/Berlin";
        let spring = ["2027-03-28T01:30:00+01:00", "2027-03-28T03:00:00+02:00", "2027-03-28T03:30:00+02:00"];
        check("*/30 * * * *", berlin, "2027-03-28T00:00:00Z", &spring);
        let autumn = [
            "2027-10-31T02:00:00+02:00",
            "2027-10-31T02:30:00+02:00",
            "2027-10-31T02:00:00+01:00",
            "2027-10-31T02:30:00+01:00",
            "2027-10-31T03:00:00+01:00",
        ];
        check("*/30 * * * *", berlin, "2027-10-30T23:30:00Z", &autumn);
        check(
            "@hourly",
            berlin,
            "2027-10-30T23:30:00Z",
            &["2027-10-31T02:00:00+02:00", "2027-10-31T02:00:00+01:00", "2027-10-31T03:00:00+01:00"],
        );
    }

    #[test]
    fn slots_are_in_order_and_none_is_met_twice() {
        // Over each day on which a clock changes, asked from every minute: the answer is the first of all slots behind it.
        for cron in ["30 2 * * *", "0,30 2,14 * * *", "15 */3 * * *", "*/7 * * * *", "10 1-4 * * *"] {
            for (zone, from) in [
                ("Europe/Berlin", "2027-03-27T20:00:00Z"),
                ("Europe/Berlin", "2027-10-30T20:00:00Z"),
                ("Australia/Lord_Howe", "2027-04-03T10:00:00Z"),
                ("America/St_Johns", "2027-11-07T00:00:00Z"),
            ] {
                let (rhythm, from) = (rhythm(cron, zone), at(from));
                let mut slots = vec![rhythm.next_after(from).unwrap()];
                while slots.len() < 300 && slots.last().unwrap().0 < from.0 + 26 * 3_600_000 {
                    let next = rhythm.next_after(*slots.last().unwrap()).unwrap();
                    assert!(next > *slots.last().unwrap(), "{cron} {zone}");
                    slots.push(next);
                }
                for minute in 0..26 * 60 {
                    let asked = UnixMillis(from.0 + minute * 60_000);
                    let Some(first) = slots.iter().find(|slot| **slot > asked) else { break };
                    assert_eq!(rhythm.next_after(asked), Some(*first), "{cron} {zone} {asked:?}");
                }
            }
        }
    }

    #[test]
    fn the_calendar_has_its_own_corners() {
        // Leap days, last days, weekdays, seconds, years, and zones that are off by half hours and quarters.
        check("0 0 29 2 *", "UTC", "2027-01-01T00:00:00Z", &["2028-02-29T00:00:00+00:00", "2032-02-29T00:00:00+00:00"]);
        check("0 12 L * *", "UTC", "2028-01-31T13:00:00Z", &["2028-02-29T12:00:00+00:00", "2028-03-31T12:00:00+00:00"]);
        check(
            "0 9 * * MON#1",
            "UTC",
            "2027-01-01T00:00:00Z",
            &["2027-01-04T09:00:00+00:00", "2027-02-01T09:00:00+00:00"],
        );
        check(
            "*/20 59 23 31 12 *",
            "UTC",
            "2027-12-31T23:59:20Z",
            &["2027-12-31T23:59:40+00:00", "2028-12-31T23:59:00+00:00"],
        );
        check("30 9 * * *", "Asia/Kolkata", "2027-01-01T00:00:00Z", &["2027-01-01T09:30:00+05:30"]);
        check("0 6 * * *", "Asia/Kathmandu", "2027-01-01T01:00:00Z", &["2027-01-02T06:00:00+05:45"]);
        check("@daily", "Pacific/Kiritimati", "2027-01-01T09:00:00Z", &["2027-01-02T00:00:00+14:00"]);
        // A day of the month or a day of the week, where both are named, as cron has always done it.
        check(
            "0 0 13 * FRI",
            "UTC",
            "2027-08-07T00:00:00Z",
            &["2027-08-13T00:00:00+00:00", "2027-08-20T00:00:00+00:00"],
        );
    }

    #[test]
    fn what_never_comes_is_told_soon() {
        // The 30th of February; a year that has passed.
        let started = std::time::Instant::now();
        assert_eq!(rhythm("0 0 30 2 *", "UTC").next_after(at("2027-01-01T00:00:00Z")), None);
        assert_eq!(rhythm("* * 30 2 *", "Europe/Berlin").next_after(at("2027-01-01T00:00:00Z")), None);
        assert_eq!(rhythm("0 0 0 1 1 * 2020", "UTC").next_after(at("2027-01-01T00:00:00Z")), None);
        assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
        assert_eq!(rhythm("* * * * *", "UTC").next_after(UnixMillis(i64::MAX)), None);
    }

    #[test]
    fn the_newest_slots_are_found_from_behind() {
        // A year of seconds costs no more than the few that are asked for; a burst long ago is found, too.
        let every_second = rhythm("* * * * * *", "UTC");
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00.500Z"));
        let newest: Vec<i64> = every_second.newest(from, to, 3).iter().map(|slot| to.0 - slot.0).collect();
        assert_eq!(newest, [2_500, 1_500, 500]);
        let yearly = rhythm("0 0 1 3 *", "UTC");
        assert_eq!(yearly.newest(from, to, 9), [at("2026-03-01T00:00:00Z")]);
        assert_eq!(
            yearly.newest(at("2026-03-01T00:00:00Z"), at("2026-03-01T00:00:00Z"), 1).len(),
            1,
            "both ends count"
        );
        assert_eq!(yearly.newest(at("2026-03-01T00:00:00.001Z"), to, 1), []);
        assert_eq!(yearly.newest(to, from, 1), []);
    }

    #[test]
    fn what_makes_no_sense_is_told_with_the_fix() {
        for (cron, zone, field, part) in [
            ("", "UTC", "cron", "cron '' makes no sense, it is empty: write minute"),
            ("* * *", "UTC", "cron", "between 5 and 7 fields"),
            ("60 * * * *", "UTC", "cron", "'60 * * * *' makes no sense"),
            ("every day", "UTC", "cron", "write minute, hour"),
            ("@reboot", "UTC", "cron", "write minute, hour"),
            ("* * * * *", "Berlin", "time_zone", "time_zone 'Berlin' is not known: write a name such as Europe/Berlin"),
            ("* * * * *", "", "time_zone", "is not known"),
            ("* * * * *", "../../etc/passwd", "time_zone", "is not known"),
        ] {
            let (wrong, text) = Rhythm::parse(cron, Some(zone)).unwrap_err();
            assert_eq!(wrong, field);
            assert!(text.contains(part), "{text}");
        }
        assert!(Rhythm::parse(&"1,".repeat(200), None).unwrap_err().1.contains("400 bytes, at most 256"));
        assert!(Rhythm::parse("* * * * *", None).is_ok(), "no zone is UTC");
    }
}

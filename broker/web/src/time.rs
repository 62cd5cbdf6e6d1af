//! Times as people read them: how long ago, how long it took, and the exact one for those who hover.

use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::HumanCount;
use jiff::Timestamp;

/// Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A point in time, shown relative to now and exactly on hover; the browser keeps it going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At(pub(crate) i64);

impl At {
    /// `3 min ago`, `in 2 h`.
    pub(crate) fn ago(self) -> String {
        let passed = now_ms() - self.0;
        match passed {
            -999..=999 => "just now".into(),
            passed if passed < 0 => format!("in {}", span(-passed)),
            passed => format!("{} ago", span(passed)),
        }
    }

    /// `2026-11-29T08:10:09.123Z`.
    pub(crate) fn iso(self) -> String {
        Timestamp::from_millisecond(self.0).map_or_else(|_| self.0.to_string(), |at| format!("{at:.3}"))
    }

    /// `2026-11-29 08:10:09 UTC`.
    pub(crate) fn exact(self) -> String {
        Timestamp::from_millisecond(self.0)
            .map_or_else(|_| self.0.to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%S.%3f UTC").to_string())
    }
}

/// The two largest units at most: `850 ms`, `12 s`, `3 min`, `2 h 5 min`, `4 d`.
pub(crate) fn span(ms: i64) -> String {
    let ms = ms.max(0);
    let (s, min, h, d) = (ms / 1_000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..10_000 => format!("{}.{} s", s, ms % 1_000 / 100),
        10_000..60_000 => format!("{s} s"),
        60_000..3_600_000 if s % 60 == 0 || min >= 10 => format!("{min} min"),
        60_000..3_600_000 => format!("{min} min {} s", s % 60),
        3_600_000..86_400_000 if min % 60 == 0 || h >= 10 => format!("{h} h"),
        3_600_000..86_400_000 => format!("{h} h {} min", min % 60),
        _ if h % 24 == 0 || d >= 10 => format!("{d} d"),
        _ => format!("{d} d {} h", h % 24),
    }
}

/// `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    HumanCount(n).to_string()
}

/// `512 B`, `1.5 MB`: powers of ten, as disks are sold.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut whole, mut rest, mut unit) = (n, 0, 0);
    while whole >= 1_000 && unit + 1 < UNITS.len() {
        (whole, rest, unit) = (whole / 1_000, whole % 1_000, unit + 1);
    }
    if unit == 0 || whole >= 100 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{} {}", rest / 100, UNITS[unit])
    }
}

/// `840 µs`, `4.2 ms`.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{} ms", us / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        // Proves the one table that every age and length on the pages follows.
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_250, "1.2 s"),
            (12_300, "12 s"),
            (61_000, "1 min 1 s"),
            (180_000, "3 min"),
            (7_500_000, "2 h 5 min"),
            (90_000_000, "1 d 1 h"),
            (86_400_000 * 40, "40 d"),
            (-5, "0 ms"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn numbers_are_readable() {
        // Proves groups of three, and units of bytes and microseconds.
        assert_eq!([grouped(0), grouped(999), grouped(1_000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([bytes(512), bytes(1_500_000), bytes(123_456_789)], ["512 B", "1.5 MB", "123 MB"]);
        assert_eq!([micros(840), micros(4_250), micros(52_000)], ["840 µs", "4.2 ms", "52 ms"]);
        assert_eq!(At(0).iso(), "1970-01-01T00:00:00.000Z");
        assert_eq!(At(1).exact(), "1970-01-01 00:00:00.001 UTC");
    }
}

//! Times as people write and read them. The wire and the table only know Unix milliseconds.

use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// Reads a point in time: Unix milliseconds, an ISO date and time (local unless it names an offset or zone), or `+5m`
/// (ms, s, m, h, d, also joined as in `+1h30m`) from now. The error says what may be written.
pub(super) fn parse(text: &str, now: &Zoned) -> Result<i64, String> {
    let text = text.trim();
    if let Some(span) = text.strip_prefix('+') {
        let span = duration(span)?;
        return Ok(now.timestamp().as_millisecond() + i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 2));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        let millis: i64 = text.parse().map_err(|_| format!("'{text}' is too large for Unix milliseconds"))?;
        // The same trap as in the table: seconds would lie in January 1970.
        if millis < 100_000_000_000 {
            return Err(format!("{text} looks like seconds, must be Unix milliseconds: {text}000"));
        }
        return Ok(millis);
    }
    iso(text, now.time_zone()).ok_or_else(|| {
        format!(
            "'{text}' is not a time: write Unix milliseconds, 2030-01-31T18:00 (with Z or +02:00 if not local), or +5m"
        )
    })
}

fn iso(text: &str, zone: &TimeZone) -> Option<i64> {
    let parser = DateTimeParser::new();
    if let Ok(zoned) = parser.parse_zoned(text) {
        return Some(zoned.timestamp().as_millisecond());
    }
    if let Ok(timestamp) = parser.parse_timestamp(text) {
        return Some(timestamp.as_millisecond());
    }
    let local = parser.parse_datetime(text).ok()?.to_zoned(zone.clone()).ok()?;
    Some(local.timestamp().as_millisecond())
}

/// Reads `500ms`, `5m`, `1h30m`; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("'{text}' is not a length of time: write 30 (seconds), 500ms, 5m, 1h30m or 2d");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(std::time::Duration::from_secs(seconds.into()));
    }
    // jiff refuses days in a duration, because a day in a time zone can have 23 hours; here one has 24.
    let (days, rest) = match text.split_once('d') {
        Some((days, rest)) => (days.trim().parse::<u32>().map_err(|_| wrong())?, rest),
        None => (0, text),
    };
    let rest = match rest.trim() {
        "" if days > 0 => SignedDuration::ZERO,
        rest => rest.parse().map_err(|_| wrong())?,
    };
    let rest = std::time::Duration::try_from(rest).map_err(|_| wrong())?;
    Ok(std::time::Duration::from_secs(u64::from(days) * 86_400) + rest)
}

/// Local date and time to the second; what cannot be shown stays a number.
pub(super) fn show(millis: i64) -> String {
    Timestamp::from_millisecond(millis).map_or_else(
        |_| millis.to_string(),
        |at| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// A length of time in two units at most.
pub(super) fn span(millis: u64) -> String {
    let (seconds, minutes, hours, days) = (millis / 1_000, millis / 60_000, millis / 3_600_000, millis / 86_400_000);
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{seconds}.{}s", millis % 1_000 / 100),
        60_000..3_600_000 => format!("{minutes}m{:02}s", seconds % 60),
        3_600_000..86_400_000 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Zoned {
        "2030-01-31T18:00:00+02:00[+02:00]".parse().unwrap()
    }

    #[test]
    fn points_in_time_are_read_in_three_ways() {
        // Proves that each documented way gives the same instant, local time in the zone of the user.
        let at = 1_896_105_600_000; // 2030-01-31T16:00Z
        for text in [
            "1896105600000",
            "2030-01-31T16:00:00Z",
            "2030-01-31T18:00+02:00",
            "2030-01-31T18:00",
            "2030-01-31 18:00:00",
            "+0s",
            "+0",
        ] {
            assert_eq!(parse(text, &now()), Ok(at), "{text}");
        }
        assert_eq!(parse("+5m", &now()), Ok(at + 300_000));
        assert_eq!(parse("+1h30m", &now()), Ok(at + 5_400_000));
        assert_eq!(parse("+2d", &now()), Ok(at + 172_800_000));
        assert_eq!(parse("+1d12h", &now()), Ok(at + 129_600_000));
        assert_eq!(parse("+250ms", &now()), Ok(at + 250));
    }

    #[test]
    fn what_is_no_time_is_told_what_is() {
        // Proves that seconds are not taken for milliseconds, and that an error shows how to write it.
        assert!(parse("1896105600", &now()).unwrap_err().contains("1896105600000"));
        for bad in ["", "tomorrow", "+", "+5x", "+-5m", "2030-13-01", "+d"] {
            assert!(parse(bad, &now()).is_err(), "{bad}");
        }
    }

    #[test]
    fn lengths_are_short() {
        // Proves the rounding at each unit's edge.
        for (millis, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_550, "1.5s"),
            (61_000, "1m01s"),
            (3_660_000, "1h01m"),
            (90_000_000, "1d01h"),
        ] {
            assert_eq!(span(millis), text);
        }
    }
}

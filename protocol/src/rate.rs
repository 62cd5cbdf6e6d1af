//! How often tasks may start: `10/s`, `90/m`, `1/h`, `5/d`, or `none`. The same text in the settings, in the table, on the
//! wire and on the command line.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::InvalidName;
use crate::limits::RATE_STARTS_MAX;

/// A number of starts in a length of time, or no bound at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// 0: no bound.
    starts: u32,
    per_ms: u64,
}

const UNITS: [(&str, u64); 4] = [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Rate {
    /// No bound, also where a weaker source sets one.
    pub const NONE: Self = Self { starts: 0, per_ms: 1_000 };

    /// Starts, and in how many milliseconds; `None` for no bound.
    pub fn bound(self) -> Option<(u32, u64)> {
        (self.starts > 0).then_some((self.starts, self.per_ms))
    }
}

impl FromStr for Rate {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text == "none" {
            return Ok(Self::NONE);
        }
        let parsed = text.split_once('/').and_then(|(starts, unit)| {
            let starts = starts.parse().ok().filter(|starts| (1..=RATE_STARTS_MAX).contains(starts))?;
            let &(_, per_ms) = UNITS.iter().find(|(name, _)| *name == unit)?;
            Some(Self { starts, per_ms })
        });
        parsed.ok_or_else(|| {
            InvalidName::of(format!(
                "rate {text:?} must be 1 to {RATE_STARTS_MAX} starts in a second, minute, hour or day, as in 10/s, 90/m, \
                 1/h or 5/d, or none"
            ))
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, per_ms)| *per_ms == self.per_ms) {
            Some((unit, _)) if self.starts > 0 => write!(f, "{}/{unit}", self.starts),
            _ => f.write_str("none"),
        }
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_reads_back_as_it_is_written() {
        // Also the one that takes a bound away; anything else is refused with the words that would be right.
        for (text, bound) in [
            ("10/s", Some((10, 1_000))),
            ("90/m", Some((90, 60_000))),
            ("1/h", Some((1, 3_600_000))),
            ("1000000/d", Some((1_000_000, 86_400_000))),
            ("none", None),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.to_string().as_str(), rate.bound()), (text, bound));
        }
        for bad in ["", "10", "0/s", "-1/s", "1.5/s", "10/w", "10 / s", "1000001/s", "/s"] {
            let error = bad.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("as in 10/s"), "{error}");
        }
    }
}

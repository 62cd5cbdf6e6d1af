//! The names and numbers that travel: each a type of its own, so that none can be passed for another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{FAIR_KEY_BYTES_MAX, KIND_BYTES_MAX, LANE_BYTES_MAX, SESSION_BYTES_MAX};

/// The id of a task: its row's `id`, 1 to 2^53 - 1 so that JavaScript can hold it, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct TaskId(u64);

impl TaskId {
    /// The highest id a task can have.
    pub const MAX: u64 = (1 << 53) - 1;

    /// `None` unless `id` is 1 to [`TaskId::MAX`].
    pub fn new(id: u64) -> Option<Self> {
        (1..=Self::MAX).contains(&id).then_some(Self(id))
    }

    pub fn value(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for TaskId {
    type Error = InvalidName;

    fn try_from(id: u64) -> Result<Self, InvalidName> {
        Self::new(id).ok_or_else(|| InvalidName(format!("task id {id} is not 1 to {}", Self::MAX)))
    }
}

impl From<TaskId> for u64 {
    fn from(id: TaskId) -> u64 {
        id.0
    }
}

impl FromStr for TaskId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let id: u64 = text.parse().map_err(|_| InvalidName(format!("task id '{text}' is not a whole number")))?;
        Self::try_from(id)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The right to run one task until a deadline: 64 unguessable bits, new for each hand-out, never 0.
///
/// Signed, because a worker that finishes its task by SQL compares it with an SQL integer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lease(i64);

impl Lease {
    pub const fn new(bits: i64) -> Self {
        Self(bits)
    }

    pub const fn value(self) -> i64 {
        self.0
    }
}

// Like `Display`, so that a lease looks the same in every log and panic.
impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({self})")
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The number of a broker start on one database, counted up from 1. Leases and cursors of another epoch are recognised by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 16 random bytes that name one SUBMIT: said again, it gets the same ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(#[serde(with = "serde_bytes")] pub [u8; 16]);

/// A name that is empty, too long, or has characters that would break a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName(String);

impl InvalidName {
    /// Of a value that is written as a text, and wrong in this way.
    pub(crate) fn of(reason: String) -> Self {
        Self(reason)
    }
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidName {}

fn check(what: &str, name: &str, bytes_max: usize) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName(format!("{what} is empty")));
    }
    if name.len() > bytes_max {
        return Err(InvalidName(format!("{what} has {} bytes, at most {bytes_max} are allowed", name.len())));
    }
    if name.chars().any(char::is_control) {
        return Err(InvalidName(format!("{what} {name:?} has control characters")));
    }
    Ok(())
}

/// A shared string of checked length without control characters: cheap to clone, compared by content.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $bytes_max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Fails when `name` is empty, over its bound, or has control characters.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
                check($what, name.as_ref(), $bytes_max)?;
                Ok(Self(name.as_ref().into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().into()
            }
        }

        // By hand: a task on the wire has two names, and the derived way by `String` allocates twice for each.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(concat!("a string that names a ", $what))
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name that picks a task's handler, 1 to 128 bytes.
    Kind, "kind", KIND_BYTES_MAX
);
name!(
    /// A priority class of tasks, 1 to 64 bytes; lanes and their order come from the broker's settings.
    LaneName, "lane", LANE_BYTES_MAX
);
name!(
    /// For whom a task is, 1 to 255 bytes: tasks of one lane take turns by it.
    FairKey, "fair key", FAIR_KEY_BYTES_MAX
);
name!(
    /// One life of one worker process, 1 to 64 bytes, chosen at random by the worker when it starts.
    SessionName, "session", SESSION_BYTES_MAX
);

impl FairKey {
    /// `*`, which no task may have: where values are set it stands for every key that has none of its own.
    pub fn every() -> Self {
        Self("*".into())
    }

    pub fn is_every(&self) -> bool {
        &*self.0 == "*"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_ids_stay_within_what_javascript_can_hold() {
        assert_eq!(TaskId::new(0), None);
        assert_eq!(TaskId::new(1).map(TaskId::value), Some(1));
        assert_eq!(TaskId::new(TaskId::MAX).map(TaskId::value), Some(TaskId::MAX));
        assert_eq!(TaskId::new(TaskId::MAX + 1), None);
        assert!("12x".parse::<TaskId>().unwrap_err().to_string().contains("'12x'"));
    }

    #[test]
    fn names_are_bounded_and_printable() {
        assert!(Kind::new("thumbnail").is_ok());
        assert!(Kind::new("").is_err());
        assert!(Kind::new("a\nb").is_err());
        assert!(Kind::new("k".repeat(KIND_BYTES_MAX)).is_ok());
        let error = Kind::new("k".repeat(KIND_BYTES_MAX + 1)).unwrap_err().to_string();
        assert_eq!(error, "kind has 129 bytes, at most 128 are allowed");
    }
}

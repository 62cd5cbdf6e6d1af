//! The error codes that travel on the wire. A code is stable: it is never renamed and never given another meaning.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a question was refused. What to do about each is in `PROTOCOL.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// The header is not `4C 57`, a version and a type.
    BadMagic,
    /// The major version is not served; the text names those that are.
    BadVersion,
    /// The type is not known.
    BadType,
    /// The body is not one map of the right fields; `field` names the first wrong one.
    BadBody,
    /// A frame, a payload or the whole message is over its bound.
    TooLarge,
    /// A list is longer than a message may carry.
    TooMany,
    /// The number of payload frames is not what the body says.
    BadFrames,
    /// A lane that the broker does not have; the text names those it has.
    UnknownLane,
    /// A task's settings make no sense; the text names value and bound.
    BadTask,
    /// The lease is not the current one: the task went elsewhere and this word changed nothing.
    Stale,
    /// The broker was restarted or does not know the session: say HELLO, with all that is held.
    HelloFirst,
    /// No such task, key, lane or worker.
    NotFound,
    /// A bound of the broker is reached; ask again after `after_ms`.
    Full,
    /// The database did not take it; it may still be committed, so ask again with the same request id.
    Storage,
    /// The broker is stopping.
    Stopping,
    /// The peer's role does not allow this.
    Denied,
    /// The unique key is taken and the submit asked to be refused then; the text names the task that has it.
    Conflict,
    /// A code of a newer broker.
    #[serde(other)]
    Unknown,
}

impl Code {
    /// Every code that a broker of this version can send.
    pub const ALL: [Code; 17] = [
        Code::BadMagic,
        Code::BadVersion,
        Code::BadType,
        Code::BadBody,
        Code::TooLarge,
        Code::TooMany,
        Code::BadFrames,
        Code::UnknownLane,
        Code::BadTask,
        Code::Stale,
        Code::HelloFirst,
        Code::NotFound,
        Code::Full,
        Code::Storage,
        Code::Stopping,
        Code::Denied,
        Code::Conflict,
    ];

    /// As it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::BadMagic => "bad_magic",
            Code::BadVersion => "bad_version",
            Code::BadType => "bad_type",
            Code::BadBody => "bad_body",
            Code::TooLarge => "too_large",
            Code::TooMany => "too_many",
            Code::BadFrames => "bad_frames",
            Code::UnknownLane => "unknown_lane",
            Code::BadTask => "bad_task",
            Code::Stale => "stale",
            Code::HelloFirst => "hello_first",
            Code::NotFound => "not_found",
            Code::Full => "full",
            Code::Storage => "storage",
            Code::Stopping => "stopping",
            Code::Denied => "denied",
            Code::Conflict => "conflict",
            Code::Unknown => "unknown",
        }
    }

    /// Whether the same question can succeed later without being changed.
    pub fn retry(self) -> bool {
        matches!(self, Code::HelloFirst | Code::Full | Code::Storage | Code::Stopping)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The body of an ERR answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    pub code: Code,
    /// For people: the value, the bound and the next step.
    #[serde(default)]
    pub text: String,
    /// The field of the question that was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// When to ask again, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// Whether asking again unchanged can help.
    #[serde(default)]
    pub retry: bool,
}

impl WireError {
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), field: None, after_ms: None, retry: code.retry() }
    }

    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    #[must_use]
    pub fn after_ms(mut self, after_ms: u64) -> Self {
        self.after_ms = Some(after_ms);
        self
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)?;
        match &self.field {
            Some(field) => write!(f, " (field {field})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for WireError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_the_same_in_text_and_on_the_wire() {
        for code in Code::ALL {
            let bytes = rmp_serde::to_vec(&code).unwrap();
            assert_eq!(rmp_serde::from_slice::<String>(&bytes).unwrap(), code.as_str());
            assert_eq!(rmp_serde::from_slice::<Code>(&bytes).unwrap(), code);
        }
    }

    #[test]
    fn a_code_of_a_newer_broker_is_unknown_and_not_an_error() {
        let bytes = rmp_serde::to_vec("bad_weather").unwrap();
        assert_eq!(rmp_serde::from_slice::<Code>(&bytes).unwrap(), Code::Unknown);
    }
}

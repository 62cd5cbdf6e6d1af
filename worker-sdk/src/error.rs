//! What can go wrong on the side of an app or a worker, and whether trying again can help.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use laneway_protocol::{Code, TaskId, TaskState, WireError};

use crate::barrier::Barrier;

/// Why a call of this library failed.
///
/// [`Error::retry`] tells whether the same call can succeed later. A failing *handler* is not an `Error`: it ends in a
/// [`Failure`](crate::Failure), which the broker records.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// No broker answered at the endpoint in time. What was asked may still have happened: a submit is safe to repeat
    /// only through the same call, which keeps its request id.
    NoBroker {
        /// Where the broker was expected.
        endpoint: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// A broker is there and does not let this peer in.
    NotAdmitted {
        /// Where it listens.
        endpoint: String,
        /// What stands between.
        barrier: Barrier,
    },
    /// A file of keys cannot be used.
    BadKey {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it; never the secret.
        text: String,
    },
    /// The broker answered with an error.
    Refused(WireError),
    /// The broker answered something that this version does not understand.
    BadAnswer(String),
    /// A payload, result or checkpoint could not be written or read as the type asked for.
    BadPayload(String),
    /// A setting makes no sense.
    BadSetting {
        /// The builder's method, `lanes` for example.
        setting: &'static str,
        /// Value, bound and next step.
        text: String,
    },
    /// The endpoint cannot be connected to at all, as it is written or by the system's bounds.
    BadEndpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        text: String,
    },
    /// The tasks had not ended when the time given was over. They go on; wait for them again.
    StillRunning {
        /// Those that had not ended; of a group some of them.
        tasks: Vec<TaskId>,
        /// The group, when one was waited for.
        group: Option<u64>,
        /// How long it was waited.
        waited: Duration,
    },
    /// The task did not end in `done`, so it has no result.
    NotDone {
        /// Which task.
        task: TaskId,
        /// `dead` or `cancelled`.
        state: TaskState,
        /// The error in its row.
        error: Option<String>,
    },
    /// The task was never there, or ended so long ago that its row was deleted.
    NotFound(TaskId),
    /// The task is no longer this worker's: its lease ended and it runs, or will run, elsewhere.
    Stale,
    /// The worker left without the broker's answer to its goodbye. The broker gives the tasks out again once it notices
    /// that the worker is gone; a finished one among them may run a second time.
    NoFarewell {
        /// Finished tasks whose outcome may not be on disk.
        outcomes: usize,
        /// Tasks that were to be handed back.
        releases: usize,
    },
    /// The system refused a thread, a socket, a signal handler or random bytes.
    System(String),
}

impl Error {
    /// Whether the same call can succeed later without being changed.
    pub fn retry(&self) -> bool {
        match self {
            Self::NoBroker { .. } | Self::StillRunning { .. } | Self::System(_) => true,
            Self::Refused(error) => error.retry,
            Self::NotAdmitted { .. }
            | Self::BadAnswer(_)
            | Self::BadKey { .. }
            | Self::BadPayload(_)
            | Self::BadSetting { .. }
            | Self::BadEndpoint { .. }
            | Self::NotDone { .. }
            | Self::NotFound(_)
            | Self::Stale
            | Self::NoFarewell { .. } => false,
        }
    }

    /// The broker's code, when the broker refused.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    pub(crate) fn setting(setting: &'static str, text: impl Into<String>) -> Self {
        Self::BadSetting { setting, text: text.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBroker { endpoint, waited } => {
                write!(f, "no broker answered at {endpoint} within {} ms; is it running there?", waited.as_millis())
            }
            Self::NotAdmitted { endpoint, barrier } => {
                write!(f, "the broker at {endpoint} does not let us in: {barrier}")
            }
            Self::BadKey { path, text } => write!(f, "{}: {text}", path.display()),
            Self::Refused(error) => write!(f, "the broker refused: {error}"),
            Self::BadAnswer(text) => write!(f, "the broker's answer makes no sense here: {text}"),
            Self::BadPayload(text) | Self::System(text) => f.write_str(text),
            Self::BadSetting { setting, text } => write!(f, "{setting}: {text}"),
            Self::BadEndpoint { endpoint, text } => write!(f, "endpoint '{endpoint}' cannot be used: {text}"),
            Self::StillRunning { group: Some(group), waited, .. } => {
                write!(f, "group {group} has not ended after {} ms; wait again", waited.as_millis())
            }
            Self::StillRunning { tasks, group: None, waited } => {
                write!(f, "{} not ended after {} ms; wait again", Listed(tasks), waited.as_millis())
            }
            Self::NotDone { task, state, error } => {
                write!(f, "task {task} is {state} and has no result")?;
                error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
            }
            Self::NotFound(task) => write!(f, "task {task} is not there; it never was, or its row was deleted"),
            Self::Stale => f.write_str("the task is no longer this worker's; stop working on it"),
            Self::NoFarewell { outcomes, releases } => write!(
                f,
                "no answer to the goodbye: {outcomes} outcomes may be unrecorded and {releases} tasks not handed back"
            ),
        }
    }
}

/// The text of `Display`: a `main` that returns a `Result` prints its error by `Debug`, and so does `unwrap`. Whoever reads
/// that is a person; the variants are for code, which matches on them.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Self::Refused(error)
    }
}

/// The first of many ids, so that an error about thousands of tasks stays one line.
struct Listed<'a>(&'a [TaskId]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("no task"),
            [task] => write!(f, "task {task}"),
            [first, rest @ ..] => write!(f, "task {first} and {} more", rest.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_repeated_says_so() {
        // An error tells apart "try later" from "change the call", from the broker's own word when it has one.
        let away = Error::NoBroker { endpoint: "tcp://127.0.0.1:1".into(), waited: Duration::from_millis(20) };
        assert!(away.retry());
        assert!(away.to_string().contains("tcp://127.0.0.1:1 within 20 ms"));
        assert!(Error::from(WireError::new(Code::Storage, "disk full")).retry());
        assert!(!Error::from(WireError::new(Code::BadTask, "max_attempts 0 is below 1")).retry());
        assert!(!Error::Stale.retry());
    }
}

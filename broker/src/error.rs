//! Why the program ends without success, and with which exit code. The one error type above all parts: `main` prints its
//! chain once. Parts have errors of their own and are wrapped here with what was being done.

use std::error::Error as StdError;
use std::fmt;

use laneway_protocol::WireError;

use crate::config::ConfigError;

/// The stable exit codes; scripts rely on them, so they are never given another meaning.
///
/// | code | meaning |
/// |---|---|
/// | 0 | done as asked |
/// | 1 | the task that was waited for failed, or anything not in this table |
/// | 2 | the command line makes no sense |
/// | 3 | no broker answers, and where a file could do instead, there is none |
/// | 4 | no such task; no such file or folder, where one is named to work on |
/// | 5 | the broker or the database refused it; the text says why |
/// | 6 | the time to wait was over |
/// | 7 | the broker's settings are wrong, or their file cannot be read |
/// | 8 | the database cannot be opened, read or written |
///
/// `laneway check` has the four of monitoring systems instead: 0 well, 1 a warning, 2 critical, 3 unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Success = 0,
    Failure = 1,
    Usage = 2,
    Unreachable = 3,
    NotFound = 4,
    Refused = 5,
    TimedOut = 6,
    Config = 7,
    Database = 8,
}

impl Exit {
    /// Of a process of this program; one that was killed has failed.
    pub(crate) fn of_status(status: std::process::ExitStatus) -> Self {
        let known = [
            Self::Success,
            Self::Usage,
            Self::Unreachable,
            Self::NotFound,
            Self::Refused,
            Self::TimedOut,
            Self::Config,
            Self::Database,
        ];
        known.into_iter().find(|exit| status.code() == Some(*exit as i32)).unwrap_or(Self::Failure)
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

type Cause = Box<dyn StdError + Send + Sync>;

#[derive(Debug)]
pub(crate) enum Error {
    /// The broker's settings are wrong.
    Config(ConfigError),
    /// A file of keys that the broker's settings name is wrong; the text names it.
    Keys(String),
    /// The dashboard cannot start as the settings have it; the text names what is wrong.
    Dashboard(laneway_web::Error),
    /// An argument makes no sense; the text names value and bound.
    Usage(String),
    /// Nobody answered at the endpoint; `detail` says more.
    Unreachable {
        endpoint: String,
        detail: Option<String>,
    },
    /// What was asked about does not exist.
    NotFound(String),
    /// The broker's own words.
    Refused(WireError),
    /// A broker is there and does not let us in; the text says why.
    NotAdmitted(String),
    /// The time given was over.
    TimedOut(String),
    /// The task that was waited for did not end well.
    TaskFailed(String),
    Database {
        doing: String,
        cause: Cause,
    },
    /// A supervised broker could not start, or did not end well when it was told to stop; it has said why.
    BrokerEnded {
        status: String,
        exit: Exit,
    },
    /// `laneway check` and `laneway doctor` have told what is not well; this is the exit code that they promise.
    Judged(Exit),
    /// Starting or running failed elsewhere: a socket, a log file, a thread.
    Other {
        doing: String,
        cause: Cause,
    },
}

impl Error {
    /// `doing` completes "cannot": `open laneway.db`.
    pub(crate) fn database(doing: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self::Database { doing: doing.into(), cause: cause.into() }
    }

    /// `doing` completes "cannot": `listen on tcp://127.0.0.1:7733`.
    pub(crate) fn other(doing: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self::Other { doing: doing.into(), cause: cause.into() }
    }

    /// What the settings say wrong ends as such; what the machine refuses does not.
    pub(crate) fn dashboard(error: laneway_web::Error) -> Self {
        match error {
            laneway_web::Error::Bind { .. } | laneway_web::Error::Start { .. } => {
                Self::other("start the dashboard", error)
            }
            _ => Self::Dashboard(error),
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Error::Config(_) | Error::Keys(_) | Error::Dashboard(_) => Exit::Config,
            Error::Usage(_) => Exit::Usage,
            Error::Unreachable { .. } => Exit::Unreachable,
            Error::NotFound(_) => Exit::NotFound,
            Error::Refused(_) | Error::NotAdmitted(_) => Exit::Refused,
            Error::TimedOut(_) => Exit::TimedOut,
            Error::Database { .. } => Exit::Database,
            Error::BrokerEnded { exit, .. } | Error::Judged(exit) => *exit,
            Error::TaskFailed(_) | Error::Other { .. } => Exit::Failure,
        }
    }

    /// Whether the reader of standard output went away.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        let cause = self.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
        cause.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// The error and its causes on one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let next = error.to_string();
            // Some libraries repeat their cause in their own text.
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(error) => error.fmt(f),
            Error::Dashboard(error) => error.fmt(f),
            Error::Keys(text)
            | Error::Usage(text)
            | Error::NotFound(text)
            | Error::NotAdmitted(text)
            | Error::TimedOut(text)
            | Error::TaskFailed(text) => f.write_str(text),
            Error::Unreachable { endpoint, detail } => {
                write!(f, "no broker answers at {endpoint}")?;
                detail.as_ref().map_or(Ok(()), |detail| write!(f, ", {detail}"))?;
                f.write_str("; start one with `laneway broker`, or name another with --endpoint")
            }
            Error::Refused(error) => write!(f, "refused: {error}"),
            Error::Judged(_) => f.write_str("not all is well"),
            Error::BrokerEnded { status, .. } => write!(f, "the supervised broker ended with {status}"),
            Error::Database { doing, .. } | Error::Other { doing, .. } => write!(f, "cannot {doing}"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Config(error) => error.source(),
            Error::Dashboard(error) => error.source(),
            Error::Database { cause, .. } | Error::Other { cause, .. } => Some(cause.as_ref()),
            Error::Keys(_)
            | Error::Usage(_)
            | Error::Unreachable { .. }
            | Error::NotFound(_)
            | Error::Refused(_)
            | Error::NotAdmitted(_)
            | Error::TimedOut(_)
            | Error::TaskFailed(_)
            | Error::Judged(_)
            | Error::BrokerEnded { .. } => None,
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_tells_each_cause_once() {
        // Proves that one line has the whole story, without repeating a cause.
        let cause = std::io::Error::other("disk is full");
        let error = Error::database("write laneway.db", cause);
        assert_eq!(error.chain(), "cannot write laneway.db: disk is full");
        assert_eq!(error.exit(), Exit::Database);
        let error = Error::other("listen on ipc://x", "in use");
        assert_eq!(error.chain(), "cannot listen on ipc://x: in use");
    }

    #[test]
    fn exit_codes_keep_their_numbers() {
        // Proves the documented table; a change here breaks scripts.
        let codes = [
            Exit::Success,
            Exit::Failure,
            Exit::Usage,
            Exit::Unreachable,
            Exit::NotFound,
            Exit::Refused,
            Exit::TimedOut,
            Exit::Config,
            Exit::Database,
        ];
        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}

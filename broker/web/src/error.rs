//! Why the dashboard did not start. Nothing of it helps by being tried again, but for an address in use.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What [`start`](crate::start) fails with.
#[derive(Debug)]
pub enum Error {
    /// A setting makes no sense; the text has its name, value and the way out.
    Setting {
        /// As in the settings file, `web.bind` for example.
        setting: &'static str,
        /// What is wrong, following the name.
        text: String,
    },
    /// The file with those who are let in cannot be used.
    AccessFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it; never a secret.
        text: String,
    },
    /// The file with the keys of observer links cannot be used; the text names it and never a key.
    LinkKeys(laneway::Error),
    /// The address cannot be listened at.
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A thread or the runtime could not be started.
    Start {
        /// Which part, by the name of its thread.
        part: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Setting { setting, text } => write!(f, "{setting} {text}"),
            Error::AccessFile { path, text } => write!(f, "web.access_file {}: {text}", path.display()),
            Error::LinkKeys(error) => write!(f, "web.link_key_file {error}"),
            Error::Bind { address, .. } => write!(f, "cannot listen on {address}"),
            Error::Start { part, .. } => write!(f, "cannot start the dashboard's part '{part}'"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Bind { source, .. } | Error::Start { source, .. } => Some(source),
            Error::Setting { .. } | Error::AccessFile { .. } | Error::LinkKeys(_) => None,
        }
    }
}

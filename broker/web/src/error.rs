//! Why the dashboard did not start. Nothing of it helps by being tried again, but for an address in use.

use std::fmt;
use std::io::ErrorKind;
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

impl Error {
    /// Whether somebody else listens at the address.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Error::Bind { source, .. } if source.kind() == ErrorKind::AddrInUse)
    }

    /// What to do about it.
    pub fn fix(&self) -> String {
        match self {
            Error::Setting { setting, .. } => format!("correct {setting}"),
            Error::AccessFile { path, .. } => {
                let path = path.display();
                format!("a file with a line ROLE NAME SECRET for each visitor, read by nobody else: chmod 600 {path}")
            }
            Error::LinkKeys(_) => {
                "laneway link --new-key FILE makes such a file; chmod 600 keeps it from others".into()
            }
            Error::Bind { source, .. } => match source.kind() {
                ErrorKind::AddrInUse => "end what listens there (ss -ltnp shows it), or listen elsewhere: web.bind",
                ErrorKind::AddrNotAvailable => "listen at an address that this machine has: web.bind",
                ErrorKind::PermissionDenied => "listen at a port from 1024 on, which any user may: web.bind",
                _ => "listen elsewhere: web.bind",
            }
            .into(),
            Error::Start { .. } => "end what this user does not need: threads or descriptors are used up".into(),
        }
    }
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

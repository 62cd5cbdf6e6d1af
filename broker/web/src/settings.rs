//! What the dashboard is told at its start, and the check that nobody is let in from the network by mistake.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use laneway::Curve;

use crate::access::Access;
use crate::error::Error;
use crate::observe::origins::check_list;
use crate::trace_url::TraceUrl;

/// Where to listen, whom to ask, and whom to let in. Resolved once by the caller; nothing is read from the environment.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub bind: SocketAddr,
    /// The path under which a reverse proxy shows it, such as `/laneway`; empty at the top.
    pub base_path: String,
    /// The database, which is only read.
    pub db: PathBuf,
    /// The schema that the program knows which this is a part of: with another one it is not ready. Absent: any will do.
    pub schema_known: Option<u32>,
    /// Where the broker listens.
    pub endpoint: String,
    /// Our keys, for a CURVE endpoint.
    pub curve: Option<Curve>,
    /// Those who are let in, and what each may do. Absent: everybody who reaches a loopback address may do everything.
    pub access_file: Option<PathBuf>,
    /// Nobody may change anything.
    pub read_only: bool,
    /// Whether admins see payloads and results; readers never do where there is an access file.
    pub show_payloads: bool,
    /// Names of this host besides `localhost` and its addresses, as browsers write them.
    pub hosts: Vec<String>,
    /// The keys of observer links. Absent: there are no such links.
    pub link_key_file: Option<PathBuf>,
    /// Pages that may show what such a link opens, besides our own; `*` for all.
    pub cors_origins: Vec<String>,
    /// Where people look at a trace; absent: its id is shown without a link.
    pub trace_url: Option<TraceUrl>,
    /// Settings of the broker for the page about it.
    pub shown: ShownSettings,
}

/// Settings of the broker: name, value, where it came from. Shared with the broker, which may take some anew while it runs.
#[derive(Debug, Clone, Default)]
pub struct ShownSettings(Arc<Mutex<Vec<(String, String, String)>>>);

impl ShownSettings {
    /// Shows these from now on.
    pub fn set(&self, settings: Vec<(String, String, String)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    pub(crate) fn list(&self) -> Vec<(String, String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Settings {
    /// Everything at its default, for a broker at `endpoint` on the database `db`.
    pub fn new(bind: SocketAddr, db: PathBuf, endpoint: String) -> Self {
        Self {
            bind,
            base_path: String::new(),
            db,
            schema_known: None,
            endpoint,
            curve: None,
            access_file: None,
            read_only: false,
            show_payloads: true,
            hosts: Vec::new(),
            link_key_file: None,
            cors_origins: Vec::new(),
            trace_url: None,
            shown: ShownSettings::default(),
        }
    }

    /// Reads the access file and refuses what would let everybody in. The settings' own words come back with it.
    pub(crate) fn check(&mut self) -> Result<Access, Error> {
        self.base_path = base_path(&self.base_path)?;
        check_list(&self.cors_origins).map_err(|(value, reason)| Error::Setting {
            setting: "web.cors_origins",
            text: format!("is {value}: {reason}"),
        })?;
        let access = match &self.access_file {
            Some(path) => Access::read(path)?,
            None if self.bind.ip().is_loopback() => Access::open(),
            None => {
                let text = format!(
                    "{} is reached by other machines, and without web.access_file nobody would be asked who they are: name \
                     such a file (`--set web.access_file=FILE`, one line each: ROLE NAME SECRET), or listen on 127.0.0.1",
                    self.bind
                );
                return Err(Error::Setting { setting: "web.bind (--web)", text });
            }
        };
        Ok(access)
    }
}

/// With a slash before it and none behind.
fn base_path(text: &str) -> Result<String, Error> {
    let inner = text.trim_matches('/');
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_./~".contains(c);
    if !inner.chars().all(is_fine) || inner.split('/').any(|part| part == ".." || part == ".") || inner.contains("//") {
        let text = format!("'{text}' must be a plain path such as /laneway");
        return Err(Error::Setting { setting: "web.base_path", text });
    }
    Ok(if inner.is_empty() { String::new() } else { format!("/{inner}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(bind: &str) -> Settings {
        Settings::new(bind.parse().unwrap(), "laneway.db".into(), "ipc://laneway.db.sock".into())
    }

    #[test]
    fn the_network_is_refused_where_nobody_is_asked_who_they_are() {
        // Proves that an open dashboard is never a slip of the finger, and that the refusal names the way out.
        assert!(settings("127.0.0.1:9730").check().is_ok());
        assert!(settings("[::1]:9730").check().is_ok());
        for open in ["0.0.0.0:9730", "192.168.1.4:9730", "[::]:9730"] {
            let error = settings(open).check().unwrap_err().to_string();
            assert!(error.contains(open) && error.contains("web.access_file") && error.contains("--web"), "{error}");
        }
    }

    #[test]
    fn a_base_path_has_one_form() {
        // Proves that links can be made by putting it before a path.
        for (text, path) in [("", ""), ("/", ""), ("laneway", "/laneway"), ("/a/b/", "/a/b")] {
            assert_eq!(base_path(text).unwrap(), path);
        }
        for text in ["/a b", "/../x", "/a\"b", "/a//b"] {
            assert!(base_path(text).is_err(), "{text}");
        }
    }
}

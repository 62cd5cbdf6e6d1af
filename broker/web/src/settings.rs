//! What the dashboard is told at its start, and the check that nobody is let in from the network by mistake. Each rule is one
//! function here, for the start and for those who only check.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use laneway::Curve;

use crate::access::Access;
use crate::error::Error;
use crate::observe::Links;
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

    /// `web.base_path` in its one form, and the list of origins.
    pub(crate) fn check_words(&mut self) -> Result<(), Error> {
        let refuse =
            |setting, value: &str, reason: &str| Error::Setting { setting, text: format!("is {value}: {reason}") };
        check_base_path(&self.base_path)
            .map_err(|reason| refuse("web.base_path", &format!("'{}'", self.base_path), &reason))?;
        check_hosts(&self.hosts).map_err(|(value, reason)| refuse("web.hosts", &value, &reason))?;
        check_list(&self.cors_origins).map_err(|(value, reason)| refuse("web.cors_origins", &value, &reason))?;
        self.base_path = one_form(&self.base_path);
        Ok(())
    }

    /// Reads the access file, and refuses what would let everybody in from the network.
    pub(crate) fn access(&self) -> Result<Access, Error> {
        check_bind(self.bind, self.access_file.is_some())
            .map_err(|reason| Error::Setting { setting: "web.bind", text: format!("'{}' {reason}", self.bind) })?;
        Access::read(self.access_file.clone())
    }

    pub(crate) fn links(&self) -> Result<Links, Error> {
        Links::read(self.link_key_file.clone())
    }

    pub(crate) fn listen(&self) -> Result<TcpListener, Error> {
        TcpListener::bind(self.bind).map_err(|source| Error::Bind { address: self.bind, source })
    }
}

/// What [`start`](crate::start) would fail with, all of it at once. Opens the files and the address as that does, and leaves
/// nothing open.
pub fn check(settings: &Settings) -> Vec<Error> {
    let mut settings = settings.clone();
    let wrong =
        [settings.check_words().err(), settings.access().err(), settings.links().err(), settings.listen().err()];
    wrong.into_iter().flatten().collect()
}

/// Whether nobody is let in from the network without being asked who they are. Fails with the reason, which follows the address.
pub fn check_bind(bind: SocketAddr, has_access_file: bool) -> Result<(), String> {
    if bind.ip().is_loopback() || has_access_file {
        return Ok(());
    }
    Err("is reached by other machines, and nobody would be asked who they are: name web.access_file (--access-file of `laneway \
         web`; docs/dashboard.md), or use a loopback address such as 127.0.0.1"
        .into())
}

/// Whether `web.base_path` is a plain path. Fails with the reason, which follows the value.
pub fn check_base_path(text: &str) -> Result<(), String> {
    let inner = text.trim_matches('/');
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_./~".contains(c);
    if !inner.is_empty() && !text.starts_with('/') {
        return Err(format!("must begin with a slash: say /{inner}"));
    }
    if !inner.chars().all(is_fine) || inner.split('/').any(|part| part == ".." || part == ".") || inner.contains("//") {
        return Err("must be a plain path such as /laneway".into());
    }
    Ok(())
}

/// Whether each of `web.hosts` is a name that a browser can send. Fails with the value and the reason, which follows it.
pub fn check_hosts(hosts: &[String]) -> Result<(), (String, String)> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_host = |host: &str| host.parse::<IpAddr>().is_ok() || (!host.is_empty() && host.chars().all(is_fine));
    let Some(host) = hosts.iter().find(|host| !is_host(host)) else { return Ok(()) };
    let reason = "must be a name or an address alone, without scheme, port and blanks, such as tasks.example.com (of a name in \
                  other letters its form that begins with xn--)";
    Err((format!("'{host}'"), reason.into()))
}

/// With no slash behind it.
fn one_form(base_path: &str) -> String {
    match base_path.trim_matches('/') {
        "" => String::new(),
        inner => format!("/{inner}"),
    }
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
        assert!(settings("127.0.0.1:9730").access().is_ok());
        assert!(settings("[::1]:9730").access().is_ok());
        for open in ["0.0.0.0:9730", "192.168.1.4:9730", "[::]:9730"] {
            let error = settings(open).access().unwrap_err().to_string();
            assert!(
                error.contains(open) && error.contains("web.access_file") && error.contains("--access-file"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_base_path_has_one_form() {
        // Proves that links can be made by putting it before a path.
        for (text, path) in [("", ""), ("/", ""), ("/laneway", "/laneway"), ("/a/b/", "/a/b")] {
            let mut settings = Settings { base_path: text.into(), ..settings("127.0.0.1:0") };
            settings.check_words().unwrap();
            assert_eq!(settings.base_path, path);
        }
        for text in ["/a b", "/../x", "/a\"b", "/a//b", "noslash/"] {
            assert!(check_base_path(text).is_err(), "{text}");
        }
        assert_eq!(check_base_path("noslash/").unwrap_err(), "must begin with a slash: say /noslash");
    }

    #[test]
    fn a_host_is_a_name_alone() {
        // Proves that what no browser sends as its host is refused, which would be a name that never lets anybody in.
        let check = |host: &str| check_hosts(&["localhost".into(), host.into()]);
        for host in ["tasks.example.com", "my_host-1", "10.0.0.7", "::1", "xn--bcher-kva.example"] {
            assert!(check(host).is_ok(), "{host}");
        }
        for host in ["", "tasks example", "https://tasks.example", "tasks.example:9730", "a/b", "bücher.example"] {
            assert_eq!(check(host).unwrap_err().0, format!("'{host}'"));
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        // Proves that one look finds each of what a start would only meet one after the other, with a way out for each.
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = Settings {
            base_path: "/a b".into(),
            access_file: Some("/nowhere/web.access".into()),
            link_key_file: Some("/nowhere/link.keys".into()),
            ..settings(&taken.local_addr().unwrap().to_string())
        };
        let wrong = check(&settings);
        let says =
            ["web.base_path is '/a b'", "web.access_file /nowhere", "web.link_key_file /nowhere", "cannot listen on"];
        assert_eq!(wrong.len(), says.len(), "{wrong:?}");
        for (error, says) in wrong.iter().zip(says) {
            assert!(error.to_string().starts_with(says) && !error.fix().is_empty(), "{error}");
        }
        assert!(wrong[3].is_in_use() && crate::start(settings).is_err());
    }
}

//! The keys of observer links, as their file has them, and what a request is told whose link opens nothing.

use std::path::{Path, PathBuf};

use axum::http::StatusCode;
use laneway::{LinkKeys, LinkRefused, ObserverLink};

use crate::error::Error;
use crate::failure::Failure;
use crate::reread::{Readable, Reread};

impl Readable for LinkKeys {
    const WHAT: &'static str = "keys of observer links";

    fn read(path: &Path) -> Result<Self, Error> {
        LinkKeys::read(path).map_err(Error::LinkKeys)
    }

    fn count(&self) -> usize {
        LinkKeys::count(self)
    }
}

/// Without a file there are no such links.
#[derive(Debug)]
pub(crate) struct Links(Reread<LinkKeys>);

impl Links {
    pub(crate) fn read(path: Option<PathBuf>) -> Result<Self, Error> {
        Reread::read(path).map(Self)
    }

    pub(crate) fn reload(&self) {
        self.0.reload();
    }

    pub(crate) fn open(&self, token: &str) -> Result<ObserverLink, Failure> {
        let keys = self.0.last().ok_or_else(|| {
            Failure::new(StatusCode::NOT_FOUND, "no_links", "there are no observer links here")
                .next("name their keys in web.link_key_file; `laneway link --new-key FILE` makes one")
        })?;
        keys.open(token).map_err(|refused| {
            let (status, code) = match refused {
                LinkRefused::Expired { .. } => (StatusCode::GONE, "expired"),
                LinkRefused::NotUnderstood(_) => (StatusCode::FORBIDDEN, "not_understood"),
                _ => (StatusCode::FORBIDDEN, "not_signed"),
            };
            Failure::new(status, code, refused.to_string()).next("ask for a new link")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use laneway::TaskId;

    use super::*;

    const OLD: &str = "correct-horse-battery-staple-0123456789";
    const NEW: &str = "another-horse-battery-staple-0123456789";

    #[test]
    fn a_key_is_changed_while_it_runs() {
        // Proves that a new key opens its links after a reload, that one taken away opens none, and that a broken file changes
        // nothing.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link.keys");
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write(OLD);
        let links = Links::read(Some(path.clone())).unwrap();
        let link = ObserverLink::new(TaskId::new(12).unwrap(), Duration::from_mins(1)).unwrap();
        let [old, new] = [OLD, NEW].map(|key| link.token(&LinkKeys::parse(key).unwrap()));
        let opens = |token: &str| links.open(token).map_err(|failure| (failure.status.as_u16(), failure.code));
        assert_eq!((opens(&old), opens(&new)), (Ok(link), Err((403, "not_signed"))));
        write(&format!("{NEW}\n{OLD}"));
        links.reload();
        assert_eq!((opens(&old), opens(&new)), (Ok(link), Ok(link)));
        write("short");
        links.reload();
        assert_eq!((opens(&old), opens(&new)), (Ok(link), Ok(link)));
        write(NEW);
        links.reload();
        assert_eq!((opens(&old), opens(&new)), (Err((403, "not_signed")), Ok(link)));
        let none = Links::read(None).unwrap();
        none.reload();
        assert_eq!(none.open(&new).unwrap_err().code, "no_links");
        assert!(Links::read(Some(dir.path().join("none"))).unwrap_err().to_string().contains("web.link_key_file"));
    }
}

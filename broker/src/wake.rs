//! Wakes the scheduler when somebody writes to the database, so that an idle broker need not poll fast.
//!
//! It can wake, never decide: inotify fires at the write into the WAL, before the commit can be seen, and may miss one.
//! So a wake-up starts a burst of looks that outlasts a sync, and a slow backstop poll always runs.

use std::path::Path;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use inotify::{Inotify, WatchMask};

use crate::store::checkpoint::wal_of;

/// After a wake-up the scheduler is looking by itself for longer than this.
const PAUSE: Duration = Duration::from_millis(5);

/// Watches the folder of a database, for inotify on a file would end with the file. `None` when the system has no watch to
/// give; then polling alone must do. The thread ends with the process: it holds nothing but its watch.
pub(crate) fn watch(database: &Path) -> Option<Receiver<()>> {
    let wal = wal_of(database);
    let folder = wal.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wal = wal.file_name()?.to_owned();
    let mut inotify = Inotify::init().ok()?;
    inotify.watches().add(folder, WatchMask::MODIFY).ok()?;
    let (wake, woken) = bounded(1);
    let body = move || {
        let mut buffer = [0; 4096];
        while let Ok(mut events) = inotify.read_events_blocking(&mut buffer) {
            if events.any(|event| event.name.is_some_and(|name| name == wal)) {
                if matches!(wake.try_send(()), Err(crossbeam_channel::TrySendError::Disconnected(()))) {
                    return;
                }
                // Own commits fire as well; under load one wake-up in a while is enough.
                std::thread::sleep(PAUSE);
            }
        }
    };
    std::thread::Builder::new().name("wake".into()).spawn(body).ok()?;
    Some(woken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A write to the WAL wakes; one to another file of the folder does not.
    #[test]
    fn only_the_wal_wakes() {
        let dir = tempfile::tempdir().unwrap();
        let woken = watch(&dir.path().join("t.db")).expect("inotify is there");
        std::fs::write(dir.path().join("other"), b"x").unwrap();
        std::fs::write(dir.path().join("t.db-wal"), b"x").unwrap();
        woken.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(woken.try_recv().is_err());
    }

    /// SQLite keeps the WAL beside the file that a link leads to.
    #[test]
    fn the_wal_of_a_linked_database_wakes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::fs::write(dir.path().join("real/t.db"), b"").unwrap();
        std::os::unix::fs::symlink("real/t.db", dir.path().join("link.db")).unwrap();
        let woken = watch(&dir.path().join("link.db")).expect("inotify is there");
        std::fs::write(dir.path().join("real/t.db-wal"), b"x").unwrap();
        woken.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}

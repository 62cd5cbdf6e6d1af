//! One broker for each database: a lock file beside its real path, held as long as the broker lives and let go by the
//! system when it dies. The database file itself is never opened here: closing it would drop the locks that SQLite holds
//! on it in this process.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StoreError;

/// What stands before the endpoints in the file.
const LISTENING: &str = ", listening on ";

/// Whoever asks whether a database has a broker ([`endpoints`]) holds its lock for a moment: a start tries again so often.
const TRIES: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// Held until it is dropped. The file stays: to remove it would let two brokers lock two files of one name.
#[derive(Debug)]
pub(crate) struct BrokerLock {
    file: File,
}

impl BrokerLock {
    /// Adds where the broker listens to what a second one will be told.
    pub(crate) fn tell_endpoints(&mut self, endpoints: &[String]) -> Result<(), StoreError> {
        // Whoever reads it may stand in another folder, where a short path is another broker's socket.
        let from_anywhere = |endpoint: &String| {
            let path = endpoint.strip_prefix("ipc://").and_then(|path| std::path::absolute(path).ok());
            path.map_or_else(|| endpoint.clone(), |path| format!("ipc://{}", path.display()))
        };
        let endpoints: Vec<String> = endpoints.iter().map(from_anywhere).collect();
        // In one write behind what is there, so that a reader never finds the file empty.
        let written = self.file.write_all(format!("{LISTENING}{}", endpoints.join(" ")).as_bytes());
        written.map_err(|cause| StoreError::Unavailable(format!("cannot write the lock file: {cause}")))
    }
}

/// Locks the database at `database`, which need not exist yet, though its folder must.
///
/// # Errors
/// [`StoreError::InUse`] with what the other broker wrote about itself, or [`StoreError::Unavailable`] when the folder
/// cannot be written or has no locks.
pub(crate) fn acquire(database: &Path) -> Result<BrokerLock, StoreError> {
    let path = lock_file(database).map_err(|cause| unavailable(database, &cause))?;
    let failed = |cause: io::Error| unavailable(&path, &cause);
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
    let mut file = options.open(&path).map_err(failed)?;
    match lock_in_time(&file, || std::thread::sleep(TRY_AGAIN)) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut by = String::new();
            // What it says is for people; the lock alone decides.
            if file.read_to_string(&mut by).is_err() || by.trim().is_empty() {
                by = "pid unknown".into();
            }
            return Err(StoreError::InUse { by: by.trim().into() });
        }
        Err(TryLockError::Error(cause)) => return Err(failed(cause)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    write!(file, "pid {} on {}", std::process::id(), host()).map_err(failed)?;
    Ok(BrokerLock { file })
}

fn lock_in_time(file: &File, mut wait: impl FnMut()) -> Result<(), TryLockError> {
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => wait(),
            tried => return tried,
        }
    }
    file.try_lock()
}

/// Where the broker of a database said that it listens, if one has its lock: what a dead one wrote may be another's address by now.
pub(crate) fn endpoints(database: &Path) -> Vec<String> {
    let Ok(mut file) = lock_file(database).and_then(File::open) else { return Vec::new() };
    // A lock that many may have at a time, so that those who ask do not meet.
    if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return Vec::new();
    }
    let mut said = String::new();
    if file.read_to_string(&mut said).is_err() {
        return Vec::new();
    }
    let listed = said.split_once(LISTENING).map_or("", |(_, listed)| listed);
    listed.split_whitespace().map(Into::into).collect()
}

fn unavailable(path: &Path, cause: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("cannot lock {}: {cause}; its folder must be local and writable", path.display()))
}

/// `<database>.lock` beside the file that the path leads to, so that two names of one database meet in one lock.
fn lock_file(database: &Path) -> io::Result<PathBuf> {
    let real = if let Ok(real) = database.canonicalize() {
        real
    } else {
        let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty());
        let name = database.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        folder.unwrap_or(Path::new(".")).canonicalize()?.join(name)
    };
    let mut path = OsString::from(real);
    path.push(".lock");
    Ok(path.into())
}

/// The machine's name, for people.
pub(super) fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "unknown".into() } else { name.trim().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_broker_is_refused_and_told_who_holds_the_database() {
        // Also by another name of the same file.
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("tasks.db");
        let mut first = acquire(&database).unwrap();
        first.tell_endpoints(&["ipc:///a.sock".into(), "tcp://127.0.0.1:1".into()]).unwrap();
        std::fs::write(&database, "").unwrap();
        let link = dir.path().join("link.db");
        std::os::unix::fs::symlink(&database, &link).unwrap();
        for name in [&database, &link] {
            let error = acquire(name).unwrap_err().to_string();
            assert!(error.contains(&format!("pid {} on ", std::process::id())), "{error}");
            assert!(error.contains(", listening on ipc:///a.sock tcp://127.0.0.1:1"), "{error}");
            assert_eq!(endpoints(name), ["ipc:///a.sock", "tcp://127.0.0.1:1"]);
        }
        assert!(endpoints(&dir.path().join("other.db")).is_empty());
        drop(first);
        // It stands there still, and may be anybody's.
        assert!(endpoints(&link).is_empty());
        acquire(&link).unwrap();
    }

    #[test]
    fn whoever_asks_for_a_broker_keeps_none_from_starting() {
        // Proves that a start waits for somebody who looks whether one runs, and not for ever.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tasks.db.lock");
        let starts = File::create(&path).unwrap();
        let mut asks = Some(File::open(&path).unwrap());
        asks.as_ref().unwrap().try_lock_shared().unwrap();
        lock_in_time(&starts, || drop(asks.take())).unwrap();
        let mut waits = 0;
        let second = lock_in_time(&File::open(&path).unwrap(), || waits += 1);
        assert!(matches!(second, Err(TryLockError::WouldBlock)) && waits == TRIES - 1);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_that_names_it() {
        // Not a panic, and not a broker without a lock.
        let error = acquire(Path::new("/nowhere/at/all.db")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all.db"), "{error}");
    }
}

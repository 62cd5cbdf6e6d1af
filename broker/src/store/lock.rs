//! One broker for each database: a lock file beside its real path, held as long as the broker lives and let go by the
//! system when it dies. The database file itself is never opened here: closing it would drop the locks that SQLite holds
//! on it in this process.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::StoreError;

/// What stands before the endpoints in the file.
const LISTENING: &str = ", listening on ";

/// Held until it is dropped. The file stays: to remove it would let two brokers lock two files of one name.
#[derive(Debug)]
pub(crate) struct BrokerLock {
    file: File,
}

impl BrokerLock {
    /// Adds where the broker listens to what a second one will be told.
    pub(crate) fn tell_endpoints(&mut self, endpoints: &[String]) -> Result<(), StoreError> {
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
    match file.try_lock() {
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

/// Where the last broker of a database said that it listens, whether or not it still lives: its lock is not tried, for that would turn
/// away a broker that starts at this very moment.
pub(crate) fn endpoints(database: &Path) -> Vec<String> {
    let said = lock_file(database).and_then(std::fs::read_to_string).unwrap_or_default();
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
        acquire(&link).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_that_names_it() {
        // Not a panic, and not a broker without a lock.
        let error = acquire(Path::new("/nowhere/at/all.db")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all.db"), "{error}");
    }
}

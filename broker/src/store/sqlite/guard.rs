//! Notices that the database file or its log is not at its path any more: an open file can be written to for long after it
//! was deleted or replaced, and nobody would ever read it. Looks by name only: to open the file a second time would drop
//! SQLite's locks on it. Asked by the store at each look for changes.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::store::StoreError;

/// Between two looks, so that a busy broker does not pay for them.
const LOOK: Duration = Duration::from_millis(250);

/// Files that must stay the ones they are.
#[derive(Debug)]
pub(super) struct Guard {
    files: Vec<(PathBuf, Identity)>,
    looked: Instant,
}

/// Device and inode.
type Identity = (u64, u64);

impl Guard {
    /// Takes these files as they are now; one that is not there is not guarded.
    pub(super) fn new<'a>(files: impl IntoIterator<Item = &'a Path>) -> Self {
        let known = |path: &Path| Some((path.to_owned(), identity(path).ok()?));
        Self { files: files.into_iter().filter_map(known).collect(), looked: Instant::now() }
    }

    /// Fails with [`StoreError::Replaced`] once one of them is another file or none.
    pub(super) fn look(&mut self) -> Result<(), StoreError> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        for (path, known) in &self.files {
            let now = match identity(path) {
                Ok(now) if now == *known => continue,
                Ok(_) => "another file is in its place",
                Err(error) if error.kind() == io::ErrorKind::NotFound => "it was deleted",
                // A folder that cannot be searched for a moment says nothing about the file.
                Err(_) => continue,
            };
            return Err(StoreError::Replaced(format!("{}: {now}", path.display())));
        }
        Ok(())
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

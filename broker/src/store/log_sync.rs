//! Syncs the write-ahead log apart from the commits that wrote it, so that the next turn is written meanwhile. One sync stands
//! for all that was committed before it began.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::StoreError;

/// Synced commits whose time is remembered.
const LATENCIES_MAX: usize = 1024;

/// The log of one database; cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub(crate) struct LogSync {
    wal: Arc<Path>,
    /// Open from the first sync on, so that a sync needs no descriptor when there are none left. The log holds no locks, so
    /// another descriptor on it does no harm.
    file: Arc<OnceLock<File>>,
    latencies: Arc<Latencies>,
}

#[derive(Debug)]
struct Latencies {
    /// 0 is none yet.
    us: [AtomicU32; LATENCIES_MAX],
    next: AtomicUsize,
}

impl LogSync {
    pub(crate) fn new(wal: PathBuf) -> Self {
        let us = [const { AtomicU32::new(0) }; LATENCIES_MAX];
        Self { wal: wal.into(), file: Arc::default(), latencies: Arc::new(Latencies { us, next: AtomicUsize::new(0) }) }
    }

    pub(super) fn wal(&self) -> &Path {
        &self.wal
    }

    /// Returns once everything that was committed before the call survives a power cut. What had left the log by then, a
    /// checkpoint has synced.
    ///
    /// # Errors
    /// [`StoreError::Unsynced`]: to try again would prove nothing, for the kernel takes pages that it could not write for clean.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.sync_file().map_err(|cause| StoreError::Unsynced(format!("{}: {cause}", self.wal.display())))
    }

    fn sync_file(&self) -> Result<(), io::Error> {
        if let Some(file) = self.file.get() {
            return file.sync_data();
        }
        match File::open(&self.wal) {
            Ok(file) => {
                file.sync_data()?;
                self.file.set(file).ok();
                Ok(())
            }
            // Nothing was committed yet.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    /// A commit was synced so long after it began, or after it was written.
    pub(crate) fn took(&self, time: Duration) {
        let us = u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1);
        let at = self.latencies.next.fetch_add(1, Ordering::Relaxed) % LATENCIES_MAX;
        self.latencies.us[at].store(us, Ordering::Relaxed);
    }

    /// Median and 99th percentile of the last times, in microseconds; 0 while there is none.
    pub(super) fn p50_and_p99_us(&self) -> (u64, u64) {
        let known = self.latencies.us.iter().map(|us| us.load(Ordering::Relaxed)).filter(|us| *us > 0);
        let mut sorted: Vec<u32> = known.collect();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get(sorted.len() * percent / 100).map_or(0, |us| u64::from(*us));
        (at(50), at(99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_times_are_remembered_and_no_more() {
        // Of a full round the oldest give way; before the first there is nothing to tell.
        let log = LogSync::new(PathBuf::from("none"));
        assert_eq!(log.p50_and_p99_us(), (0, 0));
        for us in 1..=100 {
            log.took(Duration::from_micros(us));
        }
        assert_eq!(log.p50_and_p99_us(), (51, 100));
        (0..LATENCIES_MAX).for_each(|_| log.took(Duration::from_micros(7)));
        assert_eq!(log.p50_and_p99_us(), (7, 7));
    }

    #[test]
    fn a_log_that_cannot_be_synced_is_told_with_its_name() {
        // A log that is not there has nothing to sync; one that refuses is named, and no retry is offered.
        let dir = tempfile::tempdir().unwrap();
        LogSync::new(dir.path().join("none")).sync().unwrap();
        let error = LogSync::new("/dev/null".into()).sync().unwrap_err();
        assert!(error.to_string().contains("/dev/null") && !error.retry(), "{error}");
    }
}

//! A file that the settings name, read at the start and again when the dashboard is told to. One that has become wrong changes
//! nothing: what it said before holds on, and the log says what to mend.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Error;

/// What such a file says.
pub(crate) trait Readable: Sized {
    /// For the log.
    const WHAT: &'static str;

    fn read(path: &Path) -> Result<Self, Error>;

    /// How many it holds.
    fn count(&self) -> usize;
}

#[derive(Debug)]
pub(crate) struct Reread<T> {
    /// `None`: the settings name no such file.
    path: Option<PathBuf>,
    last: RwLock<Option<Arc<T>>>,
    readings: AtomicU64,
}

impl<T: Readable> Reread<T> {
    pub(crate) fn read(path: Option<PathBuf>) -> Result<Self, Error> {
        let last = path.as_deref().map(T::read).transpose()?;
        Ok(Self { path, last: RwLock::new(last.map(Arc::new)), readings: AtomicU64::new(0) })
    }

    pub(crate) fn reload(&self) {
        let Some(path) = &self.path else { return };
        let what = T::WHAT;
        match T::read(path) {
            Ok(new) => {
                tracing::info!(target: "laneway::web", what, count = new.count(), "read again");
                *self.last.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(new));
                self.readings.fetch_add(1, Ordering::Release);
            }
            Err(error) => {
                tracing::error!(target: "laneway::web", what, %error, "not read again: they stay as they were");
            }
        }
    }

    /// `None` where the settings name no such file.
    pub(crate) fn last(&self) -> Option<Arc<T>> {
        self.last.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another number after each reading that changed what holds.
    pub(crate) fn readings(&self) -> u64 {
        self.readings.load(Ordering::Acquire)
    }
}

//! The two clocks of the process. Read once for each turn of a loop; what decides gets the time as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use laneway_core::{Millis, Now, UnixMillis};

#[cfg(feature = "internals")]
thread_local! {
    /// What every clock of this thread shows, in the simulation.
    static PRETENDED: std::cell::Cell<Option<Now>> = const { std::cell::Cell::new(None) };
}

/// Copied into each thread, so that all count monotonic time from the same start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Sets every clock of this thread, until the next call.
    #[cfg(feature = "internals")]
    pub(crate) fn pretend(now: Now) {
        PRETENDED.set(Some(now));
    }

    pub(crate) fn now(self) -> Now {
        #[cfg(feature = "internals")]
        if let Some(now) = PRETENDED.get() {
            return now;
        }
        let mono = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A wall clock before 1970 is wrong in any case; then everything is due.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Now { mono: Millis(mono), wall: UnixMillis(i64::try_from(wall).unwrap_or(i64::MAX)) }
    }
}

//! The two clocks of the process. Read once for each turn of a loop; what decides gets the time as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use laneway_core::{Millis, Now, UnixMillis};

/// Copied into each thread, so that all count monotonic time from the same start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        // A wall clock before 1970 is wrong in any case; then everything is due.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Now { mono: Millis(mono), wall: UnixMillis(i64::try_from(wall).unwrap_or(i64::MAX)) }
    }
}

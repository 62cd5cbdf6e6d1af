//! Time as an argument: the shell reads both clocks once per loop turn and passes them in.

use std::fmt;

/// Milliseconds on the monotonic clock, from an arbitrary start. Every duration and deadline of the core runs on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Further in the future than any deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// `ms` later; saturates.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// How long after `earlier` this is, 0 when it is not.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Unix milliseconds on the wall clock: only for `run_at`, `expires_at`, what people read, and what is left of a timeout
/// after a restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// `ms` later; saturates.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is, 0 when it is not.
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Both clocks, read together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    pub mono: Millis,
    pub wall: UnixMillis,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_stop_at_their_ends() {
        // A deadline that never comes and a wall clock that went back are no surprise.
        assert_eq!((Millis(5).after(2), Millis(5).since(Millis(2))), (Millis(7), 3));
        assert_eq!((Millis(5).after(u64::MAX), Millis(2).since(Millis(5))), (Millis::NEVER, 0));
        assert_eq!((UnixMillis(-5).after(7), UnixMillis(2).since(UnixMillis(-5))), (UnixMillis(2), 7));
        assert_eq!(UnixMillis(5).after(u64::MAX), UnixMillis(i64::MAX));
        assert_eq!(UnixMillis(2).since(UnixMillis(5)), 0);
        assert_eq!(UnixMillis(-5).to_string(), "-5");
    }
}

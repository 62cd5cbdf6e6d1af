//! What systemd hears of a broker that it has started with `Type=notify`: that it is ready, that it stops, and again and again that
//! the router's loop turns, so that one which hangs is ended and started anew. Without systemd nothing of this happens.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Talks to the service manager, if there is one.
pub(crate) struct Service {
    watchdog: Option<Watchdog>,
}

/// When the service manager is to hear that all is well.
#[derive(Debug)]
struct Watchdog {
    /// Half of what it waits.
    every: Duration,
    told_at: Instant,
    /// Turns of the loop that is watched, when it was told.
    turns: u64,
}

impl Service {
    /// The broker answers from here on.
    pub(crate) fn ready() -> Self {
        tell(NotifyState::Ready);
        let watchdog = sd_notify::watchdog_enabled().map(|patience| Watchdog::new(patience, Instant::now()));
        Self { watchdog }
    }

    /// To be called more often than the service manager waits, with how often the loop has turned.
    pub(crate) fn turned(&mut self, turns: u64) {
        if self.watchdog.as_mut().is_some_and(|watchdog| watchdog.is_due(turns, Instant::now())) {
            tell(NotifyState::Watchdog);
        }
    }

    pub(crate) fn stopping() {
        tell(NotifyState::Stopping);
    }
}

/// A service manager that does not listen is nobody's problem but its own.
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(target: "laneway", %error, "the service manager was not told");
    }
}

impl Watchdog {
    fn new(patience: Duration, now: Instant) -> Self {
        Self { every: patience / 2, told_at: now, turns: 0 }
    }

    /// Whether it is time, and the loop has turned since it was told last.
    fn is_due(&mut self, turns: u64, now: Instant) -> bool {
        let due = now.duration_since(self.told_at) >= self.every && turns != self.turns;
        if due {
            (self.told_at, self.turns) = (now, turns);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_hangs_is_not_told_as_well() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut watchdog = Watchdog::new(Duration::from_secs(2), begun);
        assert!(!watchdog.is_due(7, at(999)), "it was told a moment ago");
        assert!(watchdog.is_due(7, at(1_000)));
        assert!(!watchdog.is_due(7, at(5_000)), "the loop has not turned");
        assert!(watchdog.is_due(8, at(5_001)));
    }
}

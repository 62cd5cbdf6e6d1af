//! Lines that a peer can cause as often as it likes: one in a while, with how many were left out before it.

use std::time::{Duration, Instant};

/// Between two lines.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Seldom {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// `None`: leave this one out. Else write it, and how many were left out since the last one.
    pub(crate) fn now(&mut self) -> Option<u64> {
        self.at(Instant::now())
    }

    fn at(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < EVERY) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        // Proves that a flood makes one line a second, and that none of it goes untold.
        let mut seldom = Seldom::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let told: Vec<_> = [0, 1, 999, 1_000, 5_000].map(|ms| seldom.at(at(ms))).into();
        assert_eq!(told, [Some(0), None, None, Some(2), Some(0)]);
    }
}

//! How long to wait before asking again after something went wrong: doubling, with jitter, until an answer comes.

const FIRST_MS: u64 = 50;
const MAX_MS: u64 = 5_000;

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next delay: at least half of the doubled time, so that many workers do not come back in step.
    pub(super) fn next_ms(&mut self, random: u64) -> u64 {
        let full = FIRST_MS.saturating_mul(1 << self.failures.min(16)).min(MAX_MS);
        self.failures = self.failures.saturating_add(1);
        full / 2 + random % (full / 2 + 1)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_bound_and_start_over_after_an_answer() {
        // Half of each delay is fixed and half is chance.
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_ms(0), 25);
        assert_eq!(backoff.next_ms(50), 100);
        for random in 0..40 {
            assert!((25..=MAX_MS).contains(&backoff.next_ms(random)));
        }
        assert_eq!(backoff.next_ms(0), MAX_MS / 2);
        backoff.reset();
        assert_eq!(backoff.next_ms(0), 25);
    }
}

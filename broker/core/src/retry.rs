//! When a failed task comes back: exponential backoff with jitter, from a given generator.

use crate::settings::KindSettings;

/// A small deterministic generator (splitmix64, Steele, Lea and Flood 2014); only spreads retries, keeps no secret.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to `bound`, both included.
    pub(crate) fn up_to(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        if bound == u64::MAX { z } else { z % (bound + 1) }
    }
}

/// The delay in milliseconds after attempt number `attempt` (from 1): base, doubled with each attempt, at most the
/// kind's maximum; then between half of that and all of it, so that tasks that failed together do not return together.
pub(crate) fn delay_ms(attempt: u32, kind: &KindSettings, random: &mut Random) -> u64 {
    let doublings = attempt.saturating_sub(1).min(32);
    let full = kind.backoff_base_ms.saturating_mul(1 << doublings).min(kind.backoff_max_ms);
    full - random.up_to(full / 2)
}

#[cfg(test)]
mod tests {
    use laneway_protocol::LaneName;

    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_never_fall_under_half() {
        let kind = KindSettings {
            lane: LaneName::new("normal").unwrap(),
            max_attempts: 10,
            timeout_ms: 1,
            backoff_base_ms: 1_000,
            backoff_max_ms: 10_000,
        };
        let mut random = Random::new(1);
        for (attempt, full) in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 8_000), (5, 10_000), (60, 10_000)] {
            for _ in 0..100 {
                let delay = delay_ms(attempt, &kind, &mut random);
                assert!((full / 2..=full).contains(&delay), "attempt {attempt}: {delay}");
            }
        }
    }
}

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
    fn the_generator_gives_the_numbers_of_its_reference() {
        // The first of splitmix64 from seed 1,234,567, whole and as the last digit.
        let numbers = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        let (mut whole, mut digit) = (Random::new(1_234_567), Random::new(1_234_567));
        for number in numbers {
            assert_eq!((whole.up_to(u64::MAX), digit.up_to(9)), (number, number % 10));
        }
    }

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
            let delays: Vec<u64> = (0..100).map(|_| delay_ms(attempt, &kind, &mut random)).collect();
            for delay in &delays {
                assert!((full / 2..=full).contains(delay), "attempt {attempt}: {delay}");
            }
            let spread = delays.iter().max().unwrap() - delays.iter().min().unwrap();
            assert!(spread > full / 3, "attempt {attempt}: they come back within {spread} ms");
        }
    }
}

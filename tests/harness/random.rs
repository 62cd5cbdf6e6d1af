//! Random moments for kills. Every run takes others; a run that failed is repeated with the seed that it printed.

use std::cell::Cell;

use super::worker::now_us;

/// The environment variable that repeats a run.
const SEED: &str = "LANEWAY_SEED";

pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) fn new() -> Self {
        let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or_else(now_us);
        #[expect(clippy::print_stdout, reason = "shown by the test runner when the test fails")]
        {
            println!("{SEED}={seed}");
        }
        Self(Cell::new(seed))
    }

    /// 0 up to `n`, without `n` (splitmix64).
    pub(crate) fn below(&self, n: u64) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

//! Where the fuzzer gets at the parts that read what others wrote: messages, settings, rows. One function for each, from bytes
//! to "nothing broke"; what must hold is asserted, so a fault is a panic. Behind the feature `internals`,
//! which only the crate in `tests/fuzz` and the simulation ask for.

#![expect(clippy::unwrap_used, reason = "a target fails by panicking")]

mod config;
mod peers;
mod rows;

pub use config::config;
pub use peers::peers;
pub use rows::rows;

/// Reads choices and pieces off the front of an input; an input that ends early reads as zeros and empty pieces.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// The next bytes, at most `n`.
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A piece behind its length.
    fn piece(&mut self) -> &'a [u8] {
        let n = usize::from(self.word());
        self.take(n)
    }
}

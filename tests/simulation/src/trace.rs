//! What happened, line by line: a hash of everything, to compare two runs, and the last lines, for whoever looks for a bug.

use std::collections::VecDeque;
use std::fmt::Arguments;

/// Lines kept for a report.
const KEPT: usize = 60;

#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    kept: VecDeque<String>,
    /// Every line goes to standard error as well.
    aloud: bool,
}

impl Trace {
    pub(crate) fn new(aloud: bool) -> Self {
        // FNV-1a: a fixed function, where the standard library's may change.
        Self { hash: 0xCBF2_9CE4_8422_2325, kept: VecDeque::new(), aloud }
    }

    pub(crate) fn line(&mut self, step: u64, now: u64, what: Arguments<'_>) {
        let line = format!("{step:>6} {now:>7} {what}");
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        if self.aloud {
            eprintln!("{line}");
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.kept.iter().cloned().collect()
    }
}

//! Counters of the last pictures, and the rates between them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::picture::Picture;

/// Pictures that are remembered: as many as the widest trend has points.
const SAMPLES_MAX: usize = 121;
/// Over what a rate of now is counted, if there are pictures that close.
const NOW: Duration = Duration::from_secs(5);

/// Since the broker's start, as a picture had it.
struct Sample {
    at: Instant,
    epoch: u64,
    done: u64,
    failed: u64,
    lanes: Vec<(String, u64)>,
}

impl Sample {
    fn handed_out(&self, lane: &str) -> Option<u64> {
        self.lanes.iter().find(|(name, _)| name == lane).map(|(_, n)| *n)
    }
}

#[derive(Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
}

impl History {
    pub(super) fn note(&mut self, picture: &Picture, at: Instant) {
        let stats = &picture.stats;
        if self.samples.back().is_some_and(|last| last.epoch != stats.epoch) {
            // Another life of the broker counts from zero.
            self.samples.clear();
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        let lanes = picture.lanes.iter().map(|row| (row.lane.clone(), row.handed_out)).collect();
        self.samples.push_back(Sample { at, epoch: stats.epoch, done: stats.done, failed: stats.failed, lanes });
    }

    /// Tasks done a second, and attempts failed. `None` before there are two pictures.
    pub(super) fn ends(&self) -> Option<(f64, f64)> {
        let (first, last) = self.now()?;
        Some((rate(first, last, first.done, last.done), rate(first, last, first.failed, last.failed)))
    }

    /// Hand-outs of a lane a second.
    pub(super) fn lane(&self, lane: &str) -> Option<f64> {
        let (first, last) = self.now()?;
        Some(rate(first, last, first.handed_out(lane)?, last.handed_out(lane)?))
    }

    /// The same between each two of the last pictures, the newest last; at most so many points.
    pub(super) fn trend(&self, lane: &str, points_max: usize) -> Vec<f64> {
        let between = |(a, b): (&Sample, &Sample)| Some(rate(a, b, a.handed_out(lane)?, b.handed_out(lane)?));
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        let skipped = self.samples.len().saturating_sub(1).saturating_sub(points_max);
        pairs.skip(skipped).map(|pair| between(pair).unwrap_or(0.0)).collect()
    }

    /// The pictures between which the rates of now are counted.
    fn now(&self) -> Option<(&Sample, &Sample)> {
        let last = self.samples.back()?;
        let before = || self.samples.iter().rev().skip(1);
        let first = before().take_while(|sample| last.at.duration_since(sample.at) <= NOW).last().or(before().next())?;
        Some((first, last))
    }
}

/// Events a second.
#[expect(clippy::cast_precision_loss, reason = "a rate is for eyes")]
fn rate(first: &Sample, last: &Sample, from: u64, to: u64) -> f64 {
    let seconds = last.at.duration_since(first.at).as_secs_f64().max(0.001);
    to.saturating_sub(from) as f64 / seconds
}

/// One block for each rate, against the highest of them; none at all is a blank.
pub(super) fn blocks(rates: &[f64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = rates.iter().copied().fold(0.0, f64::max);
    let block = |rate: &f64| {
        if *rate <= 0.0 || most <= 0.0 {
            return ' ';
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 7")]
        let height = (rate / most * 7.0).round() as usize;
        BLOCKS[height.min(7)]
    };
    rates.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn history(counts: &[(u64, u64)]) -> History {
        let begin = Instant::now();
        let mut history = History::default();
        for (second, done) in counts {
            let mut picture = samples::picture();
            picture.stats.done = *done;
            picture.lanes[0].handed_out = *done;
            history.note(&picture, begin + Duration::from_secs(*second));
        }
        history
    }

    fn near(rate: Option<f64>, wanted: f64) -> bool {
        rate.is_some_and(|rate| (rate - wanted).abs() < 1e-9)
    }

    #[test]
    fn rates_are_of_the_last_seconds_or_of_the_last_two_pictures() {
        // Proves that a burst of long ago is not the rate of now, and that slow pictures have rates too.
        assert!(history(&[(0, 5)]).ends().is_none());
        let quick = history(&[(0, 0), (1, 1_000), (2, 1_010), (7, 1_060)]);
        assert!(near(quick.ends().map(|(done, _)| done), 10.0) && near(quick.lane("high"), 10.0));
        assert!(near(history(&[(0, 0), (30, 60), (60, 90)]).lane("high"), 1.0));
        assert!(quick.lane("none").is_none());
        assert_eq!(quick.trend("high", 2).len(), 2);
        assert_eq!(blocks(&quick.trend("high", 9)), "█▁▁");
    }

    #[test]
    fn another_life_of_the_broker_begins_anew() {
        // Proves that a restart is not shown as a rate, and that the history has a bound.
        let mut history = history(&[(0, 500), (1, 600)]);
        let mut picture = samples::picture();
        picture.stats.epoch += 1;
        history.note(&picture, Instant::now() + Duration::from_secs(2));
        assert!(history.ends().is_none());
        for second in 0..500 {
            history.note(&picture, Instant::now() + Duration::from_secs(second));
        }
        assert_eq!((history.samples.len(), history.trend("high", 1_000).len()), (SAMPLES_MAX, SAMPLES_MAX - 1));
    }

    #[test]
    fn blocks_are_against_the_highest() {
        // Proves both ends: nothing is blank, and something little is seen.
        assert_eq!(blocks(&[0.0, 0.1, 50.0, 100.0]), " ▁▅█");
        assert_eq!(blocks(&[0.0, 0.0]), "  ");
        assert_eq!(blocks(&[]), "");
    }
}

//! The audit of one recorded run: takes many points of the log, asks the disk what it may hold after a loss of power there,
//! and holds that against what had been promised.

use std::collections::BTreeMap;

use super::disk::{Disk, Loss};
use super::log::{Record, What};
use super::promise::{Known, Lost, Promise};
use super::revive::{First, has_forgotten, revive};
use super::table;
use crate::harness::{Place, Random};

/// What an audit found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) images: usize,
    /// Images that a broker and workers went on with, and hand-outs in them that the disk had forgotten.
    pub(crate) revived: usize,
    pub(crate) forgotten: usize,
    /// Acknowledgements held against an image.
    pub(crate) promises: usize,
    /// How often each kind of promise was lost, the greatest age of one that was, and the first of them in words.
    pub(crate) lost: BTreeMap<Promise, (usize, u64, String)>,
    /// Databases that were damaged, and rows or transactions that were not whole.
    pub(crate) damaged: Vec<String>,
}

/// Audits `n_points` points of the log, and brings `n_revived` of the images to life.
pub(crate) fn audit(records: &[Record], n_points: usize, n_revived: usize, random: &Random) -> Report {
    let (mut disk, mut known, mut report) = (Disk::default(), Known::default(), Report::default());
    let mut at = 0;
    for (n, point) in points(records, n_points, random).into_iter().enumerate() {
        for (i, record) in records.iter().enumerate().take(point + 1).skip(at) {
            disk.apply(i, record);
            if let What::Mark(said) = &record.what {
                known.learn(record.at_us, said);
            }
        }
        at = point + 1;
        let place = Place::new();
        disk.image(&place.db(), loss(random), random);
        // Whoever opens the image first changes it. Spread over the run, those are taken that have something to show.
        let revived = (report.revived * n_points < n * n_revived).then(|| copy_of(&place));
        report.images += 1;
        match table::read(&place.db()).and_then(|found| table::is_whole(&found).map(|()| found)) {
            Err(damage) => report.damaged.push(format!("after record {point}: {damage}")),
            Ok(found) => {
                report.note(known.lost(&found, records[point].at_us), known.n_promises());
                if let Some(place) = revived.filter(|_| has_forgotten(&found, &known)) {
                    let first = if report.revived % 2 == 0 { First::OldWorkers } else { First::NewWorkers };
                    let (lost, forgotten) = revive(&place, &found, &known, first);
                    report.note(lost, known.n_promises());
                    report.revived += 1;
                    report.forgotten += forgotten;
                }
            }
        }
    }
    report
}

/// The image of the end of the log when all is lost that is not synced, and which promises are.
pub(crate) fn all_that_is_synced(records: &[Record]) -> (Place, Vec<Lost>) {
    let (mut disk, mut known, place) = (Disk::default(), Known::default(), Place::new());
    for (i, record) in records.iter().enumerate() {
        disk.apply(i, record);
        if let What::Mark(said) = &record.what {
            known.learn(record.at_us, said);
        }
    }
    disk.image(&place.db(), Loss::All, &Random::new());
    let found = table::read(&place.db()).unwrap();
    let lost = known.lost(&found, records.last().map_or(0, |record| record.at_us));
    (place, lost)
}

/// Half of them anywhere, half right after something was acknowledged, in their order.
fn points(records: &[Record], n: usize, random: &Random) -> Vec<usize> {
    let below = |n: usize| usize::try_from(random.below(u64::try_from(n).unwrap())).unwrap();
    let is_mark = |i: &usize| matches!(records[*i].what, What::Mark(_));
    let marks: Vec<usize> = (0..records.len()).filter(is_mark).collect();
    let point = |i| if i % 2 == 0 { below(records.len()) } else { marks[below(marks.len())] };
    let mut points: Vec<usize> = (0..n).map(point).collect();
    points.sort_unstable();
    points
}

fn copy_of(place: &Place) -> Place {
    let copy = Place::new();
    for file in place.dir().read_dir().unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), copy.dir().join(file.file_name())).unwrap();
    }
    copy
}

fn loss(random: &Random) -> Loss {
    match random.below(10) {
        0..4 => Loss::All,
        4 => Loss::Nothing,
        _ => Loss::Some,
    }
}

impl Report {
    fn note(&mut self, lost: Vec<Lost>, n_promises: usize) {
        self.promises += n_promises;
        for lost in lost {
            let (n, age_us, _) = self.lost.entry(lost.promise).or_insert((0, 0, lost.to_string()));
            *n += 1;
            *age_us = (*age_us).max(lost.age_us);
        }
    }

    /// How often a promise was lost.
    pub(crate) fn n_lost(&self, promise: Promise) -> usize {
        self.lost.get(&promise).map_or(0, |(n, ..)| *n)
    }
}

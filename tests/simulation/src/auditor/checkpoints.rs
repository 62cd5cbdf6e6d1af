//! Checkpoints: a row keeps the last that its runs saved, in the order in which they did, until its payload is replaced; every hand-out
//! carries what the row has; and whatever a run was told to be saved is in the row and on disk from then on.

use std::collections::BTreeMap;

use laneway_core::Noted;
use laneway_protocol::message::{HandedTask, NewTask, Progress};
use laneway_protocol::{Payload, TaskState};

use super::{Auditor, id};
use crate::row::Row;

#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Of each task, in the order in which they went to the store, in any life of the broker.
    said: BTreeMap<i64, Vec<Payload>>,
    /// Which of these somebody was told is kept; a later one may have taken its place.
    promised: BTreeMap<i64, usize>,
    /// Which of these the row is known to have got.
    reached: BTreeMap<i64, usize>,
    /// The last that this broker has taken, with the lease under which.
    last: BTreeMap<i64, (i64, Payload)>,
}

impl Auditor {
    pub(super) fn checkpoints_on_start(&mut self) {
        self.saved.last.clear();
    }

    pub(super) fn checkpoints_on_power_loss(&mut self) {
        // The row may have gone back to any of them.
        self.saved.reached.clear();
    }

    pub(super) fn checkpoints_on_op(&mut self, noted: &Noted) {
        if let Some(checkpoint) = &noted.checkpoint {
            self.saved.said.entry(id(noted.task)).or_default().push(checkpoint.clone());
        }
    }

    /// A run was told that this is kept.
    pub(super) fn on_checkpoint_taken(&mut self, progress: &Progress) {
        let Some(checkpoint) = &progress.checkpoint else { return };
        let task = id(progress.task);
        self.tally.saved += 1;
        let place = self.place_of(task, Some(checkpoint));
        // The answer to one that asks for parents as well may come behind that to a later one.
        let last = self.saved.last.get(&task).and_then(|(_, last)| self.place_of(task, Some(last)));
        if last <= place {
            self.saved.last.insert(task, (progress.lease.value(), checkpoint.clone()));
        }
        let promised = self.saved.promised.get(&task).copied();
        self.saved.promised.extend(place.max(promised).map(|place| (task, place)));
        let on_disk = self.synced.get(&task).and_then(|row| self.place_of(task, row.checkpoint.as_ref()));
        if (place.is_none() || on_disk < place) && !self.touched.contains(&task) {
            let saved = shown(Some(checkpoint));
            self.fail(format!("task {task} is told that {saved} is saved, which is not on disk: {on_disk:?}"));
        }
    }

    fn place_of(&self, task: i64, checkpoint: Option<&Payload>) -> Option<usize> {
        let said = self.saved.said.get(&task)?;
        said.iter().rposition(|said| Some(said) == checkpoint)
    }

    /// No commit and no power cut takes away what was promised.
    pub(super) fn check_saved(&mut self) {
        let lost = self.saved.promised.iter().find(|(task, place)| {
            let row = self.rows.get(task).filter(|_| !self.is_gone(**task));
            row.is_some_and(|row| self.place_of(**task, row.checkpoint.as_ref()) < Some(**place))
        });
        if let Some((task, place)) = lost {
            let (row, promised) =
                (shown(self.rows[task].checkpoint.as_ref()), shown(self.saved.said[task].get(*place)));
            self.fail(format!("task {task} was told that {promised} is saved, its row has {row}"));
        }
    }

    /// What a turn did to the checkpoints of rows. `replaced` are those with another payload.
    pub(super) fn check_checkpoints(&mut self, before: &BTreeMap<i64, Row>, replaced: &BTreeMap<i64, NewTask>) {
        // What was saved belongs to the payload from before.
        self.saved.last.retain(|task, _| !replaced.contains_key(task));
        self.saved.promised.retain(|task, _| !replaced.contains_key(task));
        let mut wrong = None;
        for (task, row) in self.rows.iter().filter(|(task, _)| !self.touched.contains(task)) {
            let old = before.get(task).and_then(|row| row.checkpoint.as_ref());
            if old == row.checkpoint.as_ref() && !(replaced.contains_key(task) && old.is_some()) {
                continue;
            }
            let from = self.saved.reached.get(task).map_or(0, |reached| reached + 1);
            let said = self.saved.said.get(task).map_or(&[][..], Vec::as_slice);
            let place = (from..said.len()).find(|at| Some(&said[*at]) == row.checkpoint.as_ref());
            let right = match (&row.checkpoint, place) {
                (None, _) => replaced.contains_key(task),
                (Some(_), Some(place)) if !replaced.contains_key(task) => {
                    self.saved.reached.insert(*task, place);
                    true
                }
                _ => false,
            };
            if !right {
                let (old, new) = (shown(old), shown(row.checkpoint.as_ref()));
                wrong = Some(format!("the checkpoint of task {task} went from {old} to {new}"));
            }
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    pub(super) fn has_checkpoint_of_row(&mut self, handed: &HandedTask) {
        let task = id(handed.task);
        if self.touched.contains(&task) {
            return;
        }
        self.tally.checkpoints += u64::from(handed.checkpoint.is_some());
        let row = self.rows.get(&task);
        if let Some(row) = row.filter(|row| row.checkpoint != handed.checkpoint) {
            let (handed, row) = (shown(handed.checkpoint.as_ref()), shown(row.checkpoint.as_ref()));
            return self.fail(format!("task {task} is handed out with the checkpoint {handed}, its row has {row}"));
        }
        // A run that a cancel has overtaken leaves nothing.
        let odd = self.requeued.contains(&task) || self.cancelled.contains(&task);
        let last = self.saved.last.get(&task).map(|(_, last)| last).filter(|_| !odd);
        let is_older =
            |last: &&Payload| self.place_of(task, handed.checkpoint.as_ref()) < self.place_of(task, Some(*last));
        if let Some(last) = last.filter(is_older) {
            let (handed, last) = (shown(handed.checkpoint.as_ref()), shown(Some(last)));
            self.fail(format!("task {task} is handed out with the checkpoint {handed} and has saved {last}"));
        }
    }

    /// Nothing is left to write.
    pub(super) fn every_checkpoint_is_kept(&mut self) {
        let lost = self.saved.last.iter().find(|(task, (lease, last))| {
            let row = self.rows.get(task).filter(|row| row.state == TaskState::Running && row.lease == Some(*lease));
            // One whose answer was late is there, too.
            let is_older =
                |row: &Row| self.place_of(**task, row.checkpoint.as_ref()) < self.place_of(**task, Some(last));
            row.is_some_and(is_older) && !self.touched.contains(task)
        });
        if let Some((task, (_, last))) = lost {
            let saved = shown(Some(last));
            self.fail(format!("task {task} has saved {saved}, nothing is to be written, and its row has not got it"));
        }
    }
}

/// Its beginning says who saved it, and when.
fn shown(checkpoint: Option<&Payload>) -> String {
    checkpoint.map_or("none".into(), |it| String::from_utf8_lossy(&it.bytes).chars().take(30).collect())
}

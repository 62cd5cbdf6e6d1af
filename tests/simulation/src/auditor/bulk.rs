//! What people may do to tasks: only what they asked for, only to rows in a state for it, and for good once it was answered.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{Edit, Op, OpId};
use laneway_protocol::TaskState;
use laneway_protocol::message::{Bulk, Bulked, Change, Verdict};

use super::{Auditor, id};
use crate::plan::LANES;
use crate::row::Row;

/// What was ever asked for, and what was seen to be done.
#[derive(Debug, Default)]
pub(super) struct Edits {
    purges: BTreeSet<i64>,
    /// The lanes that a task may be put into.
    moves: BTreeMap<i64, BTreeSet<usize>>,
    /// Rows that left the table because somebody asked for it.
    pub(super) purged: BTreeSet<i64>,
    /// Of these it was answered.
    told_purged: BTreeSet<i64>,
}

impl Auditor {
    /// Somebody is about to ask.
    pub(crate) fn on_bulk(&mut self, bulk: &Bulk) {
        match bulk.change {
            Change::Requeue => self.on_requeue(&bulk.tasks),
            Change::Cancel => self.cancelled.extend(bulk.tasks.iter().map(|task| id(*task))),
            Change::Purge => self.edits.purges.extend(bulk.tasks.iter().map(|task| id(*task))),
            Change::Move => {
                let rank = bulk.lane.as_ref().and_then(|lane| LANES.iter().position(|name| *name == lane.as_str()));
                for task in &bulk.tasks {
                    self.edits.moves.entry(id(*task)).or_default().extend(rank);
                }
            }
            Change::RunNow => {}
        }
    }

    pub(super) fn on_edit(&mut self, number: Option<OpId>, op: &Op) {
        let Op::Edit { edit, tasks } = op else { return };
        if *edit == Edit::Cancel {
            self.waiting.cancelling.extend(tasks.iter().map(|task| id(*task)));
        }
        self.cancels.extend(number.map(|number| (number, tasks.clone())));
    }

    /// A row is not in the table any more.
    pub(super) fn on_left(&mut self, task: i64, old: &Row) {
        if old.state.is_final() && self.edits.purges.contains(&task) {
            self.tally.purged += 1;
            self.edits.purged.insert(task);
        } else {
            self.fail(format!("task {task} has left the table"));
        }
    }

    /// What a turn did to a row that stayed.
    pub(super) fn on_moved(&mut self, task: i64, old: &Row, new: &Row) {
        if new.rank == old.rank {
            return;
        }
        self.tally.moved += 1;
        let asked = new.rank.is_some_and(|rank| self.edits.moves.get(&task).is_some_and(|to| to.contains(&rank)));
        let waited = matches!(old.state, TaskState::Queued | TaskState::Waiting);
        let counts = |row: &Row| [row.attempts, row.losses, row.releases];
        if !asked || !waited || counts(old).iter().zip(counts(new)).any(|(old, new)| *old > new) {
            self.fail(format!("task {task} went into another lane: {old:?} became {new:?}"));
        }
    }

    pub(super) fn on_bulk_answer(&mut self, bulk: &Bulk, answer: &Bulked) {
        if bulk.tasks.len() != answer.verdicts.len() {
            self.fail(format!("{} verdicts on {} tasks", answer.verdicts.len(), bulk.tasks.len()));
        }
        for (task, verdict) in bulk.tasks.iter().map(|task| id(*task)).zip(&answer.verdicts) {
            if *verdict == Verdict::Purged {
                self.edits.told_purged.insert(task);
            }
        }
        self.check_purges();
    }

    pub(super) fn check_purges(&mut self) {
        let back = self.edits.told_purged.iter().find(|task| self.synced.contains_key(task)).copied();
        if let Some(task) = back {
            self.fail(format!("task {task} was told to be deleted and is in the table"));
        }
    }
}

//! What people may do to tasks: only what they asked for, only to rows in a state for it, and for good once it was answered. What
//! the store says of a row is what the table shows, and nothing else has changed.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{BulkSlice, Edit, Event, Op, OpId, OpResult};
use laneway_protocol::message::{Bulk, BulkFilter, Bulked, Change, Verdict};
use laneway_protocol::{TaskId, TaskState};

use super::abandon::GIVEN_UP;
use super::batches::meets;
use super::{Auditor, id};
use crate::plan::LANES;
use crate::row::Row;

/// What was ever asked for, and what was seen to be done.
#[derive(Debug, Default)]
pub(super) struct Edits {
    purges: BTreeSet<i64>,
    /// Batches that delete, by what they meet.
    purge_filters: Vec<BulkFilter>,
    /// The lanes that a task may be put into.
    moves: BTreeMap<i64, BTreeSet<usize>>,
    /// Changes by id, and slices of batches, on their way to the store.
    pub(super) by_id: BTreeMap<OpId, (Edit, Vec<TaskId>)>,
    pub(super) slices: BTreeMap<OpId, BulkSlice>,
    /// What the turn that is being looked at says it has done.
    said: Vec<(i64, Verdict, Option<usize>)>,
    /// When the last run of a task ended, by the core's word: it may be on disk for no longer than a turn.
    pub(super) ends: BTreeMap<i64, i64>,
    /// Rows that left the table in this turn because there were too many.
    pub(super) counted: BTreeSet<i64>,
    /// Rows that left the table because somebody asked for it.
    pub(super) purged: BTreeSet<i64>,
    /// Of these it was answered.
    told_purged: BTreeSet<i64>,
}

impl Edits {
    pub(super) fn on_start(&mut self) {
        self.by_id.clear();
        self.slices.clear();
    }
}

impl Auditor {
    /// Somebody is about to ask.
    pub(crate) fn on_bulk(&mut self, bulk: &Bulk) {
        match bulk.change {
            Some(Change::Requeue) => self.on_requeue(&bulk.tasks),
            Some(Change::Cancel) => self.cancelled.extend(bulk.tasks.iter().map(|task| id(*task))),
            Some(Change::Purge) => self.edits.purges.extend(bulk.tasks.iter().map(|task| id(*task))),
            Some(Change::Move) => {
                let rank = bulk.lane.as_ref().and_then(|lane| rank_of(lane.as_str()));
                for task in &bulk.tasks {
                    self.edits.moves.entry(id(*task)).or_default().extend(rank);
                }
            }
            Some(Change::RunNow) | None => {}
        }
        if let (Some(Change::Purge), Some(filter), false) = (bulk.change, &bulk.filter, bulk.dry_run) {
            self.edits.purge_filters.push((**filter).clone());
        }
    }

    pub(super) fn on_edit(&mut self, number: Option<OpId>, op: &Op) {
        match (number, op) {
            (Some(number), Op::Edit { edit, tasks }) => {
                if matches!(edit, Edit::Cancel | Edit::Abandon) {
                    self.waiting.cancelling.extend(tasks.iter().map(|task| id(*task)));
                }
                self.edits.by_id.insert(number, (edit.clone(), tasks.clone()));
            }
            (Some(number), Op::Bulk(slice)) => drop(self.edits.slices.insert(number, BulkSlice::clone(slice))),
            _ => {}
        }
    }

    /// A turn is committed and tells this; the core has not heard it.
    pub(crate) fn on_reports(&mut self, events: &[Event]) {
        self.edits.said.clear();
        self.cron_on_reports(events);
        self.groups_on_reports(events);
        for event in events {
            let Event::Committed(results) = event else { continue };
            for (number, result) in results {
                self.on_report(*number, result);
                self.keys_on_report(*number, result);
            }
        }
    }

    fn on_report(&mut self, number: OpId, result: &OpResult) {
        let (edit, said) = match result {
            OpResult::Verdicts(verdicts) => {
                let Some((edit, tasks)) = self.edits.by_id.get(&number) else { return };
                let said = tasks.iter().copied().zip(verdicts.iter().copied());
                (edit.clone(), said.collect::<Vec<_>>())
            }
            OpResult::Bulk(sliced) => {
                let Some(slice) = self.edits.slices.get(&number) else { return };
                if sliced.verdicts.len() > slice.rows {
                    self.fail(format!("a slice of {} rows has {} verdicts", slice.rows, sliced.verdicts.len()));
                    return;
                }
                let slice = slice.clone();
                self.check_slice(&slice, sliced);
                if slice.dry_run {
                    return;
                }
                (slice.edit.clone(), sliced.verdicts.clone())
            }
            _ => return,
        };
        let rank = if let Edit::Move(lane) = &edit { rank_of(lane.as_str()) } else { None };
        for (task, verdict) in said {
            self.moves(&[task]);
            self.turns_on_verdict(task, verdict);
            let task = id(task);
            self.edits.said.push((task, verdict, rank));
            match verdict {
                Verdict::Requeued => drop(self.requeued.insert(task)),
                Verdict::Cancelled | Verdict::Requested => {
                    if (&edit, verdict) == (&Edit::Abandon, Verdict::Cancelled) {
                        self.stakes.ended.insert(task);
                    }
                    self.cancelled.insert(task);
                    self.waiting.cancelling.insert(task);
                }
                Verdict::Purged => drop(self.edits.purges.insert(task)),
                Verdict::Moved => {
                    self.edits.moves.entry(task).or_default().extend(rank);
                    // Where it waits is known again when a later turn has looked.
                    self.waiting.forget(task);
                }
                _ => {}
            }
        }
    }

    /// What the turn has said of rows is what the table shows.
    pub(super) fn on_said(&mut self, before: &BTreeMap<i64, Row>) {
        let said = std::mem::take(&mut self.edits.said);
        // Of a row that is spoken of twice the last word holds.
        let last: BTreeMap<i64, (Verdict, Option<usize>)> =
            said.into_iter().map(|(task, verdict, rank)| (task, (verdict, rank))).collect();
        let given_up = std::mem::take(&mut self.stakes.ended);
        for (task, (verdict, rank)) in last {
            if self.touched.contains(&task) {
                continue;
            }
            let row = self.rows.get(&task);
            let state = row.map(|row| row.state);
            let holds = match verdict {
                Verdict::Purged | Verdict::NotFound => row.is_none(),
                Verdict::Moved => row.is_some_and(|row| row.rank == rank),
                // CANCEL and REQUEUE of the same turn may have come behind.
                Verdict::Requeued => matches!(state, Some(TaskState::Queued | TaskState::Cancelled)),
                Verdict::Cancelled | Verdict::Requested if self.requeued.contains(&task) => true,
                // It says why, for nobody has asked.
                Verdict::Cancelled if given_up.contains(&task) => {
                    row.is_some_and(|row| row.state == TaskState::Cancelled && row.error.as_deref() == Some(GIVEN_UP))
                }
                Verdict::Cancelled => state == Some(TaskState::Cancelled),
                Verdict::Requested => row.is_some_and(|row| row.cancel_requested || row.state.is_final()),
                _ => true,
            };
            if !holds {
                let found =
                    format!("task {task} is said to be {verdict:?}, and {:?} became {row:?}", before.get(&task));
                self.fail(found);
            }
        }
    }

    /// A row is not in the table any more.
    pub(super) fn on_left(&mut self, task: i64, old: &Row) {
        // The turn may have written its end as well.
        let has_ended = old.state.is_final() || self.edits.ends.contains_key(&task);
        if has_ended && self.edits.purges.contains(&task) {
            self.tally.purged += 1;
            self.edits.purged.insert(task);
        } else if self.is_past(task, old) {
            self.tally.pruned += 1;
            self.edits.purged.insert(task);
        } else if has_ended && self.is_counted(old) {
            self.tally.surplus += 1;
            self.edits.purged.insert(task);
            self.edits.counted.insert(task);
        } else {
            self.fail(format!("task {task} has left the table"));
        }
    }

    /// A power cut may bring a deletion to light that nobody was told of.
    pub(super) fn on_lost_rows(&mut self, before: &BTreeMap<i64, Row>) {
        // A turn whose sync failed may be what is left: an end that was on its way then, and what was deleted behind it.
        let may_be_over = |task: &i64, old: &Row| old.state.is_final() || self.edits.ends.contains_key(task);
        let over: Vec<_> = before.iter().filter(|(task, old)| may_be_over(task, old)).collect();
        for (task, old) in over {
            let by_filter = || self.edits.purge_filters.iter().any(|filter| meets(filter, old));
            if !self.rows.contains_key(task) && (self.kept.prunes() || self.edits.purges.contains(task) || by_filter())
            {
                self.edits.purged.insert(*task);
            }
        }
    }

    /// What a turn did to a row that stayed.
    pub(super) fn on_moved(&mut self, task: i64, old: &Row, new: &Row) {
        if new.rank == old.rank {
            return;
        }
        self.tally.moved += 1;
        let asked = new.rank.is_some_and(|rank| self.edits.moves.get(&task).is_some_and(|to| to.contains(&rank)));
        let counts = |row: &Row| [row.attempts, row.losses, row.releases];
        let kept = self.requeued.contains(&task) || counts(old).iter().zip(counts(new)).all(|(old, new)| *old <= new);
        if !asked || !kept {
            self.fail(format!("task {task} went into another lane: {old:?} became {new:?}"));
        }
    }

    pub(super) fn on_bulk_answer(&mut self, bulk: &Bulk, answer: &Bulked) {
        if bulk.tasks.len() != answer.verdicts.len() || bulk.tasks.is_empty() != answer.batch.is_some() {
            self.fail(format!("{} verdicts on {} tasks: {answer:?}", answer.verdicts.len(), bulk.tasks.len()));
        }
        for (task, verdict) in bulk.tasks.iter().map(|task| id(*task)).zip(&answer.verdicts) {
            if *verdict == Verdict::Purged {
                self.edits.told_purged.insert(task);
            }
        }
        if let Some(batch) = &answer.batch {
            self.tally.batches += u64::from(batch.over);
            if batch.seen != batch.changed + batch.unchanged + batch.twins + batch.needed || batch.at > batch.until {
                self.fail(format!("a batch does not add up: {batch:?}"));
            }
            self.check_batch(batch);
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

fn rank_of(lane: &str) -> Option<usize> {
    LANES.iter().position(|name| *name == lane)
}

//! Batches by filter: each slice meets the rows that fit the filter and no others, a dry run changes none, and what is told of a batch
//! is the sum of its slices.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{BulkSlice, BulkSliced, Edit, Event, Op, OpId, OpResult};
use laneway_protocol::message::{Batch, BulkFilter, Verdict};
use laneway_protocol::{TaskId, TaskState};

use super::{Auditor, id};
use crate::plan::LANES;
use crate::row::Row;

#[derive(Debug, Default)]
pub(super) struct Batches {
    walks: Vec<Walk>,
    /// Slices that the core has not heard of yet, and batches by the number that was told.
    of_op: BTreeMap<OpId, usize>,
    of_number: BTreeMap<u64, usize>,
    /// Rows that a dry run has met in the turn that is being looked at.
    tried: BTreeSet<i64>,
}

/// A batch on its way, as far as the core has heard.
#[derive(Debug)]
struct Walk {
    first: BulkSlice,
    next: Option<(Option<TaskId>, Option<TaskId>)>,
    seen: u64,
    changed: u64,
}

impl Walk {
    fn goes_on_with(&self, slice: &BulkSlice) -> bool {
        let first = BulkSlice { after: slice.after, until: slice.until, ..self.first.clone() };
        first == *slice && self.next == Some((slice.after, slice.until))
    }
}

impl Auditor {
    pub(super) fn batches_on_op(&mut self, number: Option<OpId>, op: &Op) {
        let Op::Bulk(slice) = op else { return };
        let walks = &mut self.batches.walks;
        // A batch that was told to stop takes no next slice, so it is the newest of those that are alike.
        let at = if slice.until.is_none() {
            walks.push(Walk { first: BulkSlice::clone(slice), next: None, seen: 0, changed: 0 });
            walks.len() - 1
        } else if let Some(at) = walks.iter().rposition(|walk| walk.goes_on_with(slice)) {
            at
        } else {
            return self.fail(format!("a slice goes on with no batch: {slice:?}"));
        };
        walks[at].next = None;
        self.batches.of_op.extend(number.map(|number| (number, at)));
    }

    /// What the core is told.
    pub(crate) fn batches_on_event(&mut self, event: &Event) {
        let Event::Committed(results) = event else { return };
        for (number, result) in results {
            let OpResult::Bulk(sliced) = result else { continue };
            let Some(at) = self.batches.of_op.remove(number) else { continue };
            let walk = &mut self.batches.walks[at];
            walk.next = Some((sliced.at, sliced.until));
            walk.seen += sliced.verdicts.len() as u64;
            walk.changed += sliced.verdicts.iter().filter(|(_, verdict)| is_change(*verdict)).count() as u64;
        }
    }

    /// A turn is committed, and this is what a slice in it has met.
    pub(super) fn check_slice(&mut self, slice: &BulkSlice, sliced: &BulkSliced) {
        let met: BTreeMap<i64, Verdict> = sliced.verdicts.iter().map(|(task, verdict)| (id(*task), *verdict)).collect();
        let (after, at) = (slice.after.map_or(0, id), sliced.at.map_or(0, id));
        for (task, row) in self.rows.iter().filter(|(task, _)| (after + 1..=at).contains(task)) {
            let Some(fits) = self.fits(slice, row).filter(|_| self.stands_still(*task, row)) else { continue };
            let verdict = met.get(task).copied();
            if fits != verdict.is_some() || verdict.is_some_and(|verdict| !comes_of(&slice.edit, row, verdict)) {
                self.found.get_or_insert(format!("of task {task} a batch says {verdict:?}: {row:?}, {slice:?}"));
            }
        }
        if met.keys().any(|task| !(after + 1..=at).contains(task)) || (sliced.over && sliced.at != sliced.until) {
            self.found.get_or_insert(format!("a slice ends elsewhere: {sliced:?} of {slice:?}"));
        }
        self.tally.matched += met.len() as u64;
        if slice.dry_run {
            self.tally.tried += met.values().filter(|verdict| is_change(**verdict)).count() as u64;
            self.batches.tried.extend(met.keys());
        }
    }

    /// `None` where it cannot be known.
    fn fits(&self, slice: &BulkSlice, row: &Row) -> Option<bool> {
        let is_old = slice.before.is_none_or(|before| row.ended_at <= before.0);
        if slice.filter.lane.is_some() && !self.follows(row) {
            return None;
        }
        Some(meets(&slice.filter, row) && is_old)
    }

    /// What a dry run has met is what it was.
    pub(super) fn check_tried(&mut self, before: &BTreeMap<i64, Row>) {
        for task in std::mem::take(&mut self.batches.tried) {
            let (Some(old), Some(new)) = (before.get(&task), self.rows.get(&task)) else { continue };
            // A sweep may end these, or what they wait for.
            let ends = old.expires_at.is_some() || old.cancel_requested || old.rank.is_none();
            let by_itself = ends || old.state == TaskState::Waiting;
            let what = |row: &Row| (row.state, row.rank, row.due, row.cancel_requested, row.attempts, row.losses);
            if what(old) != what(new) && !by_itself && self.stands_still(task, old) {
                self.found.get_or_insert(format!("a dry run has changed task {task}: {old:?} became {new:?}"));
            }
        }
    }

    pub(super) fn check_batch(&mut self, batch: &Batch) {
        let newest = self.batches.walks.len().checked_sub(1);
        let known = self.batches.of_number.get(&batch.number).copied().or(newest);
        let Some(at) = known else { return self.fail(format!("nobody has begun {batch:?}")) };
        self.batches.of_number.insert(batch.number, at);
        let walk = &self.batches.walks[at];
        if (batch.seen, batch.changed, batch.dry_run) != (walk.seen, walk.changed, walk.first.dry_run) {
            self.found.get_or_insert(format!("a batch is said to be {batch:?} and is {walk:?}"));
        }
    }
}

/// But for its age.
pub(super) fn meets(filter: &BulkFilter, row: &Row) -> bool {
    let BulkFilter { state, kind, lane, error, error_line, unique_key, fair_key, group, workers, .. } = filter;
    let line = |error: &str| error.split('\n').next().unwrap_or_default().trim().to_owned();
    let own = row.error.as_deref().unwrap_or_default();
    let attempts = filter.attempts_min.unwrap_or(0).into()..=filter.attempts_max.unwrap_or(u32::MAX).into();
    state.is_none_or(|state| state == row.state)
        && kind.as_ref().is_none_or(|kind| *kind == row.kind)
        && lane.as_ref().is_none_or(|lane| row.rank.is_some_and(|rank| LANES[rank] == lane))
        && error.as_ref().is_none_or(|text| row.error.is_some() && own.contains(text))
        && error_line.as_ref().is_none_or(|text| line(own) == line(text))
        && (unique_key.is_none() || *unique_key == row.unique_key)
        && (fair_key.is_none() || *fair_key == row.fair_key)
        && group.is_none_or(|group| row.group.is_some_and(|own| u64::try_from(own) == Ok(group)))
        && (workers.is_empty()
            || workers.iter().any(|name| row.worker.as_ref().is_some_and(|own| own.starts_with(name))))
        && attempts.contains(&row.attempts)
}

fn is_change(verdict: Verdict) -> bool {
    use Verdict::{Cancelled, Due, Moved, Purged, Requested, Requeued};
    matches!(verdict, Cancelled | Requested | Requeued | Moved | Due | Purged)
}

/// Whether this is what comes of a row.
fn comes_of(edit: &Edit, row: &Row, verdict: Verdict) -> bool {
    use TaskState::{Cancelled, Dead, Queued, Running, Waiting};
    match (edit, row.state) {
        (Edit::Cancel | Edit::Abandon, Queued | Waiting) => verdict == Verdict::Cancelled,
        (Edit::Cancel | Edit::Abandon, Running) => verdict == Verdict::Requested,
        (Edit::Requeue, Dead | Cancelled) => matches!(verdict, Verdict::Requeued | Verdict::Twin(_)),
        (Edit::Purge, state) if state.is_final() => matches!(verdict, Verdict::Purged | Verdict::Needed),
        (Edit::Move(_), Queued | Waiting) => matches!(verdict, Verdict::Moved | Verdict::Unchanged),
        (Edit::RunNow, Queued) => matches!(verdict, Verdict::Due | Verdict::Unchanged),
        _ => verdict == Verdict::Unchanged,
    }
}

//! Groups: their counts are those of the table at some moment since somebody asked, and one that is cancelled is so as a whole, whoever
//! would join it later.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{Event, Op, OpId, OpResult, ReplyTo};
use laneway_protocol::TaskState;
use laneway_protocol::message::{AboutGroup, GroupRow};

use super::Auditor;
use super::looks::Rows;
use crate::row::Row;

#[derive(Debug, Default)]
pub(super) struct Cancelled {
    /// Somebody has asked for that, at some time.
    asked: BTreeSet<i64>,
    on_way: BTreeMap<OpId, u64>,
    /// Nothing joins these: the store has said so, and nobody has requeued a task of theirs since.
    closed: BTreeSet<i64>,
    closing: BTreeSet<i64>,
}

impl Cancelled {
    pub(super) fn contains(&self, group: i64) -> bool {
        self.asked.contains(&group)
    }
}

impl Auditor {
    pub(super) fn on_group_asked(&mut self, about: &AboutGroup) {
        if about.cancel {
            self.cancelled_groups.asked.extend(i64::try_from(about.group));
        }
    }

    pub(super) fn groups_on_start(&mut self) {
        self.cancelled_groups.on_way.clear();
    }

    pub(super) fn groups_on_op(&mut self, number: Option<OpId>, op: &Op) {
        if let (Some(number), Op::CancelGroup { group, .. }) = (number, op) {
            self.cancelled_groups.on_way.insert(number, *group);
        }
    }

    /// A turn is committed and tells this.
    pub(super) fn groups_on_reports(&mut self, events: &[Event]) {
        let results = events.iter().filter_map(|event| match event {
            Event::Committed(results) => Some(results),
            _ => None,
        });
        for (number, result) in results.flatten() {
            let group = self
                .cancelled_groups
                .on_way
                .remove(number)
                .filter(|_| matches!(result, OpResult::GroupCancelled { .. }));
            self.cancelled_groups.closing.extend(group.and_then(|group| i64::try_from(group).ok()));
        }
    }

    /// What a turn has brought into a group that was closed before it has ended by that.
    pub(super) fn check_joins(&mut self, before: &BTreeMap<i64, Row>) {
        let revived = |(task, old): (&i64, &Row)| {
            let lives = self.rows.get(task).is_some_and(|row| !row.state.is_final());
            old.group.filter(|_| old.state.is_final() && lives)
        };
        let revived: BTreeSet<i64> = before.iter().filter_map(revived).collect();
        let Cancelled { closed, closing, .. } = &mut self.cancelled_groups;
        closed.retain(|group| !revived.contains(group));
        let joined = self.rows.iter().filter(|(task, row)| !before.contains_key(task) && row.group.is_some());
        let late = joined.filter(|(_, row)| row.group.is_some_and(|group| closed.contains(&group)));
        let late: Vec<(i64, Row)> = late.map(|(task, row)| (*task, row.clone())).collect();
        closed.extend(std::mem::take(closing).difference(&revived));
        self.tally.joined_late += late.len() as u64;
        if let Some((task, row)) = late.into_iter().find(|(_, row)| row.state != TaskState::Cancelled) {
            self.fail(format!("task {task} joins a group that was cancelled: {row:?}"));
        }
    }

    /// A submit was refused because of a group.
    pub(super) fn check_group_refused(&mut self, group: Option<u64>) {
        self.tally.joins_refused += 1;
        let group = group.and_then(|group| i64::try_from(group).ok());
        // One whose last task was deleted is not there any more.
        let is_there = group.is_some_and(|group| self.rows.values().any(|row| row.group == Some(group)));
        if is_there && group.is_none_or(|group| !self.cancelled_groups.contains(group)) {
            self.fail(format!("a submit may not join group {group:?}, which nobody has cancelled"));
        }
    }

    pub(super) fn on_group_answer(&mut self, reply: ReplyTo, about: &AboutGroup, said: &GroupRow) {
        let look = self.take_look(reply);
        let group = i64::try_from(about.group).ok();
        let of_group = |row: &&Row| row.group == group;
        let members = |rows: &Rows| -> BTreeSet<i64> {
            rows.iter().filter(|(_, row)| of_group(row)).map(|(task, _)| *task).collect()
        };
        let first = members(&look.moments[0]);
        let counts = |rows: &Rows| {
            let n = |state| rows.values().filter(of_group).filter(|row| row.state == state).count() as u64;
            TaskState::ALL.map(n)
        };
        let told = [said.waiting, said.queued, said.running, said.done, said.dead, said.cancelled];
        // One that joins or moves in a turn is counted somewhere in the middle of it.
        let known = first.is_disjoint(&look.moved) && look.moments.iter().all(|rows| members(rows) == first);
        if known && !first.is_empty() {
            self.tally.counted += 1;
            if !look.moments.iter().any(|rows| counts(rows) == told) {
                self.found.get_or_insert(format!("no moment has had a group with {said:?}"));
            }
        }
        if about.cancel {
            let kept = first.iter().filter(|task| !self.requeued.contains(task) && !self.touched.contains(task));
            let rows = kept.filter_map(|task| Some((task, self.synced.get(task)?)));
            if let Some((task, row)) = rows.clone().find(|(_, row)| !row.state.is_final() && !row.cancel_requested) {
                self.found.get_or_insert(format!("task {task} of a cancelled group goes on: {row:?}"));
            }
            self.tally.groups_cancelled += u64::from(rows.into_iter().any(|(_, row)| row.cancel_requested));
        }
    }
}

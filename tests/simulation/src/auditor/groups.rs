//! Groups: their counts are those of the table at some moment since somebody asked, and one that is cancelled is so as a whole.

use std::collections::BTreeSet;

use laneway_core::ReplyTo;
use laneway_protocol::TaskState;
use laneway_protocol::message::{AboutGroup, GroupRow};

use super::Auditor;
use super::looks::Rows;
use crate::row::Row;

/// Groups that somebody has asked to be cancelled, at some time.
pub(super) type Cancelled = BTreeSet<i64>;

impl Auditor {
    pub(super) fn on_group_asked(&mut self, about: &AboutGroup) {
        if about.cancel {
            self.cancelled_groups.extend(i64::try_from(about.group));
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

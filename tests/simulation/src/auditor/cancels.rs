//! Cancels: a task is asked to end, or ended before it has started, only by somebody's word; and whoever runs and was asked is not waited
//! for longer than the grace.

use std::collections::BTreeMap;

use laneway_protocol::TaskState;

use super::{Auditor, LATE_MS};
use crate::plan::RESUME_GRACE_MS;
use crate::row::Row;

impl Auditor {
    /// A turn is committed.
    pub(super) fn check_cancels(&mut self, before: &BTreeMap<i64, Row>) {
        for (task, old) in before {
            let Some(new) = self.rows.get(task) else { continue };
            let of_group = || new.group.is_some_and(|group| self.cancelled_groups.contains(&group));
            let asked = || self.touched.contains(task) || self.cancelled.contains(task) || of_group();
            let marked = new.cancel_requested && !old.cancel_requested;
            // Those that wait may go with a parent, and those that move by the word of their worker.
            let ended = (old.state, new.state) == (TaskState::Queued, TaskState::Cancelled)
                && old.expires_at.is_none()
                && !old.cancel_requested
                && self.stands_still(*task, old);
            if (marked || ended) && !asked() {
                self.found.get_or_insert(format!("nobody has cancelled task {task}: {old:?} became {new:?}"));
            }
        }
    }

    /// A run that goes on though everybody wants its end.
    pub(super) fn runs_in_spite(&mut self) -> Option<String> {
        let stops = |row: &Row| row.state == TaskState::Running && row.cancel_requested;
        let rows = &self.rows;
        self.stopping.retain(|task, (_, run)| rows.get(task).is_some_and(|row| stops(row) && row.runs == *run));
        for (task, row) in rows.iter().filter(|(task, row)| stops(row) && !self.touched.contains(task)) {
            let (since, _) = *self.stopping.entry(*task).or_insert((self.now, row.runs));
            if self.now.saturating_sub(since.max(self.disturbed)) > LATE_MS + RESUME_GRACE_MS {
                return Some(format!("task {task} was asked to stop at {since} and runs"));
            }
        }
        None
    }
}

//! Tasks that wait for others: none goes before its parents have ended, each is let go or cancelled in the commit that ends the
//! last of them, and none waits for nobody.

use std::collections::{BTreeMap, BTreeSet};

use laneway_protocol::TaskState;
use laneway_protocol::message::GroupRow;

use super::{Auditor, LATE_MS};
use crate::row::Row;

impl Auditor {
    /// A commit took a row from `waiting` to another state, or left it there.
    pub(super) fn check_wait(&mut self, task: i64, before: &BTreeMap<i64, Row>, new: &Row) {
        let old = &before[&task];
        if old.state != TaskState::Waiting || self.parents_touched(task) {
            return;
        }
        let parents: Vec<(i64, bool)> = self.parents(task);
        let state = |parent: &i64| self.rows.get(parent).map(|row| row.state);
        // One that failed may be pruned or purged in the same turn.
        let failed = |(parent, anyway): &(i64, bool)| match state(parent) {
            Some(state) => !anyway && matches!(state, TaskState::Dead | TaskState::Cancelled),
            None => !anyway && before.contains_key(parent),
        };
        let live = |(parent, _): &(i64, bool)| state(parent).is_some_and(|state| !state.is_final());
        let was_live = |(parent, _): &(i64, bool)| before.get(parent).is_some_and(|row| !row.state.is_final());
        let withdrawn = new.cancel_requested || self.cancelled.contains(&task) || new.expires_at.is_some();
        match new.state {
            TaskState::Waiting => {}
            TaskState::Cancelled => self.tally.failed_with_parent += u64::from(!withdrawn),
            _ => self.tally.let_go += 1,
        }
        let wrong = match new.state {
            // Known to the scheduler as one that waits.
            TaskState::Waiting => {
                let told = self.waiting.told.1.get(&task).is_some_and(|row| row.state == TaskState::Waiting)
                    && !self.waiting.inherited.contains(&task);
                let held = parents.iter().any(live);
                (told && parents.iter().any(was_live) && !held).then_some("is not let go with the last parent's end")
            }
            TaskState::Cancelled => {
                (!withdrawn && !parents.iter().any(failed)).then_some("is cancelled though no parent has failed")
            }
            TaskState::Dead => (!self.is_above_touched(task)).then_some("is dead though its parents are there"),
            _ => (parents.iter().any(live) || parents.iter().any(failed)).then_some("is let go before its time"),
        };
        if let Some(wrong) = wrong {
            let states: Vec<_> = parents.iter().map(|(parent, anyway)| (parent, anyway, state(parent))).collect();
            self.found.get_or_insert(format!("task {task} {wrong}: {states:?}"));
        }
    }

    /// Nobody here waits for itself unless an app has said so: a list that is a ring, by whatever name and key, is refused and not stored.
    pub(super) fn check_rings(&mut self, before: &BTreeMap<i64, Row>) {
        let in_ring = |row: &Row| row.error.as_ref().is_some_and(|error| error.starts_with("depends on itself"));
        let new = self.rows.iter().filter(|(task, row)| !before.contains_key(task) && in_ring(row));
        let own = new.map(|(task, row)| (*task, row.error.clone())).find(|(task, _)| !self.is_above_touched(*task));
        if let Some((task, error)) = own {
            self.fail(format!("task {task} was stored and is dead at once: {error:?}"));
        }
    }

    /// A hand-out: what the task depends on has ended.
    pub(super) fn check_start(&mut self, task: i64) {
        if self.parents_touched(task) || self.requeued.contains(&task) {
            return;
        }
        let live = |(parent, _): &(i64, bool)| self.rows.get(parent).is_some_and(|row| !row.state.is_final());
        if let Some((parent, _)) = self.parents(task).into_iter().find(live) {
            self.fail(format!("task {task} starts before its parent {parent} has ended"));
        }
    }

    /// A row that has waited for nobody for longer than anything takes.
    pub(super) fn waits_in_vain(&mut self) -> Option<String> {
        let waits = |task: &i64| {
            let parents = self.parents(*task);
            parents.iter().all(|(parent, _)| self.rows.get(parent).is_none_or(|row| row.state.is_final()))
        };
        let waiting =
            self.rows.iter().filter(|(task, row)| row.state == TaskState::Waiting && !self.touched.contains(task));
        let vain: Vec<i64> = waiting.map(|(task, _)| *task).filter(waits).collect();
        self.waiting.vain.retain(|task, _| vain.contains(task));
        for task in vain {
            let since = *self.waiting.vain.entry(task).or_insert(self.now);
            if self.now.saturating_sub(since.max(self.disturbed)) > LATE_MS {
                return Some(format!("task {task} waits for nobody since {since}"));
            }
        }
        None
    }

    /// What was said of a group: no more has ended than the table shows.
    pub(super) fn check_group(&mut self, said: &GroupRow) {
        let group = i64::try_from(said.group).ok();
        let rows: Vec<(&i64, &Row)> = self.rows.iter().filter(|(_, row)| row.group == group).collect();
        if rows.iter().any(|(task, _)| self.touched.contains(task) || self.requeued.contains(task)) {
            return;
        }
        let ended = |wanted| rows.iter().filter(|(_, row)| row.state == wanted).count() as u64;
        let more = said.done > ended(TaskState::Done)
            || said.dead > ended(TaskState::Dead)
            || said.cancelled > ended(TaskState::Cancelled)
            || said.total() > rows.len() as u64;
        // Rows deleted by apps are missed by nobody here; nor are those that were pruned while the answer was on its way.
        if more && self.touched.is_empty() && !self.kept.prunes() {
            let found = format!("a group is said to be {said:?} and its rows are {rows:?}");
            self.found.get_or_insert(found);
        }
    }

    pub(super) fn parents(&self, task: i64) -> Vec<(i64, bool)> {
        self.edges.range((task, i64::MIN)..=(task, i64::MAX)).map(|((_, parent), anyway)| (*parent, *anyway)).collect()
    }

    /// An app may have closed a ring with an edge of its own, somewhere above.
    fn is_above_touched(&self, task: i64) -> bool {
        let (mut seen, mut next) = (BTreeSet::from([task]), vec![task]);
        while let Some(task) = next.pop() {
            if self.touched.contains(&task) {
                return true;
            }
            next.extend(self.parents(task).into_iter().map(|(parent, _)| parent).filter(|parent| seen.insert(*parent)));
        }
        false
    }

    /// An app, or a person who requeued, may have made anything of these.
    fn parents_touched(&self, task: i64) -> bool {
        let odd = |task: &i64| self.touched.contains(task) || self.requeued.contains(task);
        odd(&task) || self.parents(task).iter().any(|(parent, _)| odd(parent))
    }
}

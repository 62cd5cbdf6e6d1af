//! What the table may become: rows neither vanish nor come back to life, counters add up, no live key is shared, and what was
//! promised is there.

use std::collections::{BTreeMap, BTreeSet};

use laneway_broker::internals::Table;
use laneway_core::Now;
use laneway_protocol::TaskState;

use super::{Auditor, result};
use crate::row::rows;

impl Auditor {
    /// An app has written.
    pub(crate) fn on_table(&mut self, table: &Table) {
        (self.rows, self.edges) = (rows(table), table.edges());
        self.looks_on_rows();
    }

    pub(crate) fn turn_begins(&mut self, table: &Table, now: Now) {
        (self.rows, self.edges) = (rows(table), table.edges());
        self.cron_on_turn(table);
        self.waiting.begun = (now.wall.0, self.rows.clone());
        self.looks_on_rows();
    }

    /// The turn looked at everything that was there when it began.
    pub(crate) fn turn_is_whole(&mut self) {
        self.moving_when_whole();
        if self.disturbed <= self.now {
            self.waiting.whole = Some(self.waiting.begun.clone());
        }
    }

    /// The core has heard what the last turn found.
    pub(crate) fn turn_told(&mut self) {
        if let Some(whole) = self.waiting.whole.take() {
            self.waiting.since.retain(|task, _| whole.1.get(task).is_some_and(|row| row.state == TaskState::Queued));
            for (task, row) in whole.1.iter().filter(|(_, row)| row.state == TaskState::Queued && row.due <= whole.0) {
                let since = self.waiting.since.entry(*task).or_insert((self.now, row.runs));
                if since.1 != row.runs {
                    *since = (self.now, row.runs);
                }
            }
            self.waiting.told = whole;
        }
    }

    pub(crate) fn on_commit(&mut self, table: &Table, synced: bool) {
        let before = std::mem::replace(&mut self.rows, rows(table));
        self.looks_on_rows();
        self.check_tried(&before);
        self.on_said(&before);
        self.check_cancels(&before);
        let edges = std::mem::replace(&mut self.edges, table.edges());
        self.check_needed(&before, &edges);
        self.check_windows(&before);
        let replaced = self.check_keys(&before);
        self.check_replaced(&before, &replaced);
        self.check_checkpoints(&before, &replaced);
        self.check_rings(&before);
        self.check_joins(&before);
        for task in before.keys() {
            if let Some(new) = self.rows.get(task).cloned() {
                self.check_wait(*task, &before, &new);
            }
        }
        for (task, old) in &before {
            if self.touched.contains(task) {
                continue;
            }
            let Some(new) = self.rows.get(task).cloned() else {
                self.on_left(*task, old);
                continue;
            };
            self.on_moved(*task, old, &new);
            let requeue = self.requeued.contains(task);
            let revived = old.state.is_final() && new.state != old.state;
            if revived && !(requeue && old.state != TaskState::Done) {
                self.found.get_or_insert(format!("task {task} went from {} to {}", old.state, new.state));
            }
            let sum = new.attempts + new.losses + new.releases + i64::from(new.state == TaskState::Running);
            let extra = new.runs - sum;
            let nothing = self.leases.nothing.get(task).copied().unwrap_or(0);
            if new.runs < old.runs
                || extra < 0
                || (extra > nothing
                    && !requeue
                    && !new.cancel_requested
                    && !self.cancelled.contains(task)
                    && new.expires_at.is_none())
            {
                let found =
                    format!("task {task} does not add up, with {nothing} hand-outs that never arrived: {new:?}");
                self.found.get_or_insert(found);
            }
        }
        self.check_counts(&before);
        let mut keys = BTreeSet::new();
        for (task, row) in self.rows.iter().filter(|(_, row)| !row.state.is_final()) {
            if let Some(key) = &row.unique_key
                && !keys.insert((row.kind.clone(), key.clone()))
            {
                self.found.get_or_insert(format!("task {task} shares the key {key} of {} with a live one", row.kind));
            }
        }
        if synced {
            self.synced = self.rows.clone();
        }
        self.slots_on_commit(table, synced);
        self.check_promises();
    }

    pub(crate) fn on_power_loss(&mut self, table: &Table) {
        self.tally.power_cuts += 1;
        let before = std::mem::replace(&mut self.rows, rows(table));
        self.edges = table.edges();
        self.on_lost_rows(&before);
        self.checkpoints_on_power_loss();
        self.keys_on_power_loss();
        self.replaced_on_power_loss();
        self.synced = self.rows.clone();
        self.slots_on_power_loss(table);
        self.check_promises();
    }

    fn check_promises(&mut self) {
        self.check_purges();
        self.check_saved();
        let lost = self.promises.stored.iter().find(|task| !self.is_gone(**task) && !self.rows.contains_key(task));
        if let Some(task) = lost {
            self.fail(format!("task {task} was acknowledged and is not in the table"));
        }
        let is_there = |task: &i64, lease: i64| {
            let row = self.rows.get(task);
            row.is_some_and(|row| row.state == TaskState::Done && row.result == Some(result(lease)))
        };
        let mut done = self.promises.done.iter();
        if let Some((task, _)) = done.find(|(task, lease)| !self.is_gone(**task) && !is_there(task, **lease)) {
            let found = format!("task {task} was settled as done and the table says {:?}", self.rows.get(task));
            self.fail(found);
        }
    }

    /// Its row may be anything, or nothing.
    pub(super) fn is_gone(&self, task: i64) -> bool {
        self.touched.contains(&task) || self.edits.purged.contains(&task)
    }

    /// Nothing is left to write.
    pub(crate) fn same_as_the_table(&mut self) {
        if self.disturbed > self.now {
            return;
        }
        self.every_checkpoint_is_kept();
        let ours = |task: &&i64| !self.touched.contains(task);
        let told: BTreeMap<i64, i64> = (self.leases.sure.iter().filter(ours))
            .filter_map(|task| Some((*task, *self.leases.of.get(task)?.first()?)))
            .collect();
        let shown = self.rows.iter().filter(|(task, row)| row.state == TaskState::Running && ours(task));
        let shown: BTreeMap<i64, i64> = shown.map(|(task, row)| (*task, row.lease.unwrap_or(0))).collect();
        if told != shown {
            self.fail(format!("the broker has {told:x?} running and the table {shown:x?}"));
        }
    }
}

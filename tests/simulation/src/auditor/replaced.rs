//! Replacements: what a row is to do, and when, changes by a submit that says so and by nothing else, while nobody has the task; no run of
//! what was replaced counts, and a worker that outlived a crash with it is no exception.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{Op, Started};
use laneway_protocol::TaskState;
use laneway_protocol::message::NewTask;

use super::keys::payload_of;
use super::{Auditor, id};
use crate::row::Row;

/// Tasks and leases: hand-outs of what was replaced since.
#[derive(Debug, Default)]
pub(super) struct Void(BTreeSet<(i64, i64)>);

impl Void {
    pub(super) fn contains(&self, task: i64, lease: i64) -> bool {
        self.0.contains(&(task, lease))
    }
}

impl Auditor {
    /// Whether a replacement is still there shows in its row: no other queued row has anything for a lease.
    pub(super) fn replaced_on_power_loss(&mut self) {
        let rows = &self.rows;
        self.void.0.retain(|(task, _)| rows.get(task).is_some_and(|row| row.lease.is_some()));
    }

    pub(super) fn replaced_on_op(&mut self, op: &Op) {
        if let Op::Started(Started { task, lease, .. }) = op
            && self.void.contains(id(*task), lease.value())
        {
            self.fail(format!("task {task} runs with a payload that was replaced"));
        }
    }

    /// What a turn did to rows, and what it says of those that it `replaced`.
    pub(super) fn check_replaced(&mut self, before: &BTreeMap<i64, Row>, replaced: &BTreeMap<i64, NewTask>) {
        let wrong = before.iter().filter(|(task, _)| !self.is_gone(**task)).find_map(|(task, old)| {
            let row = self.rows.get(task)?;
            let wrong = match replaced.get(task) {
                Some(by) => self.wrong_replacement(*task, old, row, by),
                None => self.wrong_change(*task, old, row),
            };
            Some(format!("task {task} {}: {old:?} became {row:?}", wrong?))
        });
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
        for task in replaced.keys() {
            self.tally.replaced += 1;
            let of = self.leases.ever.iter().filter(|(_, (of, ..))| of == task);
            self.void.0.extend(of.map(|(lease, _)| (*task, *lease)));
        }
    }

    fn wrong_replacement(&self, task: i64, old: &Row, row: &Row, by: &NewTask) -> Option<&'static str> {
        let due = by.run_at.unwrap_or(row.created_at);
        if self.leases.sure.contains(&task) {
            Some("is replaced while a worker has it")
        } else if row.payload != payload_of(by) || old.state != TaskState::Queued {
            Some("is replaced by another")
        } else {
            (row.due != due && self.is_later(row)).then_some("is replaced and due at another time")
        }
    }

    fn wrong_change(&self, task: i64, old: &Row, row: &Row) -> Option<&'static str> {
        let is_put_off = row.due != old.due && self.is_later(row);
        let waits = [old, row].iter().all(|row| row.state == TaskState::Queued) && old.runs == row.runs;
        if row.payload == old.payload {
            (waits && is_put_off && !self.requeued.contains(&task)).then_some("is put off and is not replaced")
        } else {
            Some("has another payload and is not replaced")
        }
    }

    /// Whether it is due at some time to come. Whom somebody had run at once has no time of its own, and the clock may stand before the
    /// moment in which it was made.
    fn is_later(&self, row: &Row) -> bool {
        row.due > self.waiting.begun.0 && row.due != row.created_at
    }
}

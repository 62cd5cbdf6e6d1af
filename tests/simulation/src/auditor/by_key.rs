//! Waits by kind and key: who knows no id is told of the newest task with the key, one that was there when it asked or a newer one.

use laneway_core::ReplyTo;
use laneway_protocol::message::{WaitFor, Waited};

use super::{Auditor, id};
use crate::row::Row;

impl Auditor {
    pub(super) fn on_key_asked(&mut self, reply: ReplyTo, wait: &WaitFor) {
        if wait.kind.is_some() {
            let newest = self.rows.iter().rev().find(|(_, row)| has_key(row, wait)).map(|(task, _)| *task);
            self.by_key.insert(reply, newest);
        }
    }

    /// The task that a wait by key has found.
    pub(super) fn check_found(&mut self, reply: ReplyTo, wait: &WaitFor, waited: &Waited) {
        let Some(newest) = self.by_key.remove(&reply) else { return };
        self.tally.found_by_key += 1;
        let finals = waited.finals.iter().map(|end| end.task);
        let lists = [&waited.pending, &waited.pruned, &waited.not_found];
        let named: Vec<i64> = finals.chain(lists.into_iter().flatten().copied()).map(id).collect();
        let [task] = named[..] else {
            return self.fail(format!("{wait:?} is answered with {} tasks: {waited:?}", named.len()));
        };
        let is_another = self.rows.get(&task).is_some_and(|row| !has_key(row, wait));
        let is_older = newest.is_some_and(|newest| task < newest && !self.is_gone(newest));
        if (is_another || is_older) && !self.is_gone(task) {
            let row = self.rows.get(&task);
            self.fail(format!("{wait:?} finds task {task} though {newest:?} was there: {row:?}"));
        }
    }

    /// No task has the key.
    pub(super) fn check_not_found(&mut self, reply: ReplyTo, wait: &WaitFor) {
        let newest = self.by_key.remove(&reply).flatten();
        if let Some(newest) = newest.filter(|newest| !self.is_gone(*newest)) {
            self.fail(format!("{wait:?} finds nothing though task {newest} was there"));
        }
    }
}

pub(super) fn has_key(row: &Row, wait: &WaitFor) -> bool {
    wait.kind.as_ref().is_some_and(|kind| kind.as_str() == row.kind)
        && wait.unique_key.is_some()
        && wait.unique_key == row.unique_key
}

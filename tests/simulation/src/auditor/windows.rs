//! Windows: a done row stays for as long as somebody who was answered may ask for its key again.

use std::collections::BTreeMap;

use laneway_protocol::TaskState;
use laneway_protocol::message::{Submit, Submitted};

use super::{Auditor, id};
use crate::row::Row;

impl Auditor {
    pub(super) fn on_window_promised(&mut self, submit: &Submit, answer: &Submitted) {
        for (task, stored) in submit.tasks.iter().zip(&answer.tasks) {
            if let Some(ms) = task.unique_for_ms.and_then(|ms| i64::try_from(ms).ok()) {
                let window = self.windows.entry(id(stored.task)).or_default();
                *window = ms.max(*window);
            }
        }
    }

    /// No turn deletes a row within its window, by whoever's word.
    pub(super) fn check_windows(&mut self, before: &BTreeMap<i64, Row>) {
        let now = self.waiting.begun.0;
        let left = before.iter().filter(|(task, _)| !self.rows.contains_key(task) && !self.touched.contains(task));
        for (task, old) in left {
            let Some(window) = self.windows.get(task) else { continue };
            self.tally.windows_over += 1;
            if old.state == TaskState::Done && old.ended_at + window > now {
                self.found.get_or_insert(format!("task {task} is deleted within its window of {window} ms: {old:?}"));
            }
        }
    }
}

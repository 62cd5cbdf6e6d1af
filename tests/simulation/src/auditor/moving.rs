//! Rows of which something is on its way to the store. What such a row says in the middle of a turn, between its operations, nobody
//! outside sees.

use std::collections::BTreeSet;

use laneway_core::{Op, derive_key};
use laneway_protocol::TaskId;
use laneway_protocol::message::OnConflict;

use super::{Auditor, id};
use crate::row::Row;

#[derive(Debug, Default)]
pub(super) struct Moving {
    tasks: BTreeSet<i64>,
    /// Kinds and keys of which a submit may replace the row.
    keys: BTreeSet<(String, String)>,
}

impl Auditor {
    pub(super) fn moving_on_op(&mut self, op: &Op) {
        match op {
            Op::Started(started) => self.moves(&[started.task]),
            Op::Ended(ended) => self.moves(&[ended.task]),
            Op::Noted(noted) => self.moves(&[noted.task]),
            Op::Cancel(tasks) | Op::Requeue(tasks) | Op::Edit { tasks, .. } => self.moves(tasks),
            Op::CancelGroup { group, .. } => {
                let of_group = |row: &Row| row.group.is_some_and(|own| u64::try_from(own) == Ok(*group));
                let rows = self.rows.iter().filter(|(_, row)| of_group(row));
                self.moving.tasks.extend(rows.map(|(task, _)| *task));
            }
            Op::Submit { tasks, .. } => {
                for task in tasks.iter().filter(|task| task.on_conflict == OnConflict::Replace) {
                    let mut task = task.clone();
                    derive_key(&mut task);
                    self.moving.keys.extend(task.unique_key.map(|key| (task.kind.to_string(), key)));
                }
            }
            _ => {}
        }
    }

    pub(super) fn moves(&mut self, tasks: &[TaskId]) {
        self.moving.tasks.extend(tasks.iter().map(|task| id(*task)));
    }

    /// Whether a row can only be what the table shows before or after a turn.
    pub(super) fn stands_still(&self, task: i64, row: &Row) -> bool {
        let key = || row.unique_key.clone().map(|key| (row.kind.clone(), key));
        !self.moving.tasks.contains(&task) && !key().is_some_and(|key| self.moving.keys.contains(&key))
    }

    /// Nothing is on its way any more.
    pub(super) fn moving_when_whole(&mut self) {
        self.moving = Moving::default();
    }
}

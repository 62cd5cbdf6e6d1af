//! The model's rules for unique keys.

use std::sync::Arc;

use laneway_core::{FoundTask, Now, UnixMillis};
use laneway_protocol::message::{Held, NewTask, OnConflict, Stored};
use laneway_protocol::{Kind, Lease, TaskState};
use rusqlite::types::Value;

use super::cells::{cell, fair_key, found, int, sql, sql_payload, state, task_id, text};
use super::{Cells, Step};
use crate::store::validate::Bad;

impl Step<'_> {
    /// The row that stands for a task to be.
    pub(super) fn standing(&self, task: &NewTask, now: Now) -> Option<i64> {
        let unique_key = task.unique_key.as_ref()?;
        let has_key =
            |row: &Cells| text(row, "kind") == Some(task.kind.as_str()) && text(row, "unique_key") == Some(unique_key);
        let rows = || self.db.rows.iter().filter(|(_, row)| has_key(row));
        if let Some((id, _)) = rows().find(|(_, row)| !state(row).is_final()) {
            return Some(*id);
        }
        let unique_for_ms = i64::try_from(task.unique_for_ms?).unwrap();
        let (id, newest) = rows().next_back()?;
        let counts = state(newest) == TaskState::Done
            && int(newest, "finished_at").is_some_and(|at| at > now.wall.0.saturating_sub(unique_for_ms));
        counts.then_some(*id)
    }

    pub(super) fn find_twins(&self, keys: &[(Kind, String)]) -> Vec<FoundTask> {
        let twin = |(kind, key): &(Kind, String)| {
            self.db.live_twin(&Value::Text(kind.as_str().into()), &Value::Text(key.clone()))
        };
        keys.iter().filter_map(twin).filter_map(|id| found(id, &self.db.rows[&id], self.judge)).collect()
    }

    /// The row that stands for a task: kept, replaced, or a reason to refuse it. `before` are those of the same list.
    pub(super) fn meet(
        &mut self,
        task: &NewTask,
        twin: i64,
        before: &[Stored],
        secured: &[Held],
        now: Now,
    ) -> Result<Stored, Bad> {
        let own = before.iter().position(|stored| stored.new && sql(stored.task) == twin);
        if let (OnConflict::Replace, Some(number)) = (task.on_conflict, own) {
            return Err(Bad::replacing_own(task, number));
        }
        if task.on_conflict == OnConflict::Reject {
            let own = own.map(|number| format!("task number {number} of the same message"));
            return Err(Bad::taken(task, &own.unwrap_or_else(|| format!("task {twin}"))));
        }
        let mark = secured.iter().find(|held| sql(held.0) == twin).map(|held| held.1);
        let mark = mark.filter(|_| task.on_conflict == OnConflict::Replace);
        let replaced = mark.is_some_and(|mark| self.replace(task, twin, mark, now));
        self.keep_for(twin, task);
        Ok(Stored { replaced, ..Stored::met(task_id(twin)) })
    }

    /// A submit said again kept this row from being read ahead: its queue is told of it.
    pub(super) fn tell_again(&mut self, id: i64) {
        let queued = self.db.rows.get(&id).filter(|row| state(row) == TaskState::Queued);
        let Some((queue, fair_key)) =
            queued.map(|row| (self.judge.key(cell(row, "kind"), cell(row, "lane")), fair_key(row)))
        else {
            return;
        };
        if let Ok(queue) = queue {
            if fair_key.is_some() || self.rounds.knows(&queue) {
                self.news.turns.insert((queue.clone(), fair_key));
            }
            self.news.due.insert(queue);
        }
    }

    pub(super) fn keep_for(&mut self, id: i64, task: &NewTask) {
        if let Some(ms) = task.unique_for_ms {
            let kept = self.db.windows.entry(id).or_default();
            *kept = (*kept).max(i64::try_from(ms).unwrap());
        }
    }

    fn replace(&mut self, task: &NewTask, id: i64, mark: Lease, now: Now) -> bool {
        let row = self.db.rows.get_mut(&id).map(Arc::make_mut).unwrap();
        let Ok(queue) = self.judge.key(cell(row, "kind"), cell(row, "lane")) else { return false };
        if state(row) != TaskState::Queued {
            return false;
        }
        row.insert("payload", sql_payload(task.payload.as_ref()));
        row.insert("run_at", task.run_at.map_or(Value::Null, Value::Integer));
        row.insert("checkpoint", Value::Null);
        row.insert("lease", Value::Integer(mark.value()));
        let fair_key = fair_key(row);
        self.queued(queue, fair_key, task.run_at.map(UnixMillis), now);
        self.db.moved(id);
        true
    }
}

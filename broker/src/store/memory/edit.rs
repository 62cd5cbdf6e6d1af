//! The model of what people do to single tasks.

use std::sync::Arc;

use laneway_core::{Edit, Now, UnixMillis};
use laneway_protocol::message::Verdict;
use laneway_protocol::{LaneName, TaskState};
use rusqlite::types::Value;

use super::Step;
use super::cells::{cell, state, time};

impl Step<'_> {
    pub(super) fn edit(&mut self, edit: &Edit, id: i64, now: Now) -> Verdict {
        if !self.db.rows.contains_key(&id) {
            return Verdict::NotFound;
        }
        match edit {
            Edit::Requeue => self.requeue(id, now),
            Edit::Cancel => self.cancel(id, now),
            Edit::Purge => self.purge(id, now),
            Edit::Move(lane) => self.relane(id, lane, now),
            Edit::RunNow => self.run_now(id, now),
        }
    }

    fn purge(&mut self, id: i64, now: Now) -> Verdict {
        if !state(&self.db.rows[&id]).is_final() {
            return Verdict::Unchanged;
        }
        if self.db.delete(id, now) { Verdict::Purged } else { Verdict::Needed }
    }

    fn relane(&mut self, id: i64, lane: &LaneName, now: Now) -> Verdict {
        let row = self.db.rows.get_mut(&id).map(Arc::make_mut).unwrap();
        let was = state(row);
        let is_there = self.judge.key(cell(row, "kind"), cell(row, "lane")).is_ok_and(|key| key.lane == *lane);
        let text = Value::Text(lane.as_str().into());
        let to = self.judge.key(cell(row, "kind"), (&text).into());
        let Some(to) = to.ok().filter(|_| !is_there && matches!(was, TaskState::Queued | TaskState::Waiting)) else {
            return Verdict::Unchanged;
        };
        row.insert("lane", text);
        if was == TaskState::Queued {
            let run_at = time(row, "run_at").map(UnixMillis);
            self.queued(to, run_at, now);
        }
        Verdict::Moved
    }

    fn run_now(&mut self, id: i64, now: Now) -> Verdict {
        let row = self.db.rows.get_mut(&id).map(Arc::make_mut).unwrap();
        let is_later = time(row, "run_at").is_some_and(|at| at > now.wall.0);
        let key = self.judge.key(cell(row, "kind"), cell(row, "lane"));
        let Some(key) = key.ok().filter(|_| is_later && state(row) == TaskState::Queued) else {
            return Verdict::Unchanged;
        };
        row.insert("run_at", Value::Null);
        self.queued(key, None, now);
        Verdict::Due
    }
}

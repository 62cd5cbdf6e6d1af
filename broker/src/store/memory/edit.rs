//! The model of what people do to single tasks.

use std::sync::Arc;

use laneway_core::{BulkSlice, BulkSliced, Edit, Now, UnixMillis};
use laneway_protocol::message::{Verdict, error_line};
use laneway_protocol::{LaneName, TaskId, TaskState};
use rusqlite::types::Value;

use super::Step;
use super::cells::{cell, fair_key, int, sql, state, task_id, task_row, text, time};
use crate::store::cancel::CancelCause;

impl Step<'_> {
    pub(super) fn edit(&mut self, edit: &Edit, id: i64, now: Now) -> Verdict {
        if !self.db.rows.contains_key(&id) {
            return Verdict::NotFound;
        }
        match edit {
            Edit::Requeue => self.requeue(id, now),
            Edit::Cancel => self.cancel(id, CancelCause::Asked, now),
            Edit::Abandon => self.cancel(id, CancelCause::Abandoned, now),
            Edit::Purge => self.purge(id, now),
            Edit::Move(lane) => self.relane(id, lane, now),
            Edit::RunNow => self.run_now(id, now),
        }
    }

    pub(super) fn bulk(&mut self, slice: &BulkSlice, now: Now) -> BulkSliced {
        let until = slice.until.or_else(|| TaskId::new(self.db.newest_id.unsigned_abs()));
        let (after, last) = (slice.after.map_or(0, sql), until.map_or(0, sql));
        let mut sliced = BulkSliced { verdicts: Vec::new(), at: slice.after, until, over: false };
        let ids: Vec<i64> = self.db.rows.range(after + 1..).map(|(id, _)| *id).take_while(|id| *id <= last).collect();
        for id in ids {
            sliced.at = Some(task_id(id));
            if !self.meets(id, slice) {
                continue;
            }
            let before = slice.dry_run.then(|| (self.db.clone(), self.news.clone(), self.suspects.clone()));
            sliced.verdicts.push((task_id(id), self.edit(&slice.edit, id, now)));
            if let Some(before) = before {
                (*self.db, *self.news, *self.suspects) = before;
            }
            if sliced.verdicts.len() == slice.rows {
                return sliced;
            }
        }
        (sliced.at, sliced.over) = (until, true);
        sliced
    }

    fn meets(&self, id: i64, slice: &BulkSlice) -> bool {
        let row = &self.db.rows[&id];
        let (shown, filter) = (task_row(id, row, &self.judge.rules), &slice.filter);
        let at = time(row, "finished_at").or(time(row, "created_at"));
        filter.state.is_none_or(|state| shown.state == state)
            && filter.kind.as_ref().is_none_or(|kind| *kind == shown.kind)
            && filter.lane.as_ref().is_none_or(|lane| shown.lane.as_ref() == Some(lane))
            && slice.before.is_none_or(|before| at.is_some_and(|at| at <= before.0))
            && filter.error.as_ref().is_none_or(|wanted| text(row, "error").is_some_and(|text| text.contains(wanted)))
            && filter
                .error_line
                .as_ref()
                .is_none_or(|wanted| error_line(text(row, "error").unwrap_or_default()) == error_line(wanted))
            && filter.unique_key.as_deref().is_none_or(|key| text(row, "unique_key") == Some(key))
            && filter.fair_key.as_deref().is_none_or(|key| text(row, "fair_key") == Some(key))
            && filter.group.is_none_or(|group| int(row, "group_id").is_some_and(|own| u64::try_from(own) == Ok(group)))
            && (filter.workers.is_empty()
                || text(row, "worker").is_some_and(|own| filter.workers.iter().any(|worker| own.starts_with(worker))))
            && filter.attempts_min.is_none_or(|min| int(row, "attempts").is_some_and(|own| own >= i64::from(min)))
            && filter.attempts_max.is_none_or(|max| int(row, "attempts").is_some_and(|own| own <= i64::from(max)))
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
        let name = Value::Text(lane.as_str().into());
        let to = self.judge.key(cell(row, "kind"), (&name).into());
        let Some(to) = to.ok().filter(|_| !is_there && matches!(was, TaskState::Queued | TaskState::Waiting)) else {
            return Verdict::Unchanged;
        };
        row.insert("lane", name);
        if was == TaskState::Queued {
            let run_at = time(row, "run_at").map(UnixMillis);
            let fair_key = fair_key(row);
            self.queued(to, fair_key, run_at, now);
            self.db.moved(id);
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
        let fair_key = fair_key(row);
        self.queued(key, fair_key, None, now);
        self.db.moved(id);
        Verdict::Due
    }
}

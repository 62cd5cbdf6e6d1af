//! The model's queues: intake, load and sweep look through all rows.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use laneway_core::{Now, QueueKey, QueuedTask, UnixMillis};
use laneway_protocol::message::Final;
use laneway_protocol::{TaskId, TaskState};
use rusqlite::types::Value;

use super::cells::{cancel_cause, cell, fair_key, group, int, payload, requested, state, task_id, text, time, values};
use super::{Cells, Failure, QueueSpelling, Step};
use crate::store::fair::{RawKey, Rows, load_by_turns};
use crate::store::validate::{Bad, Good};
use crate::store::{Intake, Load, LoadedRows, StoreError, Swept, Unstarted};

impl Step<'_> {
    pub(super) fn intake(&mut self, rows: usize, now: Now) -> Intake {
        for id in self.db.moved.iter().copied().take(rows).collect::<Vec<_>>() {
            self.db.moved.remove(&id);
            let is_queued = self.db.rows.get(&id).is_some_and(|row| state(row) == TaskState::Queued);
            if let Some((key, good)) = is_queued.then(|| self.judged(id).ok()).flatten() {
                self.queued(key, fair_key(&self.db.rows[&id]), good.run_at, now);
            }
        }
        let ids: Vec<i64> = self.db.rows.range(self.news.watermark + 1..).map(|(id, _)| *id).take(rows).collect();
        let mut found = Intake { rows: ids.len(), ..Intake::default() };
        // Rejected when all were looked at, for one of them may wait for another.
        let mut bad = Vec::new();
        for id in ids {
            self.news.watermark = id;
            self.news.rows += 1;
            let row = &self.db.rows[&id];
            match state(row) {
                TaskState::Queued => match self.judged(id) {
                    Ok((key, good)) => self.queued(key, fair_key(&self.db.rows[&id]), good.run_at, now),
                    Err(reason) => bad.push((id, reason)),
                },
                TaskState::Waiting => match self.judged(id) {
                    Ok(_) => self.waits(id),
                    Err(reason) => bad.push((id, reason)),
                },
                _ => {}
            }
        }
        for (id, reason) in bad {
            found.rejected.push(self.reject(id, &reason, now));
        }
        found.rejected.extend(self.resolve(now));
        found.due = std::mem::take(&mut self.news.due).into_iter().collect();
        found.later = std::mem::take(&mut self.news.later).into_iter().collect();
        found.let_go = std::mem::take(&mut self.news.let_go);
        found.turns = std::mem::take(&mut self.news.turns).into_iter().collect();
        found.turns_later = std::mem::take(&mut self.news.turns_later).into_iter().collect();
        found
    }

    fn judged(&self, id: i64) -> Result<(QueueKey, Good), Bad> {
        let row = &self.db.rows[&id];
        let key = self.judge.key(cell(row, "kind"), cell(row, "lane"))?;
        Ok((key, self.judge.values(&values(row))?))
    }

    pub(super) fn load(&mut self, load: Load<'_>, now: Now) -> LoadedRows {
        let mut loaded = LoadedRows::default();
        let of_queue = self.db.rows.values().filter(|row| self.belongs(row, load.key));
        if of_queue.clone().any(|row| row["fair_key"] != Value::Null) {
            self.load_by_turns(load, &mut loaded, now);
        } else {
            self.rounds.forget(load.key);
            self.load_in_line(load, &mut loaded, now);
        }
        // Of rows with keys in any state, as SQLite's index has them: earlier than need be does no harm.
        let counts = |row: &Cells| state(row) == TaskState::Queued || row["fair_key"] != Value::Null;
        let rows = self.db.rows.values().filter(|row| counts(row) && self.is_named(row, load.key));
        let times = rows.filter_map(|row| time(row, "run_at").filter(|at| *at > now.wall.0));
        loaded.next_at = times.min().map(UnixMillis);
        loaded
    }

    fn load_by_turns(&mut self, load: Load<'_>, loaded: &mut LoadedRows, now: Now) {
        let mut cursor = std::mem::take(self.rounds.cursor(load.key));
        let keys = self.due_keys(load.key, now);
        let mut rows = Keyed { step: self, load, now, rejected: Vec::new(), lines: BTreeMap::new() };
        load_by_turns(&mut rows, &mut cursor, &keys, load, loaded).expect("the model fails at nothing");
        loaded.rejected.append(&mut rows.rejected);
        *self.rounds.cursor(load.key) = cursor;
    }

    fn due_keys(&self, queue: &QueueKey, now: Now) -> BTreeSet<RawKey> {
        let rows = self.db.rows.values().filter(|row| self.belongs(row, queue));
        let due =
            |row: &&Arc<Cells>| row["run_at"] == Value::Null || time(row, "run_at").is_some_and(|at| at <= now.wall.0);
        rows.filter(due).map(|row| cell(row, "fair_key").into()).filter(|key| *key != RawKey::None).collect()
    }

    fn load_in_line(&mut self, load: Load<'_>, loaded: &mut LoadedRows, now: Now) {
        let mut streams = self.streams(load, &RawKey::None, now);
        let mut bytes = 0;
        loop {
            for stream in &mut streams {
                while loaded.tasks.len() < load.rows
                    && let Some((_, id)) = stream.first().copied()
                    && let Some(ended) = self.unfit(id, now)
                {
                    loaded.rejected.push(ended);
                    stream.remove(0);
                }
            }
            let next = streams.iter_mut().filter(|stream| !stream.is_empty()).min_by_key(|stream| stream[0]);
            let Some(next) = next.filter(|_| loaded.tasks.len() < load.rows) else { break };
            let task = self.task(next[0].1);
            let size = task.payload.as_ref().map_or(0, |payload| payload.bytes.len());
            if !loaded.tasks.is_empty() && bytes + size > load.bytes {
                break;
            }
            bytes += size;
            next.remove(0);
            loaded.tasks.push(task);
        }
        loaded.more = streams.iter().any(|stream| !stream.is_empty());
    }

    /// Due rows as (due, id): at once or at a time, with the lane spelled out or not, each in its own order.
    fn streams(&self, load: Load<'_>, key: &RawKey, now: Now) -> Vec<Vec<(i64, i64)>> {
        let mut streams = vec![Vec::new(); 4];
        for (id, row) in &self.db.rows {
            let skipped = TaskId::new(id.unsigned_abs()).is_none_or(|task| (load.skip)(task));
            if skipped || !self.belongs(row, load.key) || RawKey::from(cell(row, "fair_key")) != *key {
                continue;
            }
            let lane = usize::from(row["lane"] == Value::Null) * 2;
            if row["run_at"] == Value::Null {
                streams[lane].push((int(row, "created_at").unwrap_or(0), *id));
            } else {
                let due = time(row, "run_at").filter(|at| *at <= now.wall.0);
                streams[lane + 1].extend(due.map(|at| (at, *id)));
            }
        }
        streams[1].sort_unstable();
        streams[3].sort_unstable();
        streams
    }

    fn belongs(&self, row: &Cells, key: &QueueKey) -> bool {
        state(row) == TaskState::Queued && self.is_named(row, key)
    }

    /// Whether the row has this kind and lane.
    fn is_named(&self, row: &Cells, key: &QueueKey) -> bool {
        text(row, "kind") == Some(key.kind.as_str())
            && match &row["lane"] {
                Value::Null => self.judge.rules.lane_of(&key.kind) == &key.lane,
                Value::Text(lane) => lane == key.lane.as_str(),
                _ => false,
            }
    }

    /// Ends a row at the head that is not to be handed out.
    fn unfit(&mut self, id: i64, now: Now) -> Option<Unstarted> {
        let row = &self.db.rows[&id];
        let good = match self.judge.values(&values(row)) {
            Ok(good) => good,
            Err(bad) => return Some(self.reject(id, &bad, now)),
        };
        if let Some(cause) = cancel_cause(row) {
            return Some(self.cancelled(id, cause.reason(), now));
        }
        let expired = good.runs == 0 && good.expires_at.is_some_and(|at| at <= now.wall);
        expired.then(|| self.cancelled(id, Some("expired"), now))
    }

    fn task(&self, id: i64) -> QueuedTask {
        let row = &self.db.rows[&id];
        let good = self.judge.values(&values(row)).unwrap();
        QueuedTask {
            id: task_id(id),
            due: good.run_at.unwrap_or(good.created_at),
            created_at: good.created_at,
            runs: good.runs,
            attempts: good.attempts,
            losses: good.losses,
            max_attempts: good.max_attempts,
            timeout_ms: good.timeout_ms,
            expires_at: good.expires_at,
            payload: payload(&row["payload"]),
            checkpoint: payload(&row["checkpoint"]),
            trace: text(row, "trace").map(str::to_owned),
            fair_key: fair_key(row),
            group: group(row),
        }
    }

    pub(super) fn sweep(&mut self, suspects: &HashSet<QueueSpelling>, now: Now) -> Swept {
        let mut swept = Swept::default();
        let ids: Vec<i64> = self.db.rows.keys().copied().collect();
        for id in ids {
            let row = &self.db.rows[&id];
            let (state, runs) = (state(row), int(row, "runs"));
            let unstarted = matches!(state, TaskState::Waiting | TaskState::Queued);
            let number = |column| matches!(row[column], Value::Null | Value::Integer(_) | Value::Real(_));
            let misplaced = matches!(row["kind"], Value::Blob(_))
                || matches!(row["lane"], Value::Blob(_))
                || !number("run_at")
                || !number("expires_at");
            let spelling = match (&row["lane"], &row["kind"]) {
                (Value::Null, Value::Text(kind)) => Some((None, kind.clone())),
                (Value::Text(lane), Value::Text(kind)) => Some((Some(lane.clone()), kind.clone())),
                _ => None,
            };
            let suspect = state == TaskState::Queued && spelling.is_some_and(|spelling| suspects.contains(&spelling));
            let expired = runs == Some(0) && int(row, "expires_at").is_some_and(|at| at <= now.wall.0);
            let cancel = cancel_cause(row);
            if let Some(cause) = cancel.filter(|_| unstarted) {
                swept.ended.push(self.cancelled(id, cause.reason(), now));
            } else if unstarted && (misplaced || suspect) {
                let bad = self.judged(id).unwrap_err();
                swept.ended.push(self.reject(id, &bad, now));
            } else if unstarted && expired {
                // A time in seconds is long past, too, and a mistake.
                swept.ended.push(match self.judged(id) {
                    Ok(_) => self.cancelled(id, Some("expired"), now),
                    Err(bad) => self.reject(id, &bad, now),
                });
            } else if unstarted && runs == Some(0) {
                let at = int(row, "expires_at").map(UnixMillis);
                swept.next_at = swept.next_at.into_iter().chain(at).min();
            }
        }
        swept.ended.extend(self.reject_running_without_lease(now));
        let rows = self.db.rows.iter();
        let running = rows.filter(|(_, row)| state(row) == TaskState::Running && requested(row));
        swept.cancel_requested = running.map(|(id, _)| task_id(*id)).collect();
        swept
    }

    pub(super) fn reject_running_without_lease(&mut self, now: Now) -> Vec<Unstarted> {
        let rows = self.db.rows.iter();
        let bare = rows.filter(|(_, row)| state(row) == TaskState::Running && int(row, "lease").is_none());
        let ids: Vec<i64> = bare.map(|(id, _)| *id).collect();
        let reason = "state is 'running' without a lease: only the broker starts tasks; insert no state";
        ids.iter().map(|id| self.reject(*id, &Bad::new("lease", reason.into()), now)).collect()
    }

    pub(super) fn reject(&mut self, id: i64, bad: &Bad, now: Now) -> Unstarted {
        let key = self.key_of(id);
        let row = self.db.rows.get_mut(&id).map(Arc::make_mut).unwrap();
        row.insert("state", Value::Text("dead".into()));
        row.insert("finished_at", Value::Integer(now.wall.0));
        row.insert("error", Value::Text(bad.reason.clone()));
        let run = u32::try_from(int(row, "runs").unwrap_or(0)).unwrap_or(0);
        self.ended(id);
        self.db.fail(Failure { task: id, run, cause: "rejected", worker: None, error: bad.reason.clone() });
        let error = Some(bad.reason.clone());
        Unstarted { end: Final { task: task_id(id), state: TaskState::Dead, result: None, error }, key }
    }

    fn key_of(&self, id: i64) -> Option<QueueKey> {
        let row = &self.db.rows[&id];
        self.judge.key(cell(row, "kind"), cell(row, "lane")).ok()
    }

    pub(super) fn cancelled(&mut self, id: i64, error: Option<&str>, now: Now) -> Unstarted {
        let key = self.key_of(id);
        let row = self.db.rows.get_mut(&id).map(Arc::make_mut).unwrap();
        row.insert("state", Value::Text("cancelled".into()));
        row.insert("finished_at", Value::Integer(now.wall.0));
        row.insert("error", error.map_or(Value::Null, |error| Value::Text(error.into())));
        let error = error.map(str::to_owned);
        self.ended(id);
        Unstarted { end: Final { task: task_id(id), state: TaskState::Cancelled, result: None, error }, key }
    }
}

/// The rows of a queue by their keys.
struct Keyed<'a, 's> {
    step: &'a mut Step<'s>,
    load: Load<'a>,
    now: Now,
    rejected: Vec<Unstarted>,
    /// As [`Step::streams`] gives them.
    lines: BTreeMap<RawKey, Vec<Vec<(i64, i64)>>>,
}

impl Keyed<'_, '_> {
    fn first(&self, key: &RawKey) -> Option<(usize, i64)> {
        let streams = self.lines[key].iter().enumerate().filter_map(|(n, stream)| Some((stream.first()?, n)));
        streams.min().map(|((_, id), n)| (n, *id))
    }
}

impl Rows for Keyed<'_, '_> {
    fn is_due(&mut self, key: &RawKey) -> Result<bool, StoreError> {
        Ok(self.step.due_keys(self.load.key, self.now).contains(key))
    }

    fn peek(&mut self, key: &RawKey) -> Result<Option<usize>, StoreError> {
        if !self.lines.contains_key(key) {
            self.lines.insert(key.clone(), self.step.streams(self.load, key, self.now));
        }
        for stream in self.lines.get_mut(key).unwrap() {
            while let Some((_, id)) = stream.first().copied()
                && let Some(ended) = self.step.unfit(id, self.now)
            {
                self.rejected.push(ended);
                stream.remove(0);
            }
        }
        let size = |(_, id)| self.step.task(id).payload.as_ref().map_or(0, |payload| payload.bytes.len());
        Ok(self.first(key).map(size))
    }

    fn pop(&mut self, key: &RawKey) -> QueuedTask {
        let (stream, id) = self.first(key).unwrap();
        self.lines.get_mut(key).unwrap()[stream].remove(0);
        self.step.task(id)
    }
}

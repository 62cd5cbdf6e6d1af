//! The model's operations on single tasks: their life, submits and people's commands.

use std::borrow::Cow;
use std::sync::Arc;

use laneway_core::{
    Cause, Count, Ended, EndedAs, MARK_MAX, Next, Noted, NotedAs, Now, Op, OpResult, QueueKey, Started, UnixMillis,
};
use laneway_protocol::message::{FairKeyValues, KindValues, LaneValues, NewTask, Stored, Verdict};
use laneway_protocol::{FairKey, RequestId, TaskState};
use rusqlite::types::Value;

use super::cells::{cancel_cause, cell, fair_key, found, int, requested, sql, sql_payload, state, task_id, text};
use super::groups::NewList;
use super::{Cells, Failure, Step};
use crate::store::KnownSession;
use crate::store::cancel::CancelCause;
use crate::store::validate::Bad;
impl Step<'_> {
    pub(super) fn op(&mut self, op: &Op, now: Now) -> Option<OpResult> {
        Some(match op {
            Op::Started(started) => {
                self.start(started);
                return None;
            }
            Op::Ended(ended) => OpResult::Ended(self.end(ended, now)),
            Op::Noted(noted) => OpResult::Noted(self.note(noted)),
            Op::Submit { request, tasks, group, secured } => {
                let list = NewList { tasks, group: group.as_deref(), spawned_by: None, secured };
                self.submit(*request, list, now)
            }
            Op::Group { group, live } => OpResult::Group(self.group(*group, *live)),
            Op::CancelGroup { group, rows } => OpResult::GroupCancelled { more: self.cancel_group(*group, *rows) },
            Op::Parents { task, after, rows, .. } => self.parents(sql(*task), *after, *rows),
            Op::Cancel(tasks) => {
                OpResult::Verdicts(tasks.iter().map(|task| self.cancel(sql(*task), CancelCause::Asked, now)).collect())
            }
            Op::Requeue(tasks) => OpResult::Verdicts(tasks.iter().map(|task| self.requeue(sql(*task), now)).collect()),
            Op::Edit { edit, tasks } => {
                OpResult::Verdicts(tasks.iter().map(|task| self.edit(edit, sql(*task), now)).collect())
            }
            Op::Bulk(slice) => OpResult::Bulk(self.bulk(slice, now)),
            Op::Find(tasks) => {
                let rows = tasks.iter().filter_map(|task| Some((sql(*task), self.db.rows.get(&sql(*task))?)));
                OpResult::Found(rows.filter_map(|(id, row)| found(id, row, self.judge)).collect())
            }
            Op::FindKey { kind, unique_key } => {
                let mut rows = self.db.rows.iter().rev();
                let row = rows.find(|(_, row)| {
                    text(row, "kind") == Some(kind.as_str()) && text(row, "unique_key") == Some(unique_key)
                });
                OpResult::Found(row.and_then(|(id, row)| found(*id, row, self.judge)).into_iter().collect())
            }
            Op::FindTwins(keys) => OpResult::Found(self.find_twins(keys)),
            Op::Endings(tasks) => OpResult::Endings(self.endings(tasks)),
            Op::List(filter) => OpResult::Rows(self.list(filter)),
            Op::Show { tasks, detail } => OpResult::Rows(self.show(tasks, *detail, now)),
            Op::Counts => OpResult::Counts(self.counts()),
            Op::SessionUp { session, name, plain } => {
                let known = KnownSession { session: session.as_str().into(), name: name.clone(), plain: *plain };
                self.db.sessions.insert(known.session.clone(), known);
                return None;
            }
            Op::SessionGone { session } => {
                self.db.sessions.remove(session.as_str());
                return None;
            }
            Op::PauseLane { lane, paused } => {
                if let Some(lane) = self.db.lanes.get_mut(lane.as_str()) {
                    *lane = *paused;
                }
                OpResult::Paused
            }
            Op::SetKind { kind, paused, values } => {
                if *paused || *values != KindValues::default() {
                    self.db.kinds.insert(kind.clone(), (*paused, values.clone()));
                } else {
                    self.db.kinds.remove(kind);
                }
                OpResult::Set
            }
            Op::SetLane { lane, values } => {
                if *values == LaneValues::default() {
                    self.db.lane_values.remove(lane);
                } else if self.db.lanes.contains_key(lane.as_str()) {
                    self.db.lane_values.insert(lane.clone(), values.clone());
                }
                OpResult::Set
            }
            Op::SetFairKey { fair_key, values } => {
                if *values == FairKeyValues::default() {
                    self.db.fair_keys.remove(fair_key);
                } else {
                    self.db.fair_keys.insert(fair_key.clone(), values.clone());
                }
                OpResult::Set
            }
            Op::Schedules(asked) => self.ask_schedules(asked, now),
        })
    }

    pub(super) fn queued(&mut self, key: QueueKey, fair_key: Option<FairKey>, run_at: Option<UnixMillis>, now: Now) {
        if fair_key.is_some() || self.rounds.knows(&key) {
            match run_at.filter(|at| *at > now.wall) {
                None => drop(self.news.turns.insert((key.clone(), fair_key))),
                Some(at) => drop(self.news.turns_later.insert((at, key.clone(), fair_key))),
            }
        }
        match run_at.filter(|at| *at > now.wall) {
            None => drop(self.news.due.insert(key)),
            Some(at) => {
                let known = self.news.later.entry(key).or_insert(at);
                *known = at.min(*known);
            }
        }
    }

    fn start(&mut self, started: &Started) {
        let fits =
            |row: &&mut Cells| state(row) == TaskState::Queued && int(row, "runs") == Some(i64::from(started.run) - 1);
        let rows = &mut self.db.rows;
        if let Some(row) = rows.get_mut(&sql(started.task)).map(Arc::make_mut).filter(fits) {
            row.insert("state", Value::Text("running".into()));
            row.insert("lease", Value::Integer(started.lease.value()));
            row.insert("runs", Value::Integer(started.run.into()));
            row.insert("worker", Value::Text(started.worker.as_str().into()));
            row.insert("started_at", Value::Integer(started.at.0));
            return;
        }
        let same = |row: &mut Cells| {
            int(row, "lease") == Some(started.lease.value()) && int(row, "runs") == Some(started.run.into())
        };
        if rows.get_mut(&sql(started.task)).map(Arc::make_mut).is_some_and(same) {
            return;
        }
        self.db.overtaken += 1;
        let is_next = |row: &&mut Cells| {
            let is_over = matches!(state(row), TaskState::Done | TaskState::Dead | TaskState::Cancelled);
            is_over && int(row, "runs") == Some(i64::from(started.run) - 1)
        };
        if let Some(row) = rows.get_mut(&sql(started.task)).map(Arc::make_mut).filter(is_next) {
            row.insert("runs", Value::Integer(started.run.into()));
        }
    }

    fn end(&mut self, ended: &Ended, now: Now) -> EndedAs {
        if ended.next == Next::Already {
            return self.already(ended, now);
        }
        let list = NewList { tasks: &ended.spawn, spawned_by: Some(sql(ended.task)), ..NewList::default() };
        let before = (self.db.clone(), self.news.clone());
        let spawned = self.insert_list(list, now);
        if spawned.is_err() || self.db.rows.get(&sql(ended.task)).is_none_or(|row| !runs_under(row, ended)) {
            (*self.db, *self.news) = before;
        }
        if let Err((index, bad)) = spawned {
            let reason = format!("spawned task {index} makes no sense: {}", bad.reason);
            return match self.write(&failed(ended, &reason), now) {
                Some(state) => EndedAs::SpawnRefused { state, reason },
                None => self.look_again(ended),
            };
        }
        match self.write(ended, now) {
            Some(written) => EndedAs::Written(written),
            None => self.look_again(ended),
        }
    }

    fn already(&mut self, ended: &Ended, now: Now) -> EndedAs {
        match self.db.rows.get(&sql(ended.task)) {
            Some(row) if runs_under(row, ended) => {
                let reason = "the worker said that it had finished the row by SQL, and the row was still running";
                EndedAs::Written(self.write(&failed(ended, reason), now).unwrap())
            }
            Some(row) if state(row).is_final() => {
                let state = state(row);
                self.ended(sql(ended.task));
                EndedAs::Recorded(state)
            }
            _ => self.look_again(ended),
        }
    }

    fn write(&mut self, ended: &Ended, now: Now) -> Option<TaskState> {
        let id = sql(ended.task);
        let row = self.db.rows.get_mut(&id).map(Arc::make_mut)?;
        if state(row) != TaskState::Running || int(row, "lease") != Some(ended.lease.value()) {
            return None;
        }
        let cancel = cancel_cause(row);
        let next = match (&ended.next, cancel.is_some()) {
            (Next::Done(_), _) => TaskState::Done,
            (_, true) | (Next::Cancelled, _) => TaskState::Cancelled,
            (Next::Dead, _) => TaskState::Dead,
            (Next::Queued { .. }, _) => TaskState::Queued,
            (Next::Already, _) => unreachable!("looked at before"),
        };
        row.insert("state", Value::Text(next.as_str().into()));
        let mut misplaced = None;
        let column = match ended.count {
            Count::Attempt => Some("attempts"),
            Count::Loss => Some("losses"),
            Count::Release => Some("releases"),
            Count::Nothing => None,
        };
        if let Some(column) = column {
            row.insert(column, Value::Integer(int(row, column).unwrap() + 1));
        }
        let mut error = ended.error.clone();
        if let Some(cause) = cancel.filter(|_| next == TaskState::Cancelled) {
            error = cause.error_of_run(error.as_deref(), ended.cause.is_some()).map(Cow::into_owned);
        }
        let error = error.map_or(Value::Null, Value::Text);
        if let Next::Queued { run_at } = ended.next {
            if let Some(at) = run_at.filter(|_| next == TaskState::Queued) {
                row.insert("run_at", Value::Integer(at.0));
            }
            if error != Value::Null {
                row.insert("error", error);
            }
        } else {
            let result = if let Next::Done(result) = &ended.next { result.as_ref() } else { None };
            row.insert("error", error);
            row.insert("result", sql_payload(result));
        }
        if next == TaskState::Queued {
            row.insert("lease", Value::Null);
            row.insert("finished_at", Value::Null);
            let run_at = int(row, "run_at").map(UnixMillis);
            let fair_key = fair_key(row);
            // An app may have moved the row while it ran.
            match self.judge.key(cell(row, "kind"), cell(row, "lane")) {
                Ok(key) => self.queued(key, fair_key, run_at, now),
                Err(bad) => misplaced = Some(bad),
            }
        } else {
            row.insert("finished_at", Value::Integer(ended.at.0));
            self.ended(id);
        }
        if let Some(cause) = ended.cause {
            let error = ended.error.clone().unwrap_or_else(|| cause.as_str().into());
            let worker = Some(ended.worker.to_string());
            self.db.fail(Failure { task: id, run: ended.run, cause: cause.as_str(), worker, error });
            if cause == Cause::Lost && next == TaskState::Dead {
                self.name_workers(id);
            }
        }
        if let Some(bad) = misplaced {
            self.reject(id, &bad, now);
            return Some(TaskState::Dead);
        }
        Some(next)
    }

    fn name_workers(&mut self, id: i64) {
        let lost = self.db.failures.iter().filter(|failure| failure.task == id && failure.cause == "lost");
        let workers: Vec<String> = lost.filter_map(|failure| failure.worker.clone()).collect();
        let row = self.db.rows.get_mut(&id).map(Arc::make_mut).expect("the row was just written");
        if let Value::Text(error) = &mut row.get_mut("error").expect("every row has it") {
            error.push_str("; workers it took down: ");
            error.push_str(&workers.join(", "));
        }
    }

    fn look_again(&mut self, ended: &Ended) -> EndedAs {
        if self.state_of(sql(ended.task)).is_some_and(TaskState::is_final) {
            self.ended(sql(ended.task));
        }
        if let Some(row) = self.db.rows.get(&sql(ended.task)) {
            let same_end = state(row).is_final() && int(row, "lease") == Some(ended.lease.value());
            let same_return = state(row) == TaskState::Queued
                && matches!(ended.next, Next::Queued { .. })
                && int(row, "runs") == Some(ended.run.into())
                && text(row, "worker") == Some(ended.worker.as_str());
            if same_end || same_return {
                return EndedAs::Recorded(state(row));
            }
        }
        self.db.overtaken += 1;
        EndedAs::Overtaken
    }

    fn note(&mut self, noted: &Noted) -> NotedAs {
        let row = self.db.rows.get_mut(&sql(noted.task)).map(Arc::make_mut);
        let runs =
            |row: &&mut Cells| state(row) == TaskState::Running && int(row, "lease") == Some(noted.lease.value());
        let Some(row) = row.filter(runs) else { return NotedAs::Overtaken };
        let number = |n: Option<u64>| n.map(|n| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX)));
        let checkpoint = noted.checkpoint.as_ref().map(|checkpoint| sql_payload(Some(checkpoint)));
        let cells = [
            ("progress_done", number(noted.done)),
            ("progress_total", number(noted.total)),
            ("progress_note", noted.note.clone().map(Value::Text)),
            ("checkpoint", checkpoint),
        ];
        row.extend(cells.into_iter().filter_map(|(column, value)| Some((column, value?))));
        NotedAs::Written
    }

    fn submit(&mut self, request: RequestId, list: NewList<'_>, now: Now) -> OpResult {
        if let Some((at, stored, group)) = self.db.requests.get(&request.0)
            && *at > now.wall.0 - 600_000
        {
            let again = submitted(stored.clone(), *group);
            list.secured.iter().for_each(|held| self.tell_again(sql(held.0)));
            return again;
        }
        let before = (self.db.clone(), self.news.clone());
        match self.insert_list(list, now) {
            Ok((stored, group)) => {
                self.db.requests.insert(request.0, (now.wall.0, stored.clone(), group));
                submitted(stored, group)
            }
            Err((index, Bad { field, reason })) => {
                (*self.db, *self.news) = before;
                OpResult::Refused { index, field, reason }
            }
        }
    }

    /// A row without what it waits for.
    pub(super) fn insert(&mut self, task: &NewTask, waits: bool, group: Option<i64>, now: Now) -> Stored {
        let int = |value: Option<i64>| value.map_or(Value::Null, Value::Integer);
        let text = |value: &Option<String>| value.clone().map_or(Value::Null, Value::Text);
        let cells = [
            ("kind", Value::Text(task.kind.as_str().into())),
            ("lane", task.lane.as_ref().map_or(Value::Null, |lane| Value::Text(lane.as_str().into()))),
            ("payload", sql_payload(task.payload.as_ref())),
            ("run_at", int(task.run_at)),
            ("unique_key", text(&task.unique_key)),
            ("max_attempts", int(task.max_attempts.map(i64::from))),
            ("timeout_ms", int(task.timeout_ms.map(|ms| i64::try_from(ms).unwrap()))),
            ("expires_at", int(task.expires_at)),
            ("trace", text(&task.trace)),
            ("fair_key", text(&task.fair_key.as_ref().map(ToString::to_string))),
            ("created_at", Value::Integer(now.wall.0)),
            ("state", Value::Text(if waits { "waiting" } else { "queued" }.into())),
            ("group_id", int(group)),
        ];
        let id = self.db.insert(&cells).expect("it has no twin");
        if id == self.news.watermark + 1 {
            self.news.watermark = id;
            self.news.rows += 1;
        }
        if waits {
            self.waits(id);
        } else {
            let queue = self.judge.task(task).unwrap();
            self.queued(queue, task.fair_key.clone(), task.run_at.map(UnixMillis), now);
        }
        self.keep_for(id, task);
        Stored::new(task_id(id))
    }

    pub(super) fn cancel(&mut self, id: i64, cause: CancelCause, now: Now) -> Verdict {
        let Some(row) = self.db.rows.get_mut(&id).map(Arc::make_mut) else { return Verdict::NotFound };
        match state(row) {
            TaskState::Waiting | TaskState::Queued => {
                self.cancelled(id, cause.reason(), now);
                Verdict::Cancelled
            }
            TaskState::Running => {
                if !requested(row) {
                    row.insert("cancel_requested", Value::Integer(cause.requested()));
                }
                Verdict::Requested
            }
            TaskState::Done | TaskState::Dead | TaskState::Cancelled => Verdict::Unchanged,
        }
    }

    pub(super) fn requeue(&mut self, id: i64, now: Now) -> Verdict {
        let Some(row) = self.db.rows.get(&id) else { return Verdict::NotFound };
        if !matches!(state(row), TaskState::Dead | TaskState::Cancelled) {
            return Verdict::Unchanged;
        }
        if let Some(twin) = self.db.live_twin(&row["kind"], &row["unique_key"]) {
            return Verdict::Twin(task_id(twin));
        }
        let row = self.db.rows.get_mut(&id).map(Arc::make_mut).unwrap();
        let expires_at = int(row, "expires_at").filter(|at| *at > now.wall.0);
        let mark = int(row, "lease").filter(|lease| (1..=MARK_MAX).contains(lease));
        row.insert("state", Value::Text("queued".into()));
        row.insert("lease", mark.map_or(Value::Null, Value::Integer));
        for column in ["run_at", "finished_at", "result", "error", "progress_done", "progress_total", "progress_note"] {
            row.insert(column, Value::Null);
        }
        for column in ["attempts", "losses", "cancel_requested"] {
            row.insert(column, Value::Integer(0));
        }
        row.insert("expires_at", expires_at.map_or(Value::Null, Value::Integer));
        if let Some(group) = int(row, "group_id").and_then(|group| self.db.groups.get_mut(&group)) {
            group.cancelled = false;
        }
        self.db.left += 1;
        let row = &self.db.rows[&id];
        if let Ok(key) = self.judge.key(cell(row, "kind"), cell(row, "lane")) {
            let fair_key = fair_key(row);
            self.queued(key, fair_key, None, now);
        } else {
            // The next sweep rejects it again; a blob it finds by itself.
            let kind = text(row, "kind").unwrap_or_default().to_owned();
            match &row["lane"] {
                Value::Null => drop(self.suspects.insert((None, kind))),
                Value::Text(lane) => drop(self.suspects.insert((Some(lane.clone()), kind))),
                _ => {}
            }
        }
        Verdict::Requeued
    }
}

fn submitted(stored: Vec<Stored>, group: Option<u64>) -> OpResult {
    match group {
        Some(group) => OpResult::SubmittedGroup(stored, group),
        None => OpResult::Submitted(stored),
    }
}

fn runs_under(row: &Cells, ended: &Ended) -> bool {
    state(row) == TaskState::Running && int(row, "lease") == Some(ended.lease.value())
}

/// The run as it is recorded when what its worker said cannot be.
fn failed(ended: &Ended, reason: &str) -> Ended {
    Ended {
        next: Next::Dead,
        count: Count::Attempt,
        error: Some(reason.into()),
        cause: Some(Cause::Failed),
        spawn: Vec::new(),
        ..ended.clone()
    }
}

//! The model of a store: rows in a map, every promise of [`Store`] in its plainest form, slow on purpose. For tests and
//! simulation; [`Apps`] does to it what apps do to a table by SQL. A row is a map of the table's columns, so that it can be
//! compared with one of SQLite cell by cell.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use laneway_core::{
    Count, Counts, Ended, EndedAs, Ending, FoundTask, Next, Noted, Now, Op, OpResult, QueueKey, QueuedTask, Started,
    UnixMillis,
};
use laneway_protocol::message::{Filter, Final, Format, NewTask, StatusRows, Stored, TaskRow, Verdict};
use laneway_protocol::{Epoch, Kind, LaneName, Lease, Payload, RequestId, TaskId, TaskState};
use rusqlite::types::{Value, ValueRef};

use super::validate::{Bad, Good, Judge, Values};
use super::{Intake, KnownSession, Load, LoadedRows, Opened, Retention, Rules, Store, StoreError, Swept, Sync};

/// The columns of `tasks`, but for the id, with their defaults.
pub(crate) const COLUMNS: [(&str, Value); 29] = [
    ("kind", Value::Null),
    ("lane", Value::Null),
    ("state", Value::Null),
    ("run_at", Value::Null),
    ("lease", Value::Null),
    ("runs", Value::Integer(0)),
    ("attempts", Value::Integer(0)),
    ("losses", Value::Integer(0)),
    ("releases", Value::Integer(0)),
    ("cancel_requested", Value::Integer(0)),
    ("created_at", Value::Null),
    ("started_at", Value::Null),
    ("finished_at", Value::Null),
    ("max_attempts", Value::Null),
    ("timeout_ms", Value::Null),
    ("expires_at", Value::Null),
    ("open_dependencies", Value::Integer(0)),
    ("group_id", Value::Null),
    ("fair_key", Value::Null),
    ("progress_done", Value::Null),
    ("progress_total", Value::Null),
    ("worker", Value::Null),
    ("unique_key", Value::Null),
    ("trace", Value::Null),
    ("progress_note", Value::Null),
    ("error", Value::Null),
    ("payload", Value::Null),
    ("checkpoint", Value::Null),
    ("result", Value::Null),
];

pub(crate) type Cells = BTreeMap<&'static str, Value>;

/// A store on nothing but memory.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    shared: Arc<Mutex<Db>>,
    before_turn: Option<(Db, News)>,
    judge: Judge,
    epoch: Option<Epoch>,
    told_version: u64,
    news: News,
    suspects: HashSet<QueueSpelling>,
    pruned_to: i64,
}

/// Lane and kind as a row spells them.
type QueueSpelling = (Option<String>, String);

/// What the intake has to tell.
#[derive(Debug, Clone, Default)]
struct News {
    watermark: i64,
    due: BTreeSet<QueueKey>,
    later: BTreeMap<QueueKey, UnixMillis>,
}

#[derive(Debug, Clone, Default)]
struct Db {
    rows: BTreeMap<i64, Cells>,
    newest_id: i64,
    failures: Vec<Failure>,
    epochs: Vec<([u8; 16], bool)>,
    lanes: BTreeMap<String, bool>,
    sessions: BTreeMap<String, KnownSession>,
    requests: HashMap<[u8; 16], (i64, Vec<TaskId>)>,
    overtaken: u64,
    /// Commits of apps.
    version: u64,
}

/// A row of `failures`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) task: i64,
    pub(crate) run: u32,
    pub(crate) cause: &'static str,
    pub(crate) error: String,
}

/// What apps can do to the table, each call a transaction of its own.
#[derive(Debug, Clone)]
pub(crate) struct Apps(Arc<Mutex<Db>>);

impl Apps {
    fn db(&self) -> MutexGuard<'_, Db> {
        let mut db = self.0.lock().unwrap();
        db.version += 1;
        db
    }

    /// `None` when a live row has the unique key.
    pub(crate) fn insert(&self, cells: &[(&'static str, Value)]) -> Option<i64> {
        let mut db = self.db();
        let id = db.insert(cells);
        if id.is_none() {
            // SQLite has given the id out by the time it finds the conflict.
            db.newest_id += 1;
        }
        id
    }

    pub(crate) fn update(&self, id: i64, cells: &[(&'static str, Value)]) {
        if let Some(row) = self.db().rows.get_mut(&id) {
            row.extend(cells.iter().cloned());
        }
    }

    pub(crate) fn delete(&self, id: i64) {
        self.db().rows.remove(&id);
    }

    /// Without a commit.
    pub(crate) fn rows(&self) -> BTreeMap<i64, Cells> {
        self.0.lock().unwrap().rows.clone()
    }

    pub(crate) fn failures(&self) -> Vec<Failure> {
        self.0.lock().unwrap().failures.clone()
    }
}

impl MemoryStore {
    pub(crate) fn new(rules: Rules) -> Self {
        Self::reopen(&Apps(Arc::default()), rules)
    }

    /// A second life on the same rows.
    pub(crate) fn reopen(apps: &Apps, rules: Rules) -> Self {
        let told_version = apps.0.lock().unwrap().version;
        Self {
            shared: Arc::clone(&apps.0),
            before_turn: None,
            judge: Judge::new(rules),
            epoch: None,
            told_version,
            news: News::default(),
            suspects: HashSet::new(),
            pruned_to: 0,
        }
    }

    pub(crate) fn apps(&self) -> Apps {
        Apps(Arc::clone(&self.shared))
    }

    /// Runs a step on the rows, and on the rest of the store beside them.
    fn with<T>(&mut self, step: impl FnOnce(&mut Step<'_>) -> T) -> T {
        let mut db = self.shared.lock().unwrap();
        step(&mut Step { db: &mut db, judge: &self.judge, news: &mut self.news })
    }
}

impl Store for MemoryStore {
    fn open_epoch(&mut self, secret: [u8; 16], now: Now) -> Result<Opened, StoreError> {
        let mut db = self.shared.lock().unwrap();
        db.version += 1;
        let past_secrets = db.epochs.iter().rev().filter(|(_, closed)| !closed).map(|(secret, _)| *secret).collect();
        let unclean = db.epochs.last().is_some_and(|(_, closed)| !closed);
        db.epochs.push((secret, false));
        let epoch = Epoch(db.epochs.len() as u64);
        for lane in &self.judge.rules.lanes {
            db.lanes.entry(lane.as_str().into()).or_insert(false);
        }
        for lane in db.lanes.keys() {
            self.judge.know(lane.clone());
        }
        let mut step = Step { db: &mut db, judge: &self.judge, news: &mut self.news };
        step.reject_running_without_lease(now);
        step.news.watermark = step.db.newest_id;
        let rows = db.rows.iter();
        let running = rows.filter(|(_, row)| state(row) == TaskState::Running).filter_map(|(id, row)| found(*id, row, &self.judge));
        let opened = Opened {
            epoch,
            past_secrets,
            running: running.collect(),
            sessions: db.sessions.values().cloned().collect(),
            unclean,
            paused: db.lanes.iter().filter(|lane| *lane.1).map(|lane| LaneName::new(lane.0).unwrap()).collect(),
        };
        (self.epoch, self.told_version) = (Some(epoch), db.version);
        Ok(opened)
    }

    fn close_epoch(&mut self, _now: Now) -> Result<(), StoreError> {
        let mut db = self.shared.lock().unwrap();
        let own = self.epoch.map_or(0, |epoch| usize::try_from(epoch.0).unwrap());
        if own != db.epochs.len() {
            return Err(StoreError::Superseded { by: Epoch(db.epochs.len() as u64) });
        }
        db.epochs[own - 1].1 = true;
        Ok(())
    }

    fn changed(&mut self) -> Result<bool, StoreError> {
        let seen = self.shared.lock().unwrap().version;
        Ok(std::mem::replace(&mut self.told_version, seen) != seen)
    }

    fn begin(&mut self, _sync: Sync) -> Result<(), StoreError> {
        let db = self.shared.lock().unwrap();
        if self.epoch.is_some_and(|own| own.0 != db.epochs.len() as u64) {
            return Err(StoreError::Superseded { by: Epoch(db.epochs.len() as u64) });
        }
        self.before_turn = Some((db.clone(), self.news.clone()));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.before_turn = None;
        Ok(())
    }

    fn rollback(&mut self) {
        if let Some((db, news)) = self.before_turn.take() {
            *self.shared.lock().unwrap() = db;
            self.news = news;
        }
    }

    fn apply(&mut self, ops: &[Op], now: Now) -> Result<Vec<Option<OpResult>>, StoreError> {
        Ok(self.with(|step| ops.iter().map(|op| step.op(op, now)).collect()))
    }

    fn intake(&mut self, rows: usize, now: Now) -> Result<Intake, StoreError> {
        Ok(self.with(|step| step.intake(rows, now)))
    }

    fn load(&mut self, load: Load<'_>, now: Now) -> Result<LoadedRows, StoreError> {
        Ok(self.with(|step| step.load(load, now)))
    }

    fn sweep(&mut self, _rows: usize, now: Now) -> Result<Swept, StoreError> {
        let suspects = std::mem::take(&mut self.suspects);
        Ok(self.with(|step| step.sweep(&suspects, now)))
    }

    fn endings(&mut self, tasks: &[TaskId]) -> Result<Vec<(TaskId, Option<Final>)>, StoreError> {
        let endings = self.with(|step| step.endings(tasks));
        let ended = endings.into_iter().filter_map(|(task, ending)| match ending {
            Ending::Final(end) => Some((task, Some(end))),
            Ending::Live { .. } => None,
            Ending::Pruned | Ending::NotFound => Some((task, None)),
        });
        Ok(ended.collect())
    }

    fn prune(&mut self, retention: Retention, rows: usize, now: Now) -> Result<usize, StoreError> {
        let mut db = self.shared.lock().unwrap();
        let age = i64::try_from(retention.age_ms).unwrap_or(i64::MAX);
        let id_before = retention.count_max.map_or(0, |max| db.newest_id.saturating_sub(i64::try_from(max).unwrap()));
        let looked: Vec<i64> = db.rows.range(self.pruned_to + 1..).map(|(id, _)| *id).take(rows).collect();
        self.pruned_to = if looked.len() < rows { 0 } else { *looked.last().unwrap_or(&0) };
        let mut deleted = 0;
        for id in looked {
            let row = &db.rows[&id];
            let ended_at = int(row, "finished_at").or(int(row, "created_at")).unwrap_or(0);
            let old = ended_at < now.wall.0.saturating_sub(age) || id <= id_before;
            if old && matches!(state(row), TaskState::Done | TaskState::Cancelled) {
                db.rows.remove(&id);
                db.failures.retain(|failure| failure.task != id);
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// The counts here are counted when asked for; what is left to find is queues that no worker can name.
    fn recount(&mut self, _rows: usize) -> Result<bool, StoreError> {
        let db = self.shared.lock().unwrap();
        for row in db.rows.values().filter(|row| state(row) == TaskState::Queued) {
            if self.judge.key(cell(row, "kind"), cell(row, "lane")).is_err()
                && let Value::Text(kind) = &row["kind"]
            {
                match &row["lane"] {
                    Value::Null => drop(self.suspects.insert((None, kind.clone()))),
                    Value::Text(lane) => drop(self.suspects.insert((Some(lane.clone()), kind.clone()))),
                    _ => {}
                }
            }
        }
        Ok(true)
    }
}

// --------------------------------------------------------------------------------------------------------------- steps

struct Step<'a> {
    db: &'a mut Db,
    judge: &'a Judge,
    news: &'a mut News,
}

impl Step<'_> {
    fn op(&mut self, op: &Op, now: Now) -> Option<OpResult> {
        Some(match op {
            Op::Started(started) => {
                self.start(started);
                return None;
            }
            Op::Ended(ended) => OpResult::Ended(self.end(ended, now)),
            Op::Noted(noted) => {
                self.note(noted);
                return None;
            }
            Op::Submit { request, tasks } => self.submit(*request, tasks, now),
            Op::Cancel(tasks) => OpResult::Verdicts(tasks.iter().map(|task| self.cancel(sql(*task), now)).collect()),
            Op::Requeue(tasks) => OpResult::Verdicts(tasks.iter().map(|task| self.requeue(sql(*task), now)).collect()),
            Op::Find(tasks) => {
                let rows = tasks.iter().filter_map(|task| Some((sql(*task), self.db.rows.get(&sql(*task))?)));
                OpResult::Found(rows.filter_map(|(id, row)| found(id, row, self.judge)).collect())
            }
            Op::FindKey { kind, unique_key } => {
                let mut rows = self.db.rows.iter().rev();
                let row = rows.find(|(_, row)| text(row, "kind") == Some(kind.as_str()) && text(row, "unique_key") == Some(unique_key));
                OpResult::Found(row.and_then(|(id, row)| found(*id, row, self.judge)).into_iter().collect())
            }
            Op::Endings(tasks) => OpResult::Endings(self.endings(tasks)),
            Op::List(filter) => OpResult::Rows(self.list(filter)),
            Op::Show { tasks, .. } => OpResult::Rows(self.show(tasks)),
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
        })
    }

    fn queued(&mut self, key: QueueKey, run_at: Option<UnixMillis>, now: Now) {
        match run_at.filter(|at| *at > now.wall) {
            None => drop(self.news.due.insert(key)),
            Some(at) => {
                let known = self.news.later.entry(key).or_insert(at);
                *known = at.min(*known);
            }
        }
    }

    fn start(&mut self, started: &Started) {
        let fits = |row: &&mut Cells| {
            state(row) == TaskState::Queued && int(row, "runs") == Some(i64::from(started.run) - 1)
        };
        let rows = &mut self.db.rows;
        if let Some(row) = rows.get_mut(&sql(started.task)).filter(fits) {
            row.insert("state", Value::Text("running".into()));
            row.insert("lease", Value::Integer(started.lease.value()));
            row.insert("runs", Value::Integer(started.run.into()));
            row.insert("worker", Value::Text(started.worker.as_str().into()));
            row.insert("started_at", Value::Integer(started.at.0));
            return;
        }
        let same = |row: &&Cells| {
            int(row, "lease") == Some(started.lease.value()) && int(row, "runs") == Some(started.run.into())
        };
        if rows.get(&sql(started.task)).filter(same).is_none() {
            self.db.overtaken += 1;
        }
    }

    fn end(&mut self, ended: &Ended, now: Now) -> EndedAs {
        let bad = ended.spawn.iter().enumerate().find_map(|(i, task)| Some((i, self.judge.task(task).err()?)));
        if let Some((index, bad)) = bad {
            let reason = format!("spawned task {index} makes no sense: {}", bad.reason);
            return match self.write(&failed(ended, &reason), now) {
                Some(state) => EndedAs::SpawnRefused { state, reason },
                None => self.look_again(ended),
            };
        }
        if ended.next == Next::Already {
            return match self.db.rows.get(&sql(ended.task)) {
                Some(row) if state(row) == TaskState::Running && int(row, "lease") == Some(ended.lease.value()) => {
                    let reason = "the worker said that it had finished the row by SQL, and the row was still running";
                    EndedAs::Written(self.write(&failed(ended, reason), now).unwrap())
                }
                Some(row) if state(row).is_final() => EndedAs::Recorded(state(row)),
                _ => self.look_again(ended),
            };
        }
        let Some(written) = self.write(ended, now) else { return self.look_again(ended) };
        for task in &ended.spawn {
            self.insert(task, now);
        }
        EndedAs::Written(written)
    }

    fn write(&mut self, ended: &Ended, now: Now) -> Option<TaskState> {
        let id = sql(ended.task);
        let row = self.db.rows.get_mut(&id)?;
        if state(row) != TaskState::Running || int(row, "lease") != Some(ended.lease.value()) {
            return None;
        }
        let next = match (&ended.next, requested(row)) {
            (Next::Done(_), _) => TaskState::Done,
            (_, true) | (Next::Cancelled, _) => TaskState::Cancelled,
            (Next::Dead, _) => TaskState::Dead,
            (Next::Queued { .. }, _) => TaskState::Queued,
            (Next::Already, _) => unreachable!("looked at before"),
        };
        row.insert("state", Value::Text(next.as_str().into()));
        let column = match ended.count {
            Count::Attempt => Some("attempts"),
            Count::Loss => Some("losses"),
            Count::Release => Some("releases"),
            Count::Nothing => None,
        };
        if let Some(column) = column {
            row.insert(column, Value::Integer(int(row, column).unwrap() + 1));
        }
        let error = ended.error.clone().map_or(Value::Null, Value::Text);
        if let Next::Queued { run_at } = ended.next {
            if let Some(at) = run_at {
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
            self.queued(QueueKey { lane: ended.lane.clone(), kind: ended.kind.clone() }, run_at, now);
        } else {
            row.insert("finished_at", Value::Integer(ended.at.0));
        }
        if let Some(cause) = ended.cause {
            let error = ended.error.clone().unwrap_or_else(|| cause.as_str().into());
            self.db.fail(Failure { task: id, run: ended.run, cause: cause.as_str(), error });
        }
        Some(next)
    }

    fn look_again(&mut self, ended: &Ended) -> EndedAs {
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

    fn note(&mut self, noted: &Noted) {
        let Some(row) = self.db.rows.get_mut(&sql(noted.task)) else { return };
        if state(row) != TaskState::Running || int(row, "lease") != Some(noted.lease.value()) {
            return;
        }
        let number = |n: Option<u64>| n.map(|n| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX)));
        let checkpoint = noted.checkpoint.as_ref().map(|checkpoint| sql_payload(Some(checkpoint)));
        let cells = [
            ("progress_done", number(noted.done)),
            ("progress_total", number(noted.total)),
            ("progress_note", noted.note.clone().map(Value::Text)),
            ("checkpoint", checkpoint),
        ];
        row.extend(cells.into_iter().filter_map(|(column, value)| Some((column, value?))));
    }

    fn submit(&mut self, request: RequestId, tasks: &[NewTask], now: Now) -> OpResult {
        if let Some((at, ids)) = self.db.requests.get(&request.0)
            && *at > now.wall.0 - 600_000
        {
            return OpResult::Submitted(ids.iter().map(|task| Stored { task: *task, new: false }).collect());
        }
        for (index, task) in tasks.iter().enumerate() {
            if let Err(Bad { field, reason }) = self.judge.task(task) {
                return OpResult::Refused { index, field, reason };
            }
        }
        let stored: Vec<Stored> = tasks.iter().map(|task| self.insert(task, now)).collect();
        let ids = stored.iter().map(|stored| stored.task).collect();
        self.db.requests.insert(request.0, (now.wall.0, ids));
        OpResult::Submitted(stored)
    }

    fn insert(&mut self, task: &NewTask, now: Now) -> Stored {
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
            ("created_at", Value::Integer(now.wall.0)),
        ];
        let Some(id) = self.db.insert(&cells) else {
            let twin = self.db.live_twin(&cells[0].1, &cells[4].1).unwrap();
            return Stored { task: task_id(twin), new: false };
        };
        if id == self.news.watermark + 1 {
            self.news.watermark = id;
        }
        self.queued(self.judge.task(task).unwrap(), task.run_at.map(UnixMillis), now);
        Stored { task: task_id(id), new: true }
    }

    fn cancel(&mut self, id: i64, now: Now) -> Verdict {
        let Some(row) = self.db.rows.get_mut(&id) else { return Verdict::NotFound };
        match state(row) {
            TaskState::Waiting | TaskState::Queued => {
                self.cancelled(id, None, now);
                Verdict::Cancelled
            }
            TaskState::Running => {
                if !requested(row) {
                    row.insert("cancel_requested", Value::Integer(1));
                }
                Verdict::Requested
            }
            TaskState::Done | TaskState::Dead | TaskState::Cancelled => Verdict::Unchanged,
        }
    }

    fn requeue(&mut self, id: i64, now: Now) -> Verdict {
        let Some(row) = self.db.rows.get(&id) else { return Verdict::NotFound };
        if !matches!(state(row), TaskState::Dead | TaskState::Cancelled) {
            return Verdict::Unchanged;
        }
        if let Some(twin) = self.db.live_twin(&row["kind"], &row["unique_key"]) {
            return Verdict::Twin(task_id(twin));
        }
        let row = self.db.rows.get_mut(&id).unwrap();
        let expires_at = int(row, "expires_at").filter(|at| *at > now.wall.0);
        row.insert("state", Value::Text("queued".into()));
        for column in ["run_at", "lease", "finished_at", "result", "error", "progress_done", "progress_total", "progress_note"] {
            row.insert(column, Value::Null);
        }
        for column in ["attempts", "losses", "cancel_requested"] {
            row.insert(column, Value::Integer(0));
        }
        row.insert("expires_at", expires_at.map_or(Value::Null, Value::Integer));
        if let Ok(key) = self.judge.key(cell(row, "kind"), cell(row, "lane")) {
            self.queued(key, None, now);
        }
        Verdict::Requeued
    }

    // ------------------------------------------------------------------------------------------------------------ queues

    fn intake(&mut self, rows: usize, now: Now) -> Intake {
        let ids: Vec<i64> = self.db.rows.range(self.news.watermark + 1..).map(|(id, _)| *id).take(rows).collect();
        let mut found = Intake { rows: ids.len(), ..Intake::default() };
        for id in ids {
            self.news.watermark = id;
            let row = &self.db.rows[&id];
            match state(row) {
                TaskState::Queued => match self.judged(id) {
                    Ok((key, good)) => self.queued(key, good.run_at, now),
                    Err(bad) => found.rejected.extend(self.reject(id, &bad, now)),
                },
                TaskState::Waiting if int(row, "open_dependencies").unwrap_or(0) <= 0 => {
                    let reason = "state is 'waiting' without dependencies, so it would wait for ever: insert no state";
                    found.rejected.extend(self.reject(id, &Bad::new("state", reason.into()), now));
                }
                _ => {}
            }
        }
        found.due = std::mem::take(&mut self.news.due).into_iter().collect();
        found.later = std::mem::take(&mut self.news.later).into_iter().collect();
        found
    }

    fn judged(&self, id: i64) -> Result<(QueueKey, Good), Bad> {
        let row = &self.db.rows[&id];
        let key = self.judge.key(cell(row, "kind"), cell(row, "lane"))?;
        Ok((key, self.judge.values(&values(row))?))
    }

    fn load(&mut self, load: Load<'_>, now: Now) -> LoadedRows {
        let mut loaded = LoadedRows::default();
        let mut streams = self.streams(load, now);
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
        let rows = self.db.rows.values().filter(|row| self.belongs(row, load.key));
        let times = rows.filter_map(|row| time(row, "run_at").filter(|at| *at > now.wall.0));
        loaded.next_at = times.min().map(UnixMillis);
        loaded
    }

    /// Due rows as (due, id): at once or at a time, with the lane spelled out or not, each in its own order.
    fn streams(&self, load: Load<'_>, now: Now) -> Vec<Vec<(i64, i64)>> {
        let mut streams = vec![Vec::new(); 4];
        for (id, row) in &self.db.rows {
            let skipped = TaskId::new(id.unsigned_abs()).is_none_or(|task| load.skip.contains(&task));
            if skipped || !self.belongs(row, load.key) {
                continue;
            }
            let lane = usize::from(row["lane"] == Value::Null) * 2;
            match cell(row, "run_at") {
                ValueRef::Null => streams[lane].push((int(row, "created_at").unwrap_or(0), *id)),
                _ => {
                    let due = time(row, "run_at").filter(|at| *at <= now.wall.0);
                    streams[lane + 1].extend(due.map(|at| (at, *id)));
                }
            }
        }
        streams[1].sort_unstable();
        streams[3].sort_unstable();
        streams
    }

    fn belongs(&self, row: &Cells, key: &QueueKey) -> bool {
        state(row) == TaskState::Queued
            && text(row, "kind") == Some(key.kind.as_str())
            && match &row["lane"] {
                Value::Null => self.judge.rules.lane_of(&key.kind) == &key.lane,
                Value::Text(lane) => lane == key.lane.as_str(),
                _ => false,
            }
    }

    /// Ends a row at the head that is not to be handed out.
    fn unfit(&mut self, id: i64, now: Now) -> Option<Final> {
        let row = &self.db.rows[&id];
        let good = match self.judge.values(&values(row)) {
            Ok(good) => good,
            Err(bad) => return self.reject(id, &bad, now),
        };
        if requested(row) {
            return Some(self.cancelled(id, None, now));
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
            runs: good.runs,
            attempts: good.attempts,
            losses: good.losses,
            max_attempts: good.max_attempts,
            timeout_ms: good.timeout_ms,
            expires_at: good.expires_at,
            payload: payload(&row["payload"]),
            checkpoint: payload(&row["checkpoint"]),
            trace: text(row, "trace").map(str::to_owned),
        }
    }

    fn sweep(&mut self, suspects: &HashSet<QueueSpelling>, now: Now) -> Swept {
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
            if unstarted && requested(row) {
                swept.ended.push(self.cancelled(id, None, now));
            } else if unstarted && (misplaced || suspect) {
                let bad = self.judged(id).unwrap_err();
                swept.ended.extend(self.reject(id, &bad, now));
            } else if unstarted && expired {
                swept.ended.push(self.cancelled(id, Some("expired"), now));
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

    fn reject_running_without_lease(&mut self, now: Now) -> Vec<Final> {
        let rows = self.db.rows.iter();
        let bare = rows.filter(|(_, row)| state(row) == TaskState::Running && int(row, "lease").is_none());
        let ids: Vec<i64> = bare.map(|(id, _)| *id).collect();
        let reason = "state is 'running' without a lease: only the broker starts tasks; insert no state";
        ids.iter().filter_map(|id| self.reject(*id, &Bad::new("lease", reason.into()), now)).collect()
    }

    fn reject(&mut self, id: i64, bad: &Bad, now: Now) -> Option<Final> {
        let row = self.db.rows.get_mut(&id).unwrap();
        row.insert("state", Value::Text("dead".into()));
        row.insert("finished_at", Value::Integer(now.wall.0));
        row.insert("error", Value::Text(bad.reason.clone()));
        let run = u32::try_from(int(row, "runs").unwrap_or(0)).unwrap_or(0);
        self.db.fail(Failure { task: id, run, cause: "rejected", error: bad.reason.clone() });
        Some(Final { task: task_id(id), state: TaskState::Dead, result: None, error: Some(bad.reason.clone()) })
    }

    fn cancelled(&mut self, id: i64, error: Option<&str>, now: Now) -> Final {
        let row = self.db.rows.get_mut(&id).unwrap();
        row.insert("state", Value::Text("cancelled".into()));
        row.insert("finished_at", Value::Integer(now.wall.0));
        row.insert("error", error.map_or(Value::Null, |error| Value::Text(error.into())));
        Final { task: task_id(id), state: TaskState::Cancelled, result: None, error: error.map(str::to_owned) }
    }

    // --------------------------------------------------------------------------------------------------------- questions

    fn endings(&self, tasks: &[TaskId]) -> Vec<(TaskId, Ending)> {
        let ending = |task: &TaskId| match self.db.rows.get(&sql(*task)) {
            Some(row) if state(row).is_final() => Ending::Final(Final {
                task: *task,
                state: state(row),
                result: payload(&row["result"]),
                error: text(row, "error").map(str::to_owned),
            }),
            Some(row) => Ending::Live {
                done: int(row, "progress_done").map(i64::unsigned_abs),
                total: int(row, "progress_total").map(i64::unsigned_abs),
                note: text(row, "progress_note").map(str::to_owned),
            },
            None if sql(*task) <= self.db.newest_id => Ending::Pruned,
            None => Ending::NotFound,
        };
        tasks.iter().map(|task| (*task, ending(task))).collect()
    }

    fn counts(&self) -> Counts {
        let mut queued: BTreeMap<(String, String), u64> = BTreeMap::new();
        let rows = self.db.rows.values();
        for row in rows.clone().filter(|row| state(row) == TaskState::Queued) {
            if let Ok(key) = self.judge.key(cell(row, "kind"), cell(row, "lane")) {
                *queued.entry((key.lane.as_str().into(), key.kind.as_str().into())).or_default() += 1;
            }
        }
        Counts {
            queued: queued.into_iter().map(|((lane, kind), n)| (lane, kind, n)).collect(),
            dead: rows.filter(|row| state(row) == TaskState::Dead).count() as u64,
            overtaken: self.db.overtaken,
            ..Counts::default()
        }
    }

    fn list(&self, filter: &Filter) -> StatusRows {
        let limit = if filter.limit == 0 { 50 } else { filter.limit as usize };
        let matches = |row: &TaskRow| {
            let default = row.kind.parse().map(|kind: Kind| self.judge.rules.lane_of(&kind).as_str().to_owned());
            let lane = row.lane.clone().or(default.ok());
            filter.state.is_none_or(|state| state == row.state)
                && filter.kind.as_ref().is_none_or(|kind| *kind == row.kind)
                && filter.lane.as_ref().is_none_or(|wanted| lane.as_ref() == Some(wanted))
        };
        let before = filter.before.map_or(i64::MAX, sql);
        let rows = self.db.rows.range(..before).rev().map(|(id, row)| task_row(*id, row));
        let rows: Vec<TaskRow> = rows.filter(matches).take(limit).collect();
        let next = (rows.len() == limit).then(|| rows[limit - 1].id);
        StatusRows { rows, not_found: Vec::new(), next }
    }

    fn show(&self, tasks: &[TaskId]) -> StatusRows {
        let (known, not_found): (Vec<TaskId>, Vec<TaskId>) =
            tasks.iter().partition(|task| self.db.rows.contains_key(&sql(**task)));
        let rows = known.iter().map(|task| task_row(sql(*task), &self.db.rows[&sql(*task)])).collect();
        StatusRows { rows, not_found, next: None }
    }
}

impl Db {
    fn insert(&mut self, cells: &[(&'static str, Value)]) -> Option<i64> {
        let mut row: Cells = COLUMNS.into_iter().collect();
        row.insert("state", Value::Text("queued".into()));
        row.insert("created_at", Value::Integer(0));
        row.extend(cells.iter().cloned());
        if !state(&row).is_final() && self.live_twin(&row["kind"], &row["unique_key"]).is_some() {
            return None;
        }
        self.newest_id += 1;
        self.rows.insert(self.newest_id, row);
        Some(self.newest_id)
    }

    fn fail(&mut self, failure: Failure) {
        let (task, run) = (failure.task, failure.run);
        self.failures.push(failure);
        self.failures.retain(|old| old.task != task || old.run + 100 > run);
    }

    fn live_twin(&self, kind: &Value, unique_key: &Value) -> Option<i64> {
        let mut live = self.rows.iter().filter(|(_, row)| !state(row).is_final() && *unique_key != Value::Null);
        live.find(|(_, row)| row["kind"] == *kind && row["unique_key"] == *unique_key).map(|(id, _)| *id)
    }
}

// --------------------------------------------------------------------------------------------------------------- cells

fn cell<'a>(row: &'a Cells, column: &str) -> ValueRef<'a> {
    ValueRef::from(&row[column])
}

fn int(row: &Cells, column: &str) -> Option<i64> {
    cell(row, column).as_i64().ok()
}

/// A fraction counts as the next whole millisecond.
#[expect(clippy::cast_possible_truncation, reason = "tests use times of this century")]
fn time(row: &Cells, column: &str) -> Option<i64> {
    match cell(row, column) {
        ValueRef::Real(at) => Some(at.ceil() as i64),
        _ => int(row, column),
    }
}

fn text<'a>(row: &'a Cells, column: &str) -> Option<&'a str> {
    cell(row, column).as_str().ok()
}

fn state(row: &Cells) -> TaskState {
    TaskState::parse(text(row, "state").unwrap()).unwrap()
}

fn requested(row: &Cells) -> bool {
    row["cancel_requested"] != Value::Integer(0)
}

fn sql(task: TaskId) -> i64 {
    i64::try_from(task.value()).unwrap()
}

fn task_id(id: i64) -> TaskId {
    TaskId::new(id.unsigned_abs()).unwrap()
}

fn sql_payload(payload: Option<&Payload>) -> Value {
    match payload {
        None => Value::Null,
        Some(Payload { format: Format::Json, bytes }) => Value::Text(String::from_utf8(bytes.clone()).unwrap()),
        Some(Payload { format: Format::Bin, bytes }) => Value::Blob(bytes.clone()),
    }
}

fn payload(value: &Value) -> Option<Payload> {
    match value {
        Value::Text(text) => Some(Payload::json(text.clone())),
        Value::Blob(bytes) => Some(Payload::bin(bytes.clone())),
        _ => None,
    }
}

fn values(row: &Cells) -> Values<'_> {
    Values {
        run_at: cell(row, "run_at"),
        created_at: cell(row, "created_at"),
        runs: cell(row, "runs"),
        attempts: cell(row, "attempts"),
        losses: cell(row, "losses"),
        max_attempts: cell(row, "max_attempts"),
        timeout_ms: cell(row, "timeout_ms"),
        expires_at: cell(row, "expires_at"),
        unique_key: cell(row, "unique_key"),
        trace: cell(row, "trace"),
        payload_type: row["payload"].data_type(),
        payload_bytes: match &row["payload"] {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            _ => 0,
        },
    }
}

fn found(id: i64, row: &Cells, judge: &Judge) -> Option<FoundTask> {
    let kind = Kind::new(text(row, "kind")?).ok()?;
    let number = |column| int(row, column).and_then(|n| u32::try_from(n).ok());
    Some(FoundTask {
        id: task_id(id),
        lane: text(row, "lane").map_or_else(|| judge.rules.lane_of(&kind).clone(), |lane| LaneName::new(lane).unwrap()),
        kind,
        state: state(row),
        lease: int(row, "lease").map(Lease::new),
        runs: number("runs").unwrap_or(0),
        attempts: number("attempts").unwrap_or(0),
        losses: number("losses").unwrap_or(0),
        max_attempts: number("max_attempts"),
        timeout_ms: int(row, "timeout_ms").map(i64::unsigned_abs),
        due: UnixMillis(int(row, "run_at").or(int(row, "created_at")).unwrap_or(0)),
        started_at: int(row, "started_at").map(UnixMillis),
        worker: text(row, "worker").map(str::to_owned),
        cancel_requested: requested(row),
    })
}

fn task_row(id: i64, row: &Cells) -> TaskRow {
    let number = |column| int(row, column).and_then(|n| u32::try_from(n).ok());
    let owned = |column| text(row, column).map(str::to_owned);
    TaskRow {
        id: task_id(id),
        kind: owned("kind").unwrap_or_default(),
        lane: owned("lane"),
        state: state(row),
        run_at: int(row, "run_at"),
        unique_key: owned("unique_key"),
        max_attempts: number("max_attempts"),
        timeout_ms: int(row, "timeout_ms").map(i64::unsigned_abs),
        expires_at: int(row, "expires_at"),
        runs: number("runs").unwrap_or(0),
        attempts: number("attempts").unwrap_or(0),
        losses: number("losses").unwrap_or(0),
        releases: number("releases").unwrap_or(0),
        worker: owned("worker"),
        created_at: int(row, "created_at").unwrap_or(0),
        started_at: int(row, "started_at"),
        finished_at: int(row, "finished_at"),
        progress_done: int(row, "progress_done").map(i64::unsigned_abs),
        progress_total: int(row, "progress_total").map(i64::unsigned_abs),
        progress_note: owned("progress_note"),
        cancel_requested: requested(row),
        error: owned("error"),
        payload: None,
        result: None,
        failures: Vec::new(),
        explain: None,
    }
}

/// The run as it is recorded when what its worker said cannot be.
fn failed(ended: &Ended, reason: &str) -> Ended {
    Ended {
        next: Next::Dead,
        count: Count::Attempt,
        error: Some(reason.into()),
        cause: Some(laneway_core::Cause::Failed),
        spawn: Vec::new(),
        ..ended.clone()
    }
}

//! The model of a store: rows in a map, every promise of [`Store`] in its plainest form, slow on purpose. For tests and
//! simulation; [`Apps`] does to it what apps do to a table by SQL. A row is a map of the table's columns, so that it can be
//! compared with one of SQLite cell by cell.

#![allow(clippy::unwrap_used, reason = "only tests and the simulation run the model")]

mod cells;
mod dependencies;
mod edit;
mod groups;
mod life;
mod prune;
mod questions;
mod queues;
mod schedules;
mod unique;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use laneway_core::{Ending, Now, Op, OpResult, QueueKey, UnixMillis};
use laneway_protocol::message::{FairKeyValues, Final, KindValues, LaneValues, Stored};
use laneway_protocol::{Epoch, FairKey, Kind, LaneName, TaskId, TaskState};
use rusqlite::types::Value;

use self::cells::{cell, found, int, state};
pub(crate) use self::dependencies::Edge;
use super::fair::Rounds;
use super::log_sync::LogSync;
use super::schedules::Fired;
use super::validate::Judge;
use super::{
    Intake, KnownKind, KnownSession, Load, LoadedRows, Opened, Pruned, Retention, Rules, Store, StoreError, Swept,
    Sync, Unstarted,
};

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

pub(crate) use self::schedules::SCHEDULE_COLUMNS;

pub(crate) type Cells = BTreeMap<&'static str, Value>;

/// A store on nothing but memory.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    shared: Arc<Mutex<Db>>,
    before_turn: Option<(Db, News)>,
    /// A look is open, not a turn.
    looks: bool,
    judge: Judge,
    epoch: Option<Epoch>,
    told_version: u64,
    news: News,
    suspects: HashSet<QueueSpelling>,
    pruning: prune::Walk,
    toured_to: i64,
    rounds: Rounds,
}

/// Lane and kind as a row spells them.
type QueueSpelling = (Option<String>, String);

/// What the intake has to tell.
#[derive(Debug, Clone, Default)]
struct News {
    watermark: i64,
    /// New rows since start.
    rows: u64,
    due: BTreeSet<QueueKey>,
    later: BTreeMap<QueueKey, UnixMillis>,
    turns: BTreeSet<(QueueKey, Option<FairKey>)>,
    turns_later: BTreeSet<(UnixMillis, QueueKey, Option<FairKey>)>,
    /// Ended, children not looked at; and rows that wait and were not looked at.
    ended: BTreeSet<i64>,
    fresh: BTreeSet<i64>,
    /// Queued since the last intake, because all that they waited for has ended.
    let_go: Vec<(TaskId, QueueKey)>,
    /// Some edge may be open.
    live: bool,
}

#[derive(Debug, Clone, Default)]
struct Db {
    /// Shared, so that a copy of the whole is cheap: each turn keeps one to go back to.
    rows: BTreeMap<i64, Arc<Cells>>,
    newest_id: i64,
    /// Queued rows with a fair key of which an UPDATE has set the time, the key, the lane or the kind.
    moved: BTreeSet<i64>,
    failures: Vec<Failure>,
    edges: Vec<Edge>,
    groups: BTreeMap<i64, Group>,
    newest_group: i64,
    epochs: Vec<([u8; 16], bool)>,
    lanes: BTreeMap<String, bool>,
    kinds: BTreeMap<Kind, (bool, KindValues)>,
    lane_values: BTreeMap<LaneName, LaneValues>,
    fair_keys: BTreeMap<FairKey, FairKeyValues>,
    sessions: BTreeMap<String, KnownSession>,
    schedules: BTreeMap<i64, Arc<Cells>>,
    newest_schedule: i64,
    /// By schedule and slot: the task, and whether it was new.
    slots: BTreeMap<(i64, i64), (i64, bool)>,
    requests: HashMap<[u8; 16], (i64, Vec<Stored>, Option<u64>)>,
    /// Rows that are kept after they are done, and for how long.
    windows: BTreeMap<i64, i64>,
    overtaken: u64,
    /// Ended rows that have left the table, their kind or their end.
    left: u64,
    /// Commits of apps.
    version: u64,
}

/// A row of `task_groups`.
#[derive(Debug, Clone)]
struct Group {
    name: Option<String>,
    last: Option<i64>,
    anyway: bool,
    created_at: i64,
    cancelled: bool,
}

/// A row of `failures`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) task: i64,
    pub(crate) run: u32,
    pub(crate) cause: &'static str,
    pub(crate) worker: Option<String>,
    pub(crate) error: String,
}

/// What apps can do to the table, each call a transaction of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Apps(Arc<Mutex<Db>>);

/// Everything that was committed at one moment.
#[derive(Debug, Clone)]
#[cfg(feature = "internals")]
pub(crate) struct Image(Db);

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

    /// With the tasks that it waits for, and whether it runs though they fail.
    pub(crate) fn insert_waiting(&self, cells: &[(&'static str, Value)], parents: &[(i64, bool)]) -> Option<i64> {
        let mut db = self.db();
        let id = db.insert(cells);
        match id {
            None => db.newest_id += 1,
            Some(task) => {
                let edges =
                    parents.iter().map(|(parent, anyway)| Edge { task, parent: *parent, anyway: *anyway, open: true });
                db.edges.extend(edges);
            }
        }
        id
    }

    /// One more task for a row to wait for.
    pub(crate) fn depend(&self, task: i64, parent: i64, anyway: bool) {
        let mut db = self.db();
        if !db.edges.iter().any(|edge| (edge.task, edge.parent) == (task, parent)) {
            db.edges.push(Edge { task, parent, anyway, open: true });
        }
    }

    /// Without a commit; by task and parent.
    pub(crate) fn edges(&self) -> Vec<Edge> {
        let mut edges = self.0.lock().unwrap().edges.clone();
        edges.sort_by_key(|edge| (edge.task, edge.parent));
        edges
    }

    pub(crate) fn update(&self, id: i64, cells: &[(&'static str, Value)]) {
        let mut db = self.db();
        let Some(row) = db.rows.get_mut(&id).map(Arc::make_mut) else { return };
        let was_queued = state(row) == TaskState::Queued;
        let leaves = state(row).is_final() && cells.iter().any(|(name, cell)| *name == "kind" && row["kind"] != *cell);
        row.extend(cells.iter().cloned());
        db.left += u64::from(leaves);
        if was_queued && cells.iter().any(|(name, _)| ["kind", "lane", "fair_key", "run_at"].contains(name)) {
            db.moved(id);
        }
    }

    pub(crate) fn delete(&self, id: i64) {
        let mut db = self.db();
        let row = db.rows.remove(&id);
        db.left += u64::from(row.is_some_and(|row| state(&row).is_final()));
    }

    /// Without a commit.
    pub(crate) fn rows(&self) -> BTreeMap<i64, Cells> {
        self.0.lock().unwrap().rows.iter().map(|(id, row)| (*id, Cells::clone(row))).collect()
    }

    #[cfg(feature = "internals")]
    pub(crate) fn image(&self) -> Image {
        Image(self.0.lock().unwrap().clone())
    }

    /// Goes back to what a power cut has left.
    #[cfg(feature = "internals")]
    pub(crate) fn restore(&self, image: &Image) {
        *self.0.lock().unwrap() = image.0.clone();
    }

    /// The rows of another table, which begins as a copy of this one.
    #[cfg(feature = "internals")]
    pub(crate) fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.image().0)))
    }

    #[cfg(test)]
    pub(crate) fn failures(&self) -> Vec<Failure> {
        self.0.lock().unwrap().failures.clone()
    }
}

impl MemoryStore {
    #[cfg(test)]
    pub(crate) fn new(rules: Rules) -> Self {
        Self::reopen(&Apps(Arc::default()), rules)
    }

    /// A second life on the same rows.
    pub(crate) fn reopen(apps: &Apps, rules: Rules) -> Self {
        let told_version = apps.0.lock().unwrap().version;
        Self {
            shared: Arc::clone(&apps.0),
            before_turn: None,
            looks: false,
            judge: Judge::new(rules),
            epoch: None,
            told_version,
            news: News::default(),
            suspects: HashSet::new(),
            pruning: prune::Walk::default(),
            toured_to: 0,
            rounds: Rounds::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn apps(&self) -> Apps {
        Apps(Arc::clone(&self.shared))
    }

    /// Runs a step on the rows, and on the rest of the store beside them.
    fn with<T>(&mut self, step: impl FnOnce(&mut Step<'_>) -> T) -> T {
        let mut db = self.shared.lock().unwrap();
        let (judge, news) = (&self.judge, &mut self.news);
        step(&mut Step { db: &mut db, judge, news, suspects: &mut self.suspects, rounds: &mut self.rounds })
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
        for (kind, (_, values)) in &db.kinds {
            self.judge.set_lane(kind, values.lane.as_ref());
        }
        let (judge, news) = (&self.judge, &mut self.news);
        let mut step = Step { db: &mut db, judge, news, suspects: &mut self.suspects, rounds: &mut self.rounds };
        step.reject_running_without_lease(now);
        step.look_at_errors_anew();
        *step.news = News { watermark: step.db.newest_id, live: step.any_open(), ..News::default() };
        let rows = db.rows.iter();
        let running = rows
            .filter(|(_, row)| state(row) == TaskState::Running)
            .filter_map(|(id, row)| found(*id, row, &self.judge));
        let opened = Opened {
            epoch,
            past_secrets,
            running: running.collect(),
            sessions: db.sessions.values().cloned().collect(),
            unclean,
            paused: db.lanes.iter().filter(|lane| *lane.1).map(|lane| LaneName::new(lane.0).unwrap()).collect(),
            kinds: db.kinds.iter().map(|(kind, (paused, values))| known_kind(kind, *paused, values)).collect(),
            lanes: db.lane_values.clone().into_iter().collect(),
            fair_keys: db.fair_keys.clone().into_iter().collect(),
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

    fn look(&mut self) -> Result<(), StoreError> {
        self.begin(Sync::Process)?;
        self.looks = true;
        Ok(())
    }

    fn end_look(&mut self) -> Result<(), StoreError> {
        self.looks = false;
        self.commit()
    }

    fn log_sync(&self) -> Option<LogSync> {
        None
    }

    fn rollback(&mut self) {
        if let Some((db, news)) = self.before_turn.take() {
            *self.shared.lock().unwrap() = db;
            self.news = news;
        }
        self.looks = false;
        self.pruning = prune::Walk::default();
    }

    fn apply(&mut self, ops: &[Op], now: Now) -> Result<Vec<Option<OpResult>>, StoreError> {
        let results = ops.iter().map(|op| {
            if let Op::SetKind { kind, values, .. } = op {
                self.judge.set_lane(kind, values.lane.as_ref());
            }
            self.with(|step| step.op(op, now))
        });
        Ok(results.collect())
    }

    fn intake(&mut self, rows: usize, now: Now) -> Result<Intake, StoreError> {
        Ok(self.with(|step| step.intake(rows, now)))
    }

    fn load(&mut self, load: Load<'_>, now: Now) -> Result<LoadedRows, StoreError> {
        let rounds = self.rounds.clone();
        let loaded = self.with(|step| step.load(load, now));
        if !self.looks || loaded.rejected.is_empty() {
            return Ok(loaded);
        }
        // The rows of a look are put back, so that what the look has met of them is there again.
        let (db, news) = self.before_turn.clone().expect("a look is open");
        (*self.shared.lock().unwrap(), self.news, self.rounds) = (db, news, rounds);
        Ok(LoadedRows { unfit: true, ..LoadedRows::default() })
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

    fn prune(
        &mut self,
        retention: &Retention,
        watched: &BTreeSet<TaskId>,
        rows: usize,
        now: Now,
    ) -> Result<Pruned, StoreError> {
        let mut db = self.shared.lock().unwrap();
        let looked: Vec<i64> = db.rows.range(self.toured_to + 1..).map(|(id, _)| *id).take(rows).collect();
        self.toured_to = if looked.len() < rows { 0 } else { *looked.last().unwrap_or(&0) };
        for id in looked.into_iter().filter(|id| state(&db.rows[id]) == TaskState::Waiting) {
            self.news.live = true;
            self.news.fresh.insert(id);
        }
        Ok(self.pruning.prune(&mut db, retention, watched, rows, now))
    }

    fn fire(&mut self, slots: usize, now: Now) -> Result<Fired, StoreError> {
        Ok(self.with(|step| step.fire(slots, now)))
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

    fn is_behind(&self) -> bool {
        let moved = !self.shared.lock().unwrap().moved.is_empty();
        moved || !(self.news.ended.is_empty() && self.news.fresh.is_empty())
    }

    fn recheck(&mut self, _edges: usize, now: Now) -> Result<(Vec<Unstarted>, bool), StoreError> {
        Ok((self.with(|step| step.recheck(now)), true))
    }
}

// --------------------------------------------------------------------------------------------------------------- rows

struct Step<'a> {
    db: &'a mut Db,
    judge: &'a Judge,
    news: &'a mut News,
    suspects: &'a mut HashSet<QueueSpelling>,
    rounds: &'a mut Rounds,
}

fn known_kind(kind: &Kind, paused: bool, values: &KindValues) -> KnownKind {
    KnownKind { kind: kind.clone(), paused, values: values.clone() }
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
        self.rows.insert(self.newest_id, Arc::new(row));
        Some(self.newest_id)
    }

    /// An UPDATE of a queued row has set what tells where it stands.
    fn moved(&mut self, id: i64) {
        let row = &self.rows[&id];
        if state(row) == TaskState::Queued && row["fair_key"] != Value::Null {
            self.moved.insert(id);
        }
    }

    /// An ended row with its failures. False when something still needs it.
    fn delete(&mut self, id: i64, now: Now) -> bool {
        let row = &self.rows[&id];
        let ended_at = int(row, "finished_at").or(int(row, "created_at")).unwrap_or(0);
        let kept = self.windows.get(&id).is_some_and(|unique_for_ms| ended_at + unique_for_ms > now.wall.0);
        if kept && state(row) == TaskState::Done {
            return false;
        }
        let group = int(&self.rows[&id], "group_id");
        let in_group = |row: &&Arc<Cells>| group.is_some() && int(row, "group_id") == group;
        let is_live = |id: &i64| self.rows.get(id).is_some_and(|row| !state(row).is_final());
        let is_parent = self.edges.iter().any(|edge| edge.parent == id && is_live(&edge.task));
        if is_parent || self.rows.values().filter(in_group).any(|row| !state(row).is_final()) {
            return false;
        }
        self.windows.remove(&id);
        self.rows.remove(&id);
        self.left += 1;
        self.failures.retain(|failure| failure.task != id);
        self.edges.retain(|edge| edge.task != id);
        if let Some(group) = group
            && !self.rows.values().any(|row| int(row, "group_id") == Some(group))
        {
            self.groups.remove(&group);
        }
        true
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

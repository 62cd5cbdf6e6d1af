//! What the stories are told to: a store, and an app that works on the same rows.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{
    Cause, Count, Ended, EndedAs, FairRules, FoundTask, IdSet, MARK_MAX, Next, Now, Op, OpResult, QueueKey, QueuedTask,
    Started, UnixMillis,
};
use laneway_protocol::message::{NewTask, Payload};
use laneway_protocol::{Kind, LaneName, Lease, RequestId, SessionName, TaskId, TaskState};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::store::memory::{Apps, COLUMNS, Cells, Edge, Failure, MemoryStore, SCHEDULE_COLUMNS};
use crate::store::sqlite::{SqliteStore, connect};
use crate::store::{Limit, Limits, Load, LoadedRows, Opened, Retention, Rules, Store, Sync};

/// An autumn morning of 2027.
pub(super) const START: i64 = 1_820_000_000_000;

pub(super) trait Subject {
    type Store: Store;
    fn store(&mut self) -> &mut Self::Store;
    /// Another store on the same rows; the first one stays.
    fn another(&mut self, rules: Rules) -> Self::Store;
    fn app_insert(&mut self, cells: &[(&'static str, Value)]) -> Option<i64>;
    /// Together with the tasks that the row waits for, and whether it runs though they fail.
    fn app_insert_waiting(&mut self, cells: &[(&'static str, Value)], parents: &[(i64, bool)]) -> Option<i64>;
    fn app_depend(&mut self, task: i64, parent: i64, anyway: bool);
    fn app_update(&mut self, id: i64, cells: &[(&'static str, Value)]);
    fn app_delete(&mut self, id: i64);
    fn rows(&self) -> BTreeMap<i64, Cells>;
    fn failures(&self) -> Vec<Failure>;
    fn app_insert_schedule(&mut self, cells: &[(&'static str, Value)]) -> i64;
    fn app_update_schedule(&mut self, id: i64, cells: &[(&'static str, Value)]);
    fn app_delete_schedule(&mut self, id: i64);
    fn schedules(&self) -> BTreeMap<i64, Cells>;
    /// Schedule, slot, task, and whether that was new; in order.
    fn slots(&self) -> Vec<(i64, i64, i64, bool)>;
    /// By task and parent.
    fn edges(&self) -> Vec<Edge>;
}

pub(super) fn rules() -> Rules {
    Rules {
        lanes: vec![lane("high"), lane("normal"), lane("low")],
        default_lane: lane("normal"),
        kind_lanes: std::iter::once((kind("alarm"), lane("high"))).collect(),
        payload_bytes_max: 1000,
        full_durability: true,
    }
}

pub(super) fn lane(name: &str) -> LaneName {
    LaneName::new(name).unwrap()
}

pub(super) fn kind(name: &str) -> Kind {
    Kind::new(name).unwrap()
}

pub(super) fn key(lane_name: &str, kind_name: &str) -> QueueKey {
    QueueKey { lane: lane(lane_name), kind: kind(kind_name) }
}

pub(super) fn task(id: i64) -> TaskId {
    TaskId::new(id.unsigned_abs()).unwrap()
}

pub(super) fn text(text: &str) -> Value {
    Value::Text(text.into())
}

// --------------------------------------------------------------------------------------------------------------- memory

pub(super) struct MemorySubject {
    store: MemoryStore,
    apps: Apps,
}

impl MemorySubject {
    pub(super) fn new() -> Self {
        let store = MemoryStore::new(rules());
        Self { apps: store.apps(), store }
    }
}

impl Subject for MemorySubject {
    type Store = MemoryStore;

    fn store(&mut self) -> &mut MemoryStore {
        &mut self.store
    }

    fn another(&mut self, rules: Rules) -> MemoryStore {
        MemoryStore::reopen(&self.apps, rules)
    }

    fn app_insert(&mut self, cells: &[(&'static str, Value)]) -> Option<i64> {
        self.apps.insert(cells)
    }

    fn app_insert_waiting(&mut self, cells: &[(&'static str, Value)], parents: &[(i64, bool)]) -> Option<i64> {
        self.apps.insert_waiting(cells, parents)
    }

    fn app_depend(&mut self, task: i64, parent: i64, anyway: bool) {
        self.apps.depend(task, parent, anyway);
    }

    fn app_update(&mut self, id: i64, cells: &[(&'static str, Value)]) {
        self.apps.update(id, cells);
    }

    fn app_delete(&mut self, id: i64) {
        self.apps.delete(id);
    }

    fn rows(&self) -> BTreeMap<i64, Cells> {
        self.apps.rows()
    }

    fn failures(&self) -> Vec<Failure> {
        self.apps.failures()
    }

    fn app_insert_schedule(&mut self, cells: &[(&'static str, Value)]) -> i64 {
        self.apps.insert_schedule(cells)
    }

    fn app_update_schedule(&mut self, id: i64, cells: &[(&'static str, Value)]) {
        self.apps.update_schedule(id, cells);
    }

    fn app_delete_schedule(&mut self, id: i64) {
        self.apps.delete_schedule(id);
    }

    fn schedules(&self) -> BTreeMap<i64, Cells> {
        self.apps.schedules()
    }

    fn slots(&self) -> Vec<(i64, i64, i64, bool)> {
        self.apps.slots()
    }

    fn edges(&self) -> Vec<Edge> {
        self.apps.edges()
    }
}

// --------------------------------------------------------------------------------------------------------------- SQLite

pub(super) struct SqliteSubject {
    // Before the folder, which it lies in.
    store: SqliteStore,
    app: Connection,
    dir: tempfile::TempDir,
}

impl SqliteSubject {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tasks.db");
        Self { store: SqliteStore::open(&path, rules()).unwrap(), app: connect(&path, false).unwrap(), dir }
    }

    fn update(&self, table: &str, id: i64, cells: &[(&'static str, Value)]) {
        let sets: Vec<String> = cells.iter().map(|cell| format!("{} = ?", cell.0)).collect();
        let sql = format!("UPDATE {table} SET {} WHERE id = {id}", sets.join(", "));
        self.app.execute(&sql, params_from_iter(cells.iter().map(|cell| &cell.1))).unwrap();
    }

    fn cells_of(&self, table: &str, columns: &[(&'static str, Value)]) -> BTreeMap<i64, Cells> {
        let names: Vec<&'static str> = columns.iter().map(|column| column.0).collect();
        let mut statement = self.app.prepare(&format!("SELECT id, {} FROM {table}", names.join(", "))).unwrap();
        let rows = statement.query_map([], |row| {
            let cells = (1..).zip(&names).map(|(i, name)| Ok((*name, row.get(i)?)));
            Ok((row.get(0)?, cells.collect::<rusqlite::Result<Cells>>()?))
        });
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }
}

impl Subject for SqliteSubject {
    type Store = SqliteStore;

    fn store(&mut self) -> &mut SqliteStore {
        &mut self.store
    }

    fn another(&mut self, rules: Rules) -> SqliteStore {
        SqliteStore::open(&self.dir.path().join("tasks.db"), rules).unwrap()
    }

    fn app_insert(&mut self, cells: &[(&'static str, Value)]) -> Option<i64> {
        let names: Vec<&str> = cells.iter().map(|cell| cell.0).collect();
        let marks = vec!["?"; cells.len()].join(", ");
        let sql = format!("INSERT INTO tasks ({}) VALUES ({marks}) ON CONFLICT DO NOTHING", names.join(", "));
        let values = params_from_iter(cells.iter().map(|cell| &cell.1));
        (self.app.execute(&sql, values).unwrap() == 1).then(|| self.app.last_insert_rowid())
    }

    fn app_insert_waiting(&mut self, cells: &[(&'static str, Value)], parents: &[(i64, bool)]) -> Option<i64> {
        self.app.execute_batch("BEGIN IMMEDIATE").unwrap();
        let id = self.app_insert(cells);
        for (parent, anyway) in parents.iter().filter(|_| id.is_some()) {
            self.app_depend(id.unwrap(), *parent, *anyway);
        }
        self.app.execute_batch("COMMIT").unwrap();
        id
    }

    fn app_depend(&mut self, task: i64, parent: i64, anyway: bool) {
        let sql = "INSERT OR IGNORE INTO task_dependencies (task, parent, anyway) VALUES (?1, ?2, ?3)";
        self.app.execute(sql, (task, parent, anyway)).unwrap();
    }

    fn app_update(&mut self, id: i64, cells: &[(&'static str, Value)]) {
        self.update("tasks", id, cells);
    }

    fn app_delete(&mut self, id: i64) {
        self.app.execute("DELETE FROM tasks WHERE id = ?1", [id]).unwrap();
    }

    fn rows(&self) -> BTreeMap<i64, Cells> {
        self.cells_of("tasks", &COLUMNS)
    }

    fn failures(&self) -> Vec<Failure> {
        let sql = "SELECT task, run, cause, worker, error FROM failures ORDER BY id";
        let mut statement = self.app.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| {
            let cause: String = row.get(2)?;
            let causes = [Cause::Failed, Cause::Timeout, Cause::Lost, Cause::Rejected];
            let cause = causes.iter().find(|known| known.as_str() == cause).unwrap().as_str();
            Ok(Failure { task: row.get(0)?, run: row.get(1)?, cause, worker: row.get(3)?, error: row.get(4)? })
        });
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    fn app_insert_schedule(&mut self, cells: &[(&'static str, Value)]) -> i64 {
        let names: Vec<&str> = cells.iter().map(|cell| cell.0).collect();
        let marks = vec!["?"; cells.len()].join(", ");
        let sql = format!("INSERT INTO schedules ({}) VALUES ({marks})", names.join(", "));
        self.app.execute(&sql, params_from_iter(cells.iter().map(|cell| &cell.1))).unwrap();
        self.app.last_insert_rowid()
    }

    fn app_update_schedule(&mut self, id: i64, cells: &[(&'static str, Value)]) {
        self.update("schedules", id, cells);
    }

    fn app_delete_schedule(&mut self, id: i64) {
        self.app.execute("DELETE FROM schedules WHERE id = ?1", [id]).unwrap();
    }

    fn schedules(&self) -> BTreeMap<i64, Cells> {
        self.cells_of("schedules", &SCHEDULE_COLUMNS)
    }

    fn slots(&self) -> Vec<(i64, i64, i64, bool)> {
        let sql = "SELECT schedule, slot, task, new FROM schedule_slots ORDER BY schedule, slot";
        let mut statement = self.app.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }

    fn edges(&self) -> Vec<Edge> {
        let sql = "SELECT task, parent, anyway, open FROM task_dependencies ORDER BY task, parent";
        let mut statement = self.app.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| {
            Ok(Edge { task: row.get(0)?, parent: row.get(1)?, anyway: row.get(2)?, open: row.get(3)? })
        });
        rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
    }
}

// --------------------------------------------------------------------------------------------------------------- a world

/// A subject with an epoch, a clock and short words for what happens.
pub(super) struct World<T: Subject> {
    pub(super) subject: T,
    pub(super) now: Now,
    pub(super) opened: Opened,
    requests: u64,
}

/// A hand-out, to be started and ended.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) started: Started,
}

impl<T: Subject> World<T> {
    pub(super) fn new(mut subject: T) -> Self {
        let now = Now { wall: UnixMillis(START), ..Now::default() };
        let opened = subject.store().open_epoch([1; 16], now).unwrap();
        subject.store().changed().unwrap();
        Self { subject, now, opened, requests: 0 }
    }

    pub(super) fn turn<R>(&mut self, steps: impl FnOnce(&mut T::Store, Now) -> R) -> R {
        let now = self.now;
        let store = self.subject.store();
        store.begin(Sync::Power).unwrap();
        let result = steps(store, now);
        store.commit().unwrap();
        result
    }

    pub(super) fn apply(&mut self, ops: &[Op]) -> Vec<Option<OpResult>> {
        self.turn(|store, now| store.apply(ops, now).unwrap())
    }

    /// One operation that has a result.
    pub(super) fn ask(&mut self, op: Op) -> OpResult {
        self.apply(&[op]).remove(0).expect("a result")
    }

    pub(super) fn end(&mut self, ended: Ended) -> EndedAs {
        match self.ask(Op::Ended(ended)) {
            OpResult::Ended(as_what) => as_what,
            other => panic!("not an end: {other:?}"),
        }
    }

    /// Submits under a new request id.
    pub(super) fn submit(&mut self, tasks: Vec<NewTask>) -> OpResult {
        self.requests += 1;
        let mut request = [0; 16];
        request[..8].copy_from_slice(&self.requests.to_be_bytes());
        self.ask(Op::Submit { request: RequestId(request), tasks, group: None, secured: Vec::new() })
    }

    pub(super) fn submit_one(&mut self, task: NewTask) -> i64 {
        match self.submit(vec![task]) {
            OpResult::Submitted(stored) => i64::try_from(stored[0].task.value()).unwrap(),
            other => panic!("not stored: {other:?}"),
        }
    }

    /// A plain task of kind `k`.
    pub(super) fn plain(&mut self) -> i64 {
        self.submit_one(new_task("k"))
    }

    /// A row inserted by an app, with its time of creation.
    pub(super) fn insert(&mut self, cells: &[(&'static str, Value)]) -> i64 {
        let mut all = cells.to_vec();
        if cells.iter().all(|cell| cell.0 != "created_at") {
            all.push(("created_at", Value::Integer(self.now.wall.0)));
        }
        self.subject.app_insert(&all).expect("no live row with the key")
    }

    pub(super) fn load(&mut self, key: &QueueKey, rows: usize) -> LoadedRows {
        self.load_but(key, rows, &[])
    }

    pub(super) fn load_but(&mut self, key: &QueueKey, rows: usize, skip: &[i64]) -> LoadedRows {
        let skip: IdSet<TaskId> = skip.iter().map(|id| task(*id)).collect();
        self.turn(|store, now| {
            store
                .load(
                    Load {
                        key,
                        skip: &|task| skip.contains(&task),
                        rows,
                        bytes: 1_000_000,
                        fair: &FairRules::default(),
                    },
                    now,
                )
                .unwrap()
        })
    }

    /// Done and cancelled rows that ended longer ago go; gives how many.
    pub(super) fn prune(&mut self, age_ms: u64) -> usize {
        let limit = Limit { age_ms: Some(age_ms), count_max: None };
        let retention =
            Retention::new(Limits { done: limit, cancelled: limit, ..Limits::default() }, std::iter::empty());
        self.turn(|store, now| store.prune(&retention, &BTreeSet::new(), 99, now).unwrap()).deleted
    }

    pub(super) fn later(&mut self, ms: i64) {
        self.now.wall.0 += ms;
    }

    /// The next hand-out of a row, not said to the store yet.
    pub(super) fn hand_out(&mut self, id: i64) -> Run {
        let row = &self.subject.rows()[&id];
        let Value::Integer(runs) = row["runs"] else { panic!("runs is no number") };
        let run = u32::try_from(runs).unwrap() + 1;
        Run {
            started: Started {
                task: task(id),
                lease: Lease::new(MARK_MAX + id * 1000 + i64::from(run)),
                run,
                worker: SessionName::new("w1").unwrap(),
                at: self.now.wall,
                kind: kind("k"),
                lane: lane("normal"),
                attempt: 1,
                wait_ms: 0,
            },
        }
    }

    /// A hand-out that is recorded.
    pub(super) fn started(&mut self, id: i64) -> Run {
        let run = self.hand_out(id);
        self.apply(&[Op::Started(run.started.clone())]);
        assert_eq!(self.state(id), TaskState::Running, "the hand-out of {id} was not recorded");
        run
    }

    /// A plain task that runs.
    pub(super) fn running(&mut self) -> (i64, Run) {
        let id = self.plain();
        (id, self.started(id))
    }

    pub(super) fn cell(&self, id: i64, column: &str) -> Value {
        self.subject.rows()[&id][column].clone()
    }

    pub(super) fn state(&self, id: i64) -> TaskState {
        match self.cell(id, "state") {
            Value::Text(word) => TaskState::parse(&word).unwrap(),
            other => panic!("state is {other:?}"),
        }
    }

    /// runs, attempts, losses, releases.
    pub(super) fn counters(&self, id: i64) -> [i64; 4] {
        ["runs", "attempts", "losses", "releases"].map(|column| match self.cell(id, column) {
            Value::Integer(n) => n,
            other => panic!("{column} is {other:?}"),
        })
    }
}

impl Run {
    pub(super) fn ended(&self, next: Next, count: Count) -> Ended {
        let started = &self.started;
        Ended {
            task: started.task,
            lease: started.lease,
            run: started.run,
            next,
            count,
            error: None,
            cause: None,
            spawn: Vec::new(),
            worker: started.worker.clone(),
            at: started.at.after(5),
            kind: started.kind.clone(),
            lane: started.lane.clone(),
            attempt: started.attempt,
            run_ms: 5,
        }
    }

    pub(super) fn done(&self) -> Ended {
        self.ended(Next::Done(Some(Payload::json("{\"ok\":true}"))), Count::Attempt)
    }

    /// A failure that is tried again at `run_at`.
    pub(super) fn failed(&self, run_at: Option<UnixMillis>) -> Ended {
        Ended {
            error: Some("it broke".into()),
            cause: Some(Cause::Failed),
            ..self.ended(Next::Queued { run_at }, Count::Attempt)
        }
    }

    pub(super) fn with_lease(&self, lease: i64) -> Self {
        Self { started: Started { lease: Lease::new(lease), ..self.started.clone() } }
    }
}

pub(super) fn new_task(kind_name: &str) -> NewTask {
    NewTask::new(kind(kind_name), Some(Payload::json("{}")))
}

pub(super) fn ids(tasks: &[QueuedTask]) -> Vec<i64> {
    tasks.iter().map(|task| i64::try_from(task.id.value()).unwrap()).collect()
}

pub(super) fn found_ids(found: &[FoundTask]) -> Vec<i64> {
    found.iter().map(|task| i64::try_from(task.id.value()).unwrap()).collect()
}

//! Rows as any app may write them, every type in every column, into a real database: what the schema lets in, every step of
//! the store takes, and nothing that makes no sense is read ahead.

use std::cell::RefCell;
use std::collections::BTreeSet;

use laneway_core::{Edit, FairRules, Now, Op, QueueKey, UnixMillis};
use laneway_protocol::message::Filter;
use laneway_protocol::{Kind, LaneName, TaskId};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::Input;
use crate::config::Config;
use crate::store::sqlite::SqliteStore;
use crate::store::{Limit, Limits, Load, Retention, Store, Sync};

/// All that is not the id.
const COLUMNS: &[&str] = &[
    "kind",
    "lane",
    "state",
    "run_at",
    "lease",
    "runs",
    "attempts",
    "losses",
    "releases",
    "cancel_requested",
    "created_at",
    "started_at",
    "finished_at",
    "max_attempts",
    "timeout_ms",
    "expires_at",
    "open_dependencies",
    "group_id",
    "fair_key",
    "progress_done",
    "progress_total",
    "worker",
    "unique_key",
    "trace",
    "progress_note",
    "error",
    "payload",
    "checkpoint",
    "result",
];
/// Words that mean something in some column.
const WORDS: &[&str] = &[
    "echo",
    "normal",
    "high",
    "low",
    "queued",
    "running",
    "waiting",
    "done",
    "dead",
    "cancelled",
    "k",
    "",
    "hihg",
    "1",
];
/// Numbers at which something changes.
const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    3,
    1_000,
    1_820_000_000,
    1_820_000_000_000,
    1_820_000_000_001,
    9_007_199_254_740_991,
    i64::MAX,
    i64::MIN,
];
const STATEMENTS_MAX: usize = 16;
const NOW_MS: i64 = 1_820_000_000_000;

struct Table {
    // Before the folder, which it lies in.
    store: SqliteStore,
    app: Connection,
    now: Now,
    _folder: tempfile::TempDir,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::new(Table::new());
}

/// Statements of an app, with turns of the broker between and behind them.
pub fn rows(input: &[u8]) {
    TABLE.with_borrow_mut(|table| {
        let mut input = Input(input);
        for _ in 0..STATEMENTS_MAX {
            if input.is_empty() {
                break;
            }
            table.statement(&mut input);
        }
        table.turn();
        table.turn();
        table.now.wall = table.now.wall.after(1);
        table.app.execute_batch("DELETE FROM tasks; DELETE FROM failures; DELETE FROM sqlite_sequence").unwrap();
    });
}

impl Table {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.db");
        let now = Now { mono: laneway_core::Millis(1_000), wall: UnixMillis(NOW_MS) };
        let mut store = SqliteStore::open(&path, crate::run::rules(&Config::default())).unwrap();
        store.open_epoch([1; 16], now).unwrap();
        let app = Connection::open(&path).unwrap();
        app.execute_batch("PRAGMA synchronous = OFF").unwrap();
        Self { store, app, now, _folder: folder }
    }

    /// One of an app, or a turn of the broker between two.
    fn statement(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        if what % 8 == 7 {
            return self.turn();
        }
        let n_columns = usize::from(what >> 4).max(1);
        let mut columns: Vec<&str> = Vec::new();
        let mut values = Vec::new();
        for _ in 0..n_columns {
            let column = COLUMNS[usize::from(input.byte()) % COLUMNS.len()];
            let value = value(input);
            if !columns.contains(&column) {
                columns.push(column);
                values.push(value);
            }
        }
        let sql = if what % 8 < 5 {
            if !columns.contains(&"kind") {
                columns.push("kind");
                values.push(Value::Text("echo".into()));
            }
            let marks = vec!["?"; columns.len()].join(", ");
            format!("INSERT INTO tasks ({}) VALUES ({marks})", columns.join(", "))
        } else {
            let id = input.byte() % 8;
            format!(
                "UPDATE tasks SET {} WHERE id = {id}",
                columns.iter().map(|column| format!("{column} = ?")).collect::<Vec<_>>().join(", ")
            )
        };
        // What the schema refuses is refused in the app's own statement.
        self.app.execute(&sql, params_from_iter(values)).ok();
    }

    /// A turn as the scheduler does one, with every question that a peer may ask.
    fn turn(&mut self) {
        let now = self.now;
        self.store.changed().unwrap();
        self.store.begin(Sync::Process).unwrap();
        let ids: Vec<TaskId> = (1..=8).filter_map(TaskId::new).collect();
        let questions = [
            Op::Find(ids.clone()),
            Op::FindKey { kind: Kind::new("echo").unwrap(), unique_key: "k".into() },
            Op::Endings(ids.clone()),
            Op::List(Filter::default()),
            Op::Show { tasks: ids.clone(), detail: true },
            Op::Counts,
            Op::Cancel(ids[..1].to_vec()),
            Op::Requeue(ids[1..2].to_vec()),
            Op::Edit { edit: Edit::Move(LaneName::new("high").unwrap()), tasks: ids[2..4].to_vec() },
            Op::Edit { edit: Edit::RunNow, tasks: ids[4..6].to_vec() },
            Op::Edit { edit: Edit::Purge, tasks: ids[6..].to_vec() },
        ];
        self.store.apply(&questions, now).unwrap();
        self.store.commit().unwrap();
        // Apart from the above, so that what is read ahead can be compared with what is committed.
        self.store.begin(Sync::Process).unwrap();
        while self.store.intake(64, now).unwrap().rows == 64 {}
        self.store.sweep(64, now).unwrap();
        for lane in ["high", "normal", "low"] {
            self.load(lane);
        }
        self.store.endings(&ids).unwrap();
        self.store.recount(64).unwrap();
        let done = Limit { age_ms: Some(1_000_000), count_max: Some(6) };
        let retention = Retention::new(Limits { done, cancelled: done, dead: done }, std::iter::empty());
        self.store.prune(&retention, &BTreeSet::new(), 64, now).unwrap();
        self.store.commit().unwrap();
    }

    fn load(&mut self, lane: &str) {
        let key = QueueKey { lane: LaneName::new(lane).unwrap(), kind: Kind::new("echo").unwrap() };
        let load = Load { key: &key, skip: &|_| false, rows: 64, bytes: 1 << 20, fair: &FairRules::default() };
        for task in self.store.load(load, self.now).unwrap().tasks {
            let sql = "SELECT concat_ws(',', typeof(kind), typeof(lane), typeof(runs), typeof(attempts), typeof(max_attempts), \
                       typeof(timeout_ms), typeof(unique_key)) FROM tasks WHERE id = ?1";
            let id = i64::try_from(task.id.value()).unwrap();
            let types: String = self.app.query_row(sql, [id], |row| row.get(0)).unwrap();
            let fits = types.starts_with("text,") && !types.contains("blob") && !types.contains("real");
            assert!(fits, "task {id} is read ahead with {types}");
        }
    }
}

fn value(input: &mut Input<'_>) -> Value {
    match input.byte() {
        0 => Value::Null,
        1..=40 => Value::Integer(NUMBERS[usize::from(input.byte()) % NUMBERS.len()]),
        41..=60 => Value::Integer(i64::from(input.word()) - 0x8000),
        61..=80 => Value::Real(f64::from(input.word()) / 16.0 - 100.0),
        81..=90 => {
            Value::Real([f64::INFINITY, f64::NEG_INFINITY, 1.82e12, 1.5, -0.0, 1e300][usize::from(input.byte()) % 6])
        }
        91..=200 => Value::Text(WORDS[usize::from(input.byte()) % WORDS.len()].into()),
        201..=220 => {
            let n = usize::from(input.byte());
            Value::Text(String::from_utf8_lossy(input.take(n)).into_owned())
        }
        221..=250 => {
            let n = usize::from(input.byte());
            Value::Blob(input.take(n).to_vec())
        }
        // Just over what a payload, a name or a key may have.
        251..=253 => Value::Text("k".repeat([65, 129, 513][usize::from(input.byte()) % 3])),
        _ => Value::Blob(vec![0; 1_048_577]),
    }
}

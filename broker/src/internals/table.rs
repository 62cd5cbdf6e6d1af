//! The table as apps see it, over whichever store, and what a power cut leaves of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::store::memory::{Apps, COLUMNS, Image, MemoryStore, SCHEDULE_COLUMNS};
use crate::store::sqlite::{SqliteStore, connect};
use crate::store::{Rules, Store, StoreError};

type Cells = BTreeMap<&'static str, Value>;

/// Task and parent, with whether the task runs though the parent fails.
pub type Edges = BTreeMap<(i64, i64), bool>;

/// Rows that outlive brokers. Every call is a transaction of an app.
#[derive(Debug)]
pub struct Table(Kind);

#[derive(Debug)]
enum Kind {
    Memory(Apps),
    Sqlite { path: PathBuf, app: Connection },
}

/// The whole table at one moment.
#[derive(Debug, Clone)]
pub struct Durable(Copied);

#[derive(Debug, Clone)]
enum Copied {
    Memory(Box<Image>),
    Sqlite { main: Vec<u8>, wal: Vec<u8> },
}

impl Table {
    /// On nothing but memory.
    pub fn memory() -> Self {
        Self(Kind::Memory(Apps::default()))
    }

    /// In a file, which this call makes when it is not there.
    ///
    /// # Panics
    /// When the file cannot be made or opened.
    pub fn sqlite(path: &Path) -> Self {
        let mut app = connect(path, true).expect("the file can be made");
        crate::store::sqlite::migrate(&mut app).expect("an empty file takes the schema");
        // The writer of the broker is the only one who moves the log, at moments that it chooses.
        app.pragma_update(None, "wal_autocheckpoint", 0).expect("a connection takes its settings");
        Self(Kind::Sqlite { path: path.into(), app })
    }

    /// Statements of an app, by its own connection.
    ///
    /// # Panics
    /// When the table is not in a file, or SQLite refuses one.
    pub fn execute(&self, sql: &str) {
        match &self.0 {
            Kind::Memory(_) => panic!("a table on memory has no SQL"),
            Kind::Sqlite { app, .. } => app.execute_batch(sql).expect("the statements are right and the lock is free"),
        }
    }

    /// `None` when a live row has the unique key.
    pub fn insert(&self, cells: &[(&'static str, Value)]) -> Option<i64> {
        match &self.0 {
            Kind::Memory(apps) => apps.insert(cells),
            Kind::Sqlite { app, .. } => {
                let names: Vec<&str> = cells.iter().map(|cell| cell.0).collect();
                let marks = vec!["?"; cells.len()].join(", ");
                let sql = format!("INSERT INTO tasks ({}) VALUES ({marks}) ON CONFLICT DO NOTHING", names.join(", "));
                (run(app, &sql, cells) == 1).then(|| app.last_insert_rowid())
            }
        }
    }

    /// Inserts a row that waits for these, each with whether it runs though they fail.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn insert_waiting(&self, cells: &[(&'static str, Value)], parents: &[(i64, bool)]) -> Option<i64> {
        match &self.0 {
            Kind::Memory(apps) => apps.insert_waiting(cells, parents),
            Kind::Sqlite { app, .. } => {
                app.execute_batch("BEGIN IMMEDIATE").expect("nobody holds the lock between steps");
                let id = self.insert(cells);
                for (parent, anyway) in parents.iter().filter(|_| id.is_some()) {
                    self.depend(id.expect("just looked at"), *parent, *anyway);
                }
                app.execute_batch("COMMIT").expect("a transaction that was begun can end");
                id
            }
        }
    }

    /// Lets a row wait for one more.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn depend(&self, task: i64, parent: i64, anyway: bool) {
        match &self.0 {
            Kind::Memory(apps) => apps.depend(task, parent, anyway),
            Kind::Sqlite { app, .. } => {
                let sql = "INSERT OR IGNORE INTO task_dependencies (task, parent, anyway) VALUES (?1, ?2, ?3)";
                app.execute(sql, (task, parent, anyway)).expect("nobody holds the lock between steps");
            }
        }
    }

    /// Who waits, or waited, for whom. Commits nothing.
    ///
    /// # Panics
    /// When the file cannot be read.
    pub fn edges(&self) -> Edges {
        match &self.0 {
            Kind::Memory(apps) => {
                apps.edges().into_iter().map(|edge| ((edge.task, edge.parent), edge.anyway)).collect()
            }
            Kind::Sqlite { app, .. } => {
                let sql = "SELECT task, parent, anyway FROM task_dependencies";
                let mut statement = app.prepare_cached(sql).expect("the columns are known");
                let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)));
                rows.and_then(Iterator::collect).expect("a table can be read")
            }
        }
    }

    pub fn update(&self, id: i64, cells: &[(&'static str, Value)]) {
        match &self.0 {
            Kind::Memory(apps) => apps.update(id, cells),
            Kind::Sqlite { app, .. } => {
                let sets: Vec<String> = cells.iter().map(|cell| format!("{} = ?", cell.0)).collect();
                run(app, &format!("UPDATE tasks SET {} WHERE id = {id}", sets.join(", ")), cells);
            }
        }
    }

    pub fn delete(&self, id: i64) {
        match &self.0 {
            Kind::Memory(apps) => apps.delete(id),
            Kind::Sqlite { app, .. } => drop(run(app, &format!("DELETE FROM tasks WHERE id = {id}"), &[])),
        }
    }

    /// Every row with every column. Commits nothing.
    pub fn rows(&self) -> BTreeMap<i64, Cells> {
        match &self.0 {
            Kind::Memory(apps) => apps.rows(),
            Kind::Sqlite { app, .. } => all(app, "tasks", &COLUMNS),
        }
    }

    pub fn insert_schedule(&self, cells: &[(&'static str, Value)]) -> i64 {
        match &self.0 {
            Kind::Memory(apps) => apps.insert_schedule(cells),
            Kind::Sqlite { app, .. } => {
                let names: Vec<&str> = cells.iter().map(|cell| cell.0).collect();
                let marks = vec!["?"; cells.len()].join(", ");
                run(app, &format!("INSERT INTO schedules ({}) VALUES ({marks})", names.join(", ")), cells);
                app.last_insert_rowid()
            }
        }
    }

    pub fn update_schedule(&self, id: i64, cells: &[(&'static str, Value)]) {
        match &self.0 {
            Kind::Memory(apps) => apps.update_schedule(id, cells),
            Kind::Sqlite { app, .. } => {
                let sets: Vec<String> = cells.iter().map(|cell| format!("{} = ?", cell.0)).collect();
                run(app, &format!("UPDATE schedules SET {} WHERE id = {id}", sets.join(", ")), cells);
            }
        }
    }

    pub fn delete_schedule(&self, id: i64) {
        match &self.0 {
            Kind::Memory(apps) => apps.delete_schedule(id),
            Kind::Sqlite { app, .. } => drop(run(app, &format!("DELETE FROM schedules WHERE id = {id}"), &[])),
        }
    }

    /// Every schedule with every column. Commits nothing.
    pub fn schedules(&self) -> BTreeMap<i64, Cells> {
        match &self.0 {
            Kind::Memory(apps) => apps.schedules(),
            Kind::Sqlite { app, .. } => all(app, "schedules", &SCHEDULE_COLUMNS),
        }
    }

    /// The slots that are remembered: schedule, slot, task, and whether that was new.
    ///
    /// # Panics
    /// When the file cannot be read.
    pub fn slots(&self) -> Vec<(i64, i64, i64, bool)> {
        match &self.0 {
            Kind::Memory(apps) => apps.slots(),
            Kind::Sqlite { app, .. } => {
                let sql = "SELECT schedule, slot, task, new FROM schedule_slots ORDER BY schedule, slot";
                let mut statement = app.prepare_cached(sql).expect("the columns are known");
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
                rows.and_then(Iterator::collect).expect("a table can be read")
            }
        }
    }

    /// A copy of everything that is committed now.
    ///
    /// # Panics
    /// When the files cannot be read.
    pub fn copy(&self) -> Durable {
        Durable(match &self.0 {
            Kind::Memory(apps) => Copied::Memory(Box::new(apps.image())),
            Kind::Sqlite { path, .. } => {
                let read = |path: &Path| std::fs::read(path).expect("the files of the table can be read");
                Copied::Sqlite { main: read(path), wal: read(&beside(path, "-wal")) }
            }
        })
    }

    /// The power fails and this is what the disk has. No broker may have the table open.
    ///
    /// # Panics
    /// When the files cannot be written, or the copy is of a table on another store.
    pub fn lose_power(&mut self, left: &Durable) {
        match (&mut self.0, &left.0) {
            (Kind::Memory(apps), Copied::Memory(image)) => apps.restore(image),
            (Kind::Sqlite { path, app }, Copied::Sqlite { main, wal }) => {
                *app = Connection::open_in_memory().expect("memory is there");
                std::fs::remove_file(beside(path, "-shm")).ok();
                std::fs::write(&*path, main).expect("the files of the table can be written");
                std::fs::write(beside(path, "-wal"), wal).expect("the files of the table can be written");
                *app = connect(path, false).expect("the file is there");
                app.pragma_update(None, "wal_autocheckpoint", 0).expect("a connection takes its settings");
            }
            _ => panic!("the copy is of another store"),
        }
    }

    /// Another handle of a table on memory.
    pub(super) fn same_memory(&self) -> Option<Self> {
        match &self.0 {
            Kind::Memory(apps) => Some(Self(Kind::Memory(apps.clone()))),
            Kind::Sqlite { .. } => None,
        }
    }

    /// A second table that begins as a copy of this one. `None` for a file.
    pub fn fork(&self) -> Option<Self> {
        match &self.0 {
            Kind::Memory(apps) => Some(Self(Kind::Memory(apps.fork()))),
            Kind::Sqlite { .. } => None,
        }
    }

    pub(super) fn open(&self, rules: Rules) -> Result<Box<dyn Store>, StoreError> {
        Ok(match &self.0 {
            Kind::Memory(apps) => Box::new(MemoryStore::reopen(apps, rules)),
            Kind::Sqlite { path, .. } => Box::new(SqliteStore::open(path, rules)?),
        })
    }
}

fn all(app: &Connection, table: &str, columns: &[(&'static str, Value)]) -> BTreeMap<i64, Cells> {
    let names: Vec<&'static str> = columns.iter().map(|column| column.0).collect();
    let sql = format!("SELECT id, {} FROM {table}", names.join(", "));
    let mut statement = app.prepare_cached(&sql).expect("the columns are known");
    let rows = statement.query_map([], |row| {
        let cells = (1..).zip(&names).map(|(i, name)| Ok((*name, row.get(i)?)));
        Ok((row.get(0)?, cells.collect::<rusqlite::Result<Cells>>()?))
    });
    rows.and_then(Iterator::collect).expect("a table can be read")
}

fn run(app: &Connection, sql: &str, cells: &[(&'static str, Value)]) -> usize {
    let mut statement = app.prepare_cached(sql).expect("the columns are known");
    statement.execute(params_from_iter(cells.iter().map(|cell| &cell.1))).expect("nobody holds the lock between steps")
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

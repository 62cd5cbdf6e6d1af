//! The table, as any app sees it.

use rusqlite::types::FromSql;
use rusqlite::{Connection, Params};

use super::{Place, wait_until};

/// An app's own connection.
pub(crate) struct Table(pub(crate) Connection);

impl Table {
    pub(crate) fn open(place: &Place) -> Self {
        let connection = Connection::open(place.db()).unwrap();
        connection.busy_timeout(super::DEADLINE).unwrap();
        Self(connection)
    }

    /// Inserts one task; gives its id.
    pub(crate) fn insert(&self, kind: &str, payload: &str) -> i64 {
        self.0.execute("INSERT INTO tasks(kind, payload) VALUES (?1, ?2)", [kind, payload]).unwrap();
        self.0.last_insert_rowid()
    }

    pub(crate) fn insert_in(&self, lane: &str, kind: &str, payload: &str) -> i64 {
        self.0.execute("INSERT INTO tasks(lane, kind, payload) VALUES (?1, ?2, ?3)", [lane, kind, payload]).unwrap();
        self.0.last_insert_rowid()
    }

    /// Inserts `n` equal tasks in one transaction.
    pub(crate) fn insert_many(&self, n: usize, lane: &str, kind: &str, payload: &str) {
        self.0.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut insert = self.0.prepare("INSERT INTO tasks(lane, kind, payload) VALUES (?1, ?2, ?3)").unwrap();
        for _ in 0..n {
            insert.execute([lane, kind, payload]).unwrap();
        }
        self.0.execute_batch("COMMIT").unwrap();
    }

    pub(crate) fn execute(&self, sql: &str, params: impl Params) -> usize {
        self.0.execute(sql, params).unwrap()
    }

    /// The first column of the only row.
    pub(crate) fn one<T: FromSql>(&self, sql: &str, params: impl Params) -> T {
        self.0.query_row(sql, params, |row| row.get(0)).unwrap()
    }

    /// One column of a task.
    pub(crate) fn column<T: FromSql>(&self, id: i64, column: &str) -> T {
        self.one(&format!("SELECT {column} FROM tasks WHERE id = ?1"), [id])
    }

    pub(crate) fn state(&self, id: i64) -> String {
        self.column(id, "state")
    }

    pub(crate) fn count(&self, condition: &str) -> i64 {
        self.one(&format!("SELECT count(*) FROM tasks WHERE {condition}"), [])
    }

    #[track_caller]
    pub(crate) fn wait_for_state(&self, id: i64, state: &str) {
        wait_until(&format!("task {id} to be {state}"), || self.state(id) == state);
    }

    /// Waits until `n` rows meet a condition.
    #[track_caller]
    pub(crate) fn wait_for_count(&self, condition: &str, n: i64) {
        wait_until(&format!("{n} rows with {condition}"), || self.count(condition) == n);
    }
}

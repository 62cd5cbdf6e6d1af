//! A database with the broker's schema for the tests of this folder, and SQLite's own word on how it would read.

use std::path::PathBuf;

use rusqlite::Connection;

use super::table::add_functions;

const SCHEMA: [&str; 8] = [
    include_str!("../../../src/store/migrations/sqlite/V1__tasks.sql"),
    include_str!("../../../src/store/migrations/sqlite/V2__workflows.sql"),
    include_str!("../../../src/store/migrations/sqlite/V3__schedules.sql"),
    include_str!("../../../src/store/migrations/sqlite/V5__kinds.sql"),
    include_str!("../../../src/store/migrations/sqlite/V6__unique_windows.sql"),
    include_str!("../../../src/store/migrations/sqlite/V8__kinds_kept.sql"),
    include_str!("../../../src/store/migrations/sqlite/V9__fair_keys.sql"),
    include_str!("../../../src/store/migrations/sqlite/V10__lighter_outcomes.sql"),
];

pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        let conn = place.conn();
        conn.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        for sql in SCHEMA {
            conn.execute_batch(sql).unwrap();
        }
        place
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.dir.path().join("tasks.db")
    }

    pub(crate) fn conn(&self) -> Connection {
        let conn = Connection::open(self.db()).unwrap();
        add_functions(&conn).unwrap();
        conn
    }
}

/// Fails when SQLite would read a whole table, or sort more than it gives.
pub(crate) fn assert_indexed(conn: &Connection, sql: &str) {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let n = statement.parameter_count();
    let nothing = vec![rusqlite::types::Null; n];
    let plan = statement.query_map(rusqlite::params_from_iter(nothing), |row| row.get::<_, String>(3)).unwrap();
    for step in plan.map(Result::unwrap) {
        let is_bad = step.starts_with("SCAN tasks") || step.starts_with("SCAN failures") || step.contains("SCAN task_");
        assert!(!is_bad && !step.contains("TEMP B-TREE"), "{sql}\nwould {step}");
    }
}

//! New rows, several in one statement where they are plain: the table and the indexes that a row could belong in are opened once
//! for all of them, which is a third of what a row costs.

use std::sync::LazyLock;

use laneway_core::Now;
use laneway_protocol::message::NewTask;
use laneway_protocol::{FairKey, LaneName};
use rusqlite::{CachedStatement, Connection, Statement};

use super::row::{SqlPayload, sql_u64};
use super::schema::has_app_trigger;
use super::unique::keep_for;
use crate::store::StoreError;

/// Rows of one statement. Twice as many would save a twentieth more.
const ROWS: usize = 16;
/// Of the payloads of one statement, which SQLite copies all before the first row is written.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
const COLUMNS: usize = 13;

static ONE: LazyLock<String> = LazyLock::new(|| insert(1));
static SEVERAL: LazyLock<String> = LazyLock::new(|| insert(ROWS));

fn insert(rows: usize) -> String {
    let row = format!("({})", ["?"; COLUMNS].join(", "));
    format!(
        "INSERT INTO tasks (kind, lane, payload, run_at, unique_key, max_attempts, timeout_ms, expires_at, trace, created_at, \
         state, group_id, fair_key) VALUES {}",
        vec![row; rows].join(", ")
    )
}

/// What the rows of one list are inserted with.
pub(super) struct Inserts<'c> {
    conn: &'c Connection,
    now: Now,
    one: CachedStatement<'c>,
    /// Not where an app has a trigger, which may refuse a row, pass over it, or insert others between.
    several: Option<CachedStatement<'c>>,
}

impl<'c> Inserts<'c> {
    pub(super) fn one_by_one(conn: &'c Connection, now: Now) -> Result<Self, StoreError> {
        Ok(Self { conn, now, one: conn.prepare_cached(&ONE)?, several: None })
    }

    /// For a list of so many.
    pub(super) fn of(conn: &'c Connection, tasks: usize, now: Now) -> Result<Self, StoreError> {
        let are_worth_it = tasks >= ROWS && !has_app_trigger(conn)?;
        let several = are_worth_it.then(|| conn.prepare_cached(&SEVERAL)).transpose()?;
        Ok(Self { several, ..Self::one_by_one(conn, now)? })
    }

    /// Gives the id of the new row.
    pub(super) fn row(&mut self, task: &NewTask, state: &str, group: Option<i64>) -> Result<i64, StoreError> {
        bind(&mut self.one, 0, task, state, group, self.now)?;
        self.one.raw_execute()?;
        let id = self.conn.last_insert_rowid();
        keep_for(self.conn, id, task)?;
        Ok(id)
    }

    /// Queues the first tasks of a list at once, when none of them has a key that another row could have. Gives the id of the first
    /// and how many they are; the others have the ids that follow. `None` when they are to be inserted one by one.
    pub(super) fn rows(&mut self, tasks: &[NewTask]) -> Result<Option<(i64, usize)>, StoreError> {
        let (Some(statement), Some(tasks)) = (&mut self.several, tasks.get(..ROWS)) else { return Ok(None) };
        let bytes: usize =
            tasks.iter().map(|task| task.payload.as_ref().map_or(0, |payload| payload.bytes.len())).sum();
        if bytes > PAYLOAD_BYTES_MAX || tasks.iter().any(|task| task.unique_key.is_some()) {
            return Ok(None);
        }
        for (row, task) in tasks.iter().enumerate() {
            bind(statement, row, task, "queued", None, self.now)?;
        }
        let inserted = statement.raw_execute()?;
        debug_assert_eq!(inserted, ROWS);
        let last = self.conn.last_insert_rowid();
        Ok(Some((last + 1 - i64::try_from(inserted).unwrap_or(1), inserted)))
    }
}

/// The values of a row, in the order of the columns.
fn bind(
    statement: &mut Statement<'_>,
    row: usize,
    task: &NewTask,
    state: &str,
    group: Option<i64>,
    now: Now,
) -> rusqlite::Result<()> {
    let mut at = row * COLUMNS;
    let mut next = || {
        at += 1;
        at
    };
    statement.raw_bind_parameter(next(), task.kind.as_str())?;
    statement.raw_bind_parameter(next(), task.lane.as_ref().map(LaneName::as_str))?;
    statement.raw_bind_parameter(next(), SqlPayload(task.payload.as_ref()))?;
    statement.raw_bind_parameter(next(), task.run_at)?;
    statement.raw_bind_parameter(next(), task.unique_key.as_ref())?;
    statement.raw_bind_parameter(next(), task.max_attempts)?;
    statement.raw_bind_parameter(next(), task.timeout_ms.map(sql_u64))?;
    statement.raw_bind_parameter(next(), task.expires_at)?;
    statement.raw_bind_parameter(next(), task.trace.as_ref())?;
    statement.raw_bind_parameter(next(), now.wall.0)?;
    statement.raw_bind_parameter(next(), state)?;
    statement.raw_bind_parameter(next(), group)?;
    statement.raw_bind_parameter(next(), task.fair_key.as_ref().map(FairKey::as_str))
}

#[cfg(test)]
mod tests {
    use laneway_protocol::Kind;
    use laneway_protocol::message::{Payload, Stored};

    use super::super::submit::{NewList, insert_list};
    use super::super::tests::{NOW, opened};
    use super::*;

    fn task(n: usize) -> NewTask {
        let key = (n % 40 == 33).then(|| format!("key {}", n % 80));
        let payload = (!n.is_multiple_of(3)).then(|| Payload::json(n.to_string()));
        NewTask {
            unique_key: key,
            run_at: n.is_multiple_of(7).then_some(NOW.wall.0),
            payload,
            ..NewTask::new(Kind::new("k").unwrap(), None)
        }
    }

    /// What the answer and the table say when these are submitted in lists of so many.
    fn submitted(tasks: &[NewTask], n: usize, app: &str) -> (Vec<Stored>, String) {
        let dir = tempfile::tempdir().unwrap();
        let store = opened(&dir.path().join("t.db"));
        store.conn.execute_batch(app).unwrap();
        let submit = |tasks: &[NewTask]| {
            let list = NewList { tasks, ..NewList::default() };
            insert_list(&store.conn, &store.state.judge, list, NOW).unwrap().unwrap().stored
        };
        let stored = tasks.chunks(n).flat_map(submit).collect();
        let sql = "SELECT group_concat(id || kind || coalesce(payload, '-') || coalesce(run_at, '-') || coalesce(unique_key, '-'), ' ') \
                   FROM (SELECT * FROM tasks ORDER BY id)";
        (stored, store.conn.query_row(sql, [], |row| row.get(0)).unwrap())
    }

    #[test]
    fn a_list_is_stored_as_its_tasks_one_by_one() {
        // Proves that rows of one statement have the values and the ids that each would have had alone: beside keys that are new and
        // keys that are taken, a payload that is too large for the others' company, and a trigger of an app that adds a row between.
        let mut tasks: Vec<NewTask> = (0..120).map(task).collect();
        tasks[70].payload = Some(Payload::json(format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX))));
        let adding = "CREATE TRIGGER app AFTER INSERT ON tasks WHEN new.payload = '50' \
                      BEGIN INSERT INTO tasks (kind) VALUES ('by the app'); END;";
        for app in ["", adding] {
            let together = submitted(&tasks, tasks.len(), app);
            assert_eq!(together, submitted(&tasks, 1, app), "{app}");
            assert_eq!(together.0.iter().filter(|stored| stored.new).count(), 119, "one key is taken");
        }
    }
}

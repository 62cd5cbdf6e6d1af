//! Opens the database file and brings its schema up to date; used by the store, the checkpoints and the offline
//! commands. A schema newer than this program is refused.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use crate::store::StoreError;

mod embedded {
    refinery::embed_migrations!("src/store/migrations/sqlite");
}

/// The newest schema that this program knows.
pub(crate) const SCHEMA_VERSION: u32 = 13;

/// Where the applied migrations are written down; refinery's own name would be that of an app which uses it too.
const HISTORY: &str = "laneway_schema_history";

/// Every table and view of the schema. All but those that apps use are named so that no app has them already.
pub(crate) const NAMES: [&str; 17] = [
    "tasks",
    "failures",
    "task_view",
    "schedules",
    "schedule_slots",
    "laneway_epochs",
    "laneway_fair_keys",
    "laneway_kinds",
    "laneway_lanes",
    "laneway_left",
    "laneway_moved",
    "laneway_requests",
    "laneway_sessions",
    "laneway_windows",
    "task_dependencies",
    "task_groups",
    HISTORY,
];

/// Patience of connections that are not the scheduler's; those of the scheduler's retry on their own.
const BUSY: Duration = Duration::from_secs(5);

/// Statements that stay prepared; more than the store has.
const STATEMENTS_MAX: usize = 128;

/// Opens for reading and writing, and creates the file when asked to. No migration.
pub(crate) fn connect(path: &Path, create: bool) -> Result<Connection, StoreError> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let conn = Connection::open_with_flags(path, flags).map_err(|error| at(path, error))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    conn.busy_timeout(BUSY)?;
    Ok(conn)
}

/// Whether an app has a trigger on the table of tasks. Our own are of changes that neither an insert nor an outcome makes.
pub(super) fn has_app_trigger(conn: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema \
               WHERE type = 'trigger' AND tbl_name = 'tasks' COLLATE NOCASE \
               AND name NOT IN ('tasks_moved', 'tasks_left', 'tasks_left_kind'))";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
}

/// Switches to WAL, which is kept in the file, and applies the migrations that are missing.
///
/// # Errors
/// [`StoreError::NameTaken`] before anything is changed.
pub(crate) fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    let found = version(conn)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::SchemaTooNew { found, known: SCHEMA_VERSION });
    }
    names_are_free(conn)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let text = format!("journal mode is {mode} and cannot be WAL: use a local file system");
        return Err(StoreError::Unavailable(text));
    }
    if found < SCHEMA_VERSION {
        let mut runner = embedded::migrations::runner();
        runner.set_migration_table_name(HISTORY);
        runner.run(conn).map_err(|error| StoreError::Unavailable(cause(&error)))?;
    }
    Ok(())
}

/// What SQLite says, without the text of the whole migration that refinery and rusqlite add to it.
fn cause(error: &refinery::Error) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(rusqlite::Error::SqlInputError { msg, .. }) = inner.downcast_ref() {
            return format!("cannot make the tables: {msg}");
        }
        source = inner.source();
    }
    error.to_string()
}

/// Fails when an app's table or view has a name that the schema needs, in a file that has no schema of ours yet.
pub(crate) fn names_are_free(conn: &Connection) -> Result<(), StoreError> {
    if version(conn)? > 0 {
        return Ok(());
    }
    let mut taken = conn.prepare("SELECT type, name FROM sqlite_master WHERE type <> 'trigger'")?;
    let taken =
        taken.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<Vec<(String, String)>, _>>()?;
    // An empty history is what an interrupted first start left.
    let ours = |name: &str| name != HISTORY && NAMES.iter().any(|own| own.eq_ignore_ascii_case(name));
    match taken.into_iter().find(|(_, name)| ours(name)) {
        Some((what, name)) => Err(StoreError::NameTaken { what, name }),
        None => Ok(()),
    }
}

/// The schema of the file, 0 when it has none.
pub(crate) fn version(conn: &Connection) -> Result<u32, StoreError> {
    let table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1";
    if conn.query_row(table, [HISTORY], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    Ok(conn.query_row(&format!("SELECT coalesce(max(version), 0) FROM {HISTORY}"), [], |row| row.get(0))?)
}

fn at(path: &Path, error: rusqlite::Error) -> StoreError {
    match StoreError::from(error) {
        StoreError::Unavailable(cause) => StoreError::Unavailable(format!("{}: {cause}", path.display())),
        StoreError::Corrupt(cause) => StoreError::Corrupt(format!("{}: {cause}", path.display())),
        StoreError::Broken(cause) => StoreError::Broken(format!("{}: {cause}", path.display())),
        other => other,
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let Some(code) = error.sqlite_error_code() else {
            return StoreError::Broken(error.to_string());
        };
        match code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Locked,
            ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory
            | ErrorCode::FileLockingProtocolFailed => StoreError::Unavailable(error.to_string()),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt(error.to_string()),
            // A trigger or a constraint that an app has added to the table.
            ErrorCode::ConstraintViolation => StoreError::Refused(format!("the database refuses the row: {error}")),
            _ => StoreError::Broken(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_version_is_the_newest_migration() {
        // A migration added without raising the constant would never be applied.
        let runner = embedded::migrations::runner();
        let newest = runner.get_migrations().iter().map(refinery::Migration::version).max().unwrap();
        assert_eq!(u32::try_from(newest).unwrap(), SCHEMA_VERSION);
    }

    #[test]
    fn migrating_twice_changes_nothing_and_a_newer_schema_is_refused() {
        // Forward only, and never by an older program.
        let dir = tempfile::tempdir().unwrap();
        let mut conn = connect(&dir.path().join("t.db"), true).unwrap();
        migrate(&mut conn).unwrap();
        migrate(&mut conn).unwrap();
        assert_eq!(version(&conn).unwrap(), SCHEMA_VERSION);
        conn.execute_batch("UPDATE laneway_schema_history SET version = 99 WHERE version = 1").unwrap();
        assert!(matches!(migrate(&mut conn), Err(StoreError::SchemaTooNew { found: 99, known: SCHEMA_VERSION })));
    }

    #[test]
    fn the_names_of_the_schema_are_all_checked() {
        // A table added by a migration and not to the list would be found taken only half-way.
        let mut conn = Connection::open_in_memory().unwrap();
        embedded::migrations::runner().set_migration_table_name(HISTORY).run(&mut conn).unwrap();
        let sql =
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY name";
        let found: Vec<String> =
            conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut names = NAMES;
        names.sort_unstable();
        assert_eq!(found, names);
    }

    #[test]
    fn a_table_of_an_app_that_has_our_name_is_told_and_left_alone() {
        // In one line, in any case of letters, and before the file is changed in any way.
        let dir = tempfile::tempdir().unwrap();
        for (n, (sql, what)) in [
            ("CREATE TABLE tasks (x)", "a table named 'tasks'"),
            ("CREATE TABLE Failures (x)", "a table named 'Failures'"),
            ("CREATE VIEW task_view AS SELECT 1 AS x", "a view named 'task_view'"),
        ]
        .into_iter()
        .enumerate()
        {
            let mut conn = connect(&dir.path().join(format!("{n}.db")), true).unwrap();
            conn.execute_batch(sql).unwrap();
            let error = migrate(&mut conn).unwrap_err().to_string();
            assert!(error.contains(what) && error.lines().count() == 1, "{error}");
            let left: (String, i64) = conn
                .query_row(
                    "SELECT (SELECT journal_mode FROM pragma_journal_mode), count(*) FROM sqlite_master",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .unwrap();
            assert_eq!(left, ("delete".into(), 1));
        }
    }

    #[test]
    fn a_failed_migration_is_told_in_one_line() {
        // An index is the one name that is not looked at before.
        let dir = tempfile::tempdir().unwrap();
        let mut conn = connect(&dir.path().join("t.db"), true).unwrap();
        conn.execute_batch("CREATE TABLE app (x); CREATE INDEX tasks_queue ON app (x)").unwrap();
        let error = migrate(&mut conn).unwrap_err().to_string();
        assert!(error.contains("tasks_queue") && error.len() < 200 && error.lines().count() == 1, "{error}");
    }
}

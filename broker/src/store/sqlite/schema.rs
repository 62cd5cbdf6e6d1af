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
pub(crate) const SCHEMA_VERSION: u32 = 1;

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

/// Switches to WAL, which is kept in the file, and applies the migrations that are missing.
pub(crate) fn migrate(conn: &mut Connection) -> Result<(), StoreError> {
    let found = version(conn)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::SchemaTooNew { found, known: SCHEMA_VERSION });
    }
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let text = format!("journal mode is {mode} and cannot be WAL: use a local file system");
        return Err(StoreError::Unavailable(text));
    }
    if found == 0 {
        refuse_strangers(conn)?;
    }
    if found < SCHEMA_VERSION {
        embedded::migrations::runner().run(conn).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    }
    Ok(())
}

/// What the first migration makes.
const NAMES: [&str; 7] = ["tasks", "failures", "epochs", "lanes", "sessions", "requests", "task_view"];

/// An app's own table of one of our names would make the first migration fail half way.
fn refuse_strangers(conn: &Connection) -> Result<(), StoreError> {
    let sql = "SELECT type FROM sqlite_master WHERE name = ?1 COLLATE NOCASE";
    for name in NAMES {
        if let Some(what) = conn.query_row(sql, [name], |row| row.get::<_, String>(0)).optional()? {
            let text =
                format!("it has a {what} '{name}' that is not Laneway's: rename that, or use a database of its own");
            return Err(StoreError::Unavailable(text));
        }
    }
    Ok(())
}

/// The schema of the file, 0 when it has none.
pub(crate) fn version(conn: &Connection) -> Result<u32, StoreError> {
    let table = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'refinery_schema_history'";
    if conn.query_row(table, [], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    Ok(conn.query_row("SELECT coalesce(max(version), 0) FROM refinery_schema_history", [], |row| row.get(0))?)
}

fn at(path: &Path, error: rusqlite::Error) -> StoreError {
    match StoreError::from(error) {
        StoreError::Unavailable(cause) => StoreError::Unavailable(format!("{}: {cause}", path.display())),
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
    fn a_table_of_the_apps_own_with_one_of_our_names_is_told_and_left_alone() {
        // One line that names it, for every name that the migrations make, and nothing is created.
        for name in NAMES {
            let dir = tempfile::tempdir().unwrap();
            let mut conn = connect(&dir.path().join("t.db"), true).unwrap();
            conn.execute_batch(&format!("CREATE TABLE {name} (x)")).unwrap();
            let error = migrate(&mut conn).unwrap_err().to_string();
            assert!(error.contains(&format!("a table '{name}' that is not Laneway's")) && error.len() < 200, "{error}");
            let n: i64 = conn.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0)).unwrap();
            assert_eq!(n, 1);
        }
        let mut migrated = connect(Path::new(":memory:"), true).unwrap();
        embedded::migrations::runner().run(&mut migrated).unwrap();
        let sql = "SELECT count(*) FROM sqlite_master WHERE type IN ('table', 'view') \
                   AND name NOT LIKE 'sqlite_%' AND name <> 'refinery_schema_history'";
        let n: i64 = migrated.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(usize::try_from(n).unwrap(), NAMES.len(), "a new table needs its name in the list");
    }

    #[test]
    fn migrating_twice_changes_nothing_and_a_newer_schema_is_refused() {
        // Forward only, and never by an older program.
        let dir = tempfile::tempdir().unwrap();
        let mut conn = connect(&dir.path().join("t.db"), true).unwrap();
        migrate(&mut conn).unwrap();
        migrate(&mut conn).unwrap();
        assert_eq!(version(&conn).unwrap(), SCHEMA_VERSION);
        conn.execute_batch("UPDATE refinery_schema_history SET version = 99").unwrap();
        assert!(matches!(migrate(&mut conn), Err(StoreError::SchemaTooNew { found: 99, known: SCHEMA_VERSION })));
    }
}

//! Care for the database file: look for damage, write a verified copy, put a copy in its place. Refuses to write over a file
//! unasked, to hand out a copy that was not checked, and to replace a database that a broker holds. Used by
//! `laneway db check`, `backup` and `restore`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OptionalExtension};

use super::checkpoint::wal_of;
use super::sqlite::{self, NAMES, SCHEMA_VERSION};
use super::{StoreError, lock};

/// Problems told of one kind; a damaged file can have millions.
const PROBLEMS_MAX: u32 = 100;

/// What must hold in every row, whoever wrote it; each counts the rows where it does not.
const PROMISES: [(&str, &str); 3] = [
    (
        "tasks whose state is none of ours",
        "SELECT count(*) FROM tasks WHERE state NOT IN ('queued', 'running', 'done', 'waiting', 'dead', 'cancelled')",
    ),
    (
        "tasks with a negative count of runs, attempts, losses or releases",
        "SELECT count(*) FROM tasks WHERE runs < 0 OR attempts < 0 OR losses < 0 OR releases < 0",
    ),
    (
        "task ids that would be given out again",
        "SELECT count(*) FROM tasks WHERE id > (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'tasks')",
    ),
];

/// Everything that is wrong with the file, one sentence each. Fails only when the file cannot be looked at.
pub(crate) fn check(path: &Path) -> Result<Vec<String>, StoreError> {
    let conn = sqlite::connect(path, false)?;
    let mut problems = Vec::new();
    for look in [integrity, references, schema, promises] {
        match look(&conn, &mut problems) {
            // The damage itself keeps from looking further.
            Err(StoreError::Corrupt(cause) | StoreError::Broken(cause)) if !problems.contains(&cause) => {
                problems.push(cause);
            }
            Ok(()) | Err(StoreError::Corrupt(_) | StoreError::Broken(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(problems)
}

fn integrity(conn: &Connection, problems: &mut Vec<String>) -> Result<(), StoreError> {
    let mut statement = conn.prepare(&format!("PRAGMA integrity_check({PROBLEMS_MAX})"))?;
    let found = statement.query_map([], |row| row.get::<_, String>(0))?;
    for problem in found {
        let problem = problem?;
        if problem != "ok" {
            problems.push(problem);
        }
    }
    Ok(())
}

/// The schema has no references; apps may keep tables with some in the same file.
fn references(conn: &Connection, problems: &mut Vec<String>) -> Result<(), StoreError> {
    let mut statement = conn.prepare("SELECT \"table\", rowid, parent FROM pragma_foreign_key_check LIMIT ?1")?;
    let found = statement.query_map([PROBLEMS_MAX], |row| {
        let (table, id, parent): (String, Option<i64>, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(format!("row {} of {table} refers to a row of {parent} that is not there", id.unwrap_or_default()))
    })?;
    for problem in found {
        problems.push(problem?);
    }
    Ok(())
}

fn schema(conn: &Connection, problems: &mut Vec<String>) -> Result<(), StoreError> {
    match sqlite::version(conn)? {
        0 => problems.push("it has no schema of Laneway: run laneway db init, or name another file".into()),
        found if found > SCHEMA_VERSION => {
            problems.push(StoreError::SchemaTooNew { found, known: SCHEMA_VERSION }.to_string());
        }
        found if found < SCHEMA_VERSION => {
            problems.push(format!("its schema is {found} and must be {SCHEMA_VERSION}: run laneway db migrate"));
        }
        _ => {
            for name in NAMES {
                let found = conn.query_row("SELECT 1 FROM sqlite_master WHERE name = ?1", [name], |_| Ok(()));
                if found.optional()?.is_none() {
                    problems.push(format!("the table or view {name} is missing"));
                }
            }
        }
    }
    Ok(())
}

fn promises(conn: &Connection, problems: &mut Vec<String>) -> Result<(), StoreError> {
    let tasks = conn.query_row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'tasks'", [], |_| Ok(()));
    if tasks.optional()?.is_none() {
        return Ok(());
    }
    for (what, sql) in PROMISES {
        let rows: i64 = conn.query_row(sql, [], |row| row.get(0))?;
        if rows > 0 {
            problems.push(format!("{rows} {what}"));
        }
    }
    Ok(())
}

/// Copies the database as it is at one moment; gives the size of the copy. Nothing waits for it: writers go on, only the
/// write-ahead log cannot shrink meanwhile.
pub(crate) fn backup(database: &Path, file: &Path, overwrite: bool) -> Result<u64, StoreError> {
    if !overwrite && file.exists() {
        return Err(unavailable(file, "it is there already; --overwrite replaces it"));
    }
    if is_same(database, file) {
        return Err(unavailable(file, "it is the database itself"));
    }
    let copy = verified_copy(database, file, database)?;
    let placed = copy.place(file, overwrite);
    placed.map_err(|cause| unavailable(file, cause))?;
    std::fs::metadata(file).map(|found| found.len()).map_err(|cause| unavailable(file, cause))
}

/// Puts a copy of `backup` in the database's place. Gives where the old file is kept, if there was one; its log, which
/// must never meet the new file, is kept beside it.
pub(crate) fn restore(database: &Path, backup: &Path) -> Result<Option<PathBuf>, StoreError> {
    if is_same(database, backup) {
        return Err(unavailable(backup, "it is the database itself"));
    }
    // The real file is replaced, not a link that leads to it.
    let database = &database.canonicalize().unwrap_or_else(|_| database.into());
    let _lock = lock::acquire(database)?;
    let copy = verified_copy(backup, database, if database.exists() { database } else { backup })?;
    let moved = move_aside(database).map_err(|cause| unavailable(database, cause))?;
    copy.place(database, false).map_err(|cause| unavailable(database, cause))?;
    Ok(moved)
}

/// A copy under a name of its own, checked and synced; gone when it is dropped before it was placed.
struct Copy(tempfile::TempPath);

impl Copy {
    /// Gives it its name at once and whole.
    fn place(self, file: &Path, overwrite: bool) -> io::Result<()> {
        let placed = if overwrite { self.0.persist(file) } else { self.0.persist_noclobber(file) };
        placed.map_err(|failed| failed.error)?;
        sync_folder(file)
    }
}

/// Copies `from` beside the place where the copy will lie, so that placing it is one rename. Whoever may use the file
/// `like` may use the copy.
fn verified_copy(from: &Path, beside: &Path, like: &Path) -> Result<Copy, StoreError> {
    let temporary = tempfile::Builder::new().prefix(".laneway-copy-").tempfile_in(folder_of(beside));
    let path = temporary.map_err(|cause| unavailable(beside, cause))?.into_temp_path();
    let source = sqlite::connect(from, false)?;
    let mut target = sqlite::connect(&path, false)?;
    // All pages in one step are one read transaction; in several, each commit of another process would begin it anew.
    match Backup::new(&source, &mut target)?.step(-1)? {
        StepResult::Done => {}
        _ => return Err(StoreError::Locked),
    }
    // Without a log the copy is one file, which people can move.
    target.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    drop(target);
    let problems = check(&path)?;
    if let Some(first) = problems.first() {
        let more = problems.len() - 1;
        return Err(StoreError::Corrupt(format!("{}: {first} (and {more} more)", from.display())));
    }
    let own = || give_to_users_of(like, &path).and_then(|()| File::open(&path)?.sync_all());
    own().map_err(|cause| unavailable(beside, cause))?;
    Ok(Copy(path))
}

/// Gives `path` the mode of `like`, and its owner and group where they are others.
fn give_to_users_of(like: &Path, path: &Path) -> io::Result<()> {
    let (like, own) = (std::fs::metadata(like)?, std::fs::metadata(path)?);
    if (like.uid(), like.gid()) != (own.uid(), own.gid()) {
        std::os::unix::fs::chown(path, Some(like.uid()), Some(like.gid()))?;
    }
    std::fs::set_permissions(path, like.permissions())
}

/// Renames the database, if there is one, and its log to names that are free.
fn move_aside(database: &Path) -> io::Result<Option<PathBuf>> {
    if !database.exists() {
        // A log without its database is of no use, and of harm to the next.
        return remove(&wal_of(database)).and_then(|()| remove(&with_ending(database, "-shm"))).map(|()| None);
    }
    let free = |n: u32| Some(with_ending(database, &format!(".replaced-{n}"))).filter(|path| !path.exists());
    let aside = (1..).find_map(free).ok_or(io::ErrorKind::AlreadyExists)?;
    std::fs::rename(database, &aside)?;
    if wal_of(database).exists() {
        std::fs::rename(wal_of(database), wal_of(&aside))?;
    }
    remove(&with_ending(database, "-shm"))?;
    sync_folder(database)?;
    Ok(Some(aside))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(ending);
    path.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn unavailable(path: &Path, cause: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("{}: {cause}", path.display()))
}

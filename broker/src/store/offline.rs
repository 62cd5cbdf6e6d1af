//! The command line straight on the database file, without a broker: create, migrate, look, submit. What is inserted
//! here is taken in by the broker like any app's row. Only [`init`] and [`migrate`] need the file for themselves, and take
//! the lock.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use laneway_core::{Now, UnixMillis, derive_key};
use laneway_protocol::limits::PAYLOAD_BYTES_MAX;
use laneway_protocol::message::{Filter, NewGroup, NewTask, OnConflict, StatusRows, Stored};
use laneway_protocol::{LaneName, TaskId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::checkpoint::wal_of;
use super::lock;
use super::sqlite::{self, Judged, SCHEMA_VERSION, Said};
use super::validate::Judge;
use super::{Bad, Rules, StoreError};

/// What `laneway db status` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DbStatus {
    pub(crate) path: PathBuf,
    /// 0: the file has no schema of ours.
    pub(crate) schema: u32,
    pub(crate) schema_known: u32,
    /// Of the library in this program.
    pub(crate) sqlite: String,
    /// Every state that has rows, with their number.
    pub(crate) rows: Vec<(String, u64)>,
    pub(crate) bytes: u64,
    /// Of the file: pages that hold nothing any more, used again before it grows.
    pub(crate) free_bytes: u64,
    pub(crate) wal_bytes: u64,
    pub(crate) last_epoch: Option<LastEpoch>,
}

/// The last start of a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastEpoch {
    pub(crate) number: u64,
    pub(crate) started_at: i64,
    /// Absent: it runs, or was killed.
    pub(crate) stopped_at: Option<i64>,
    pub(crate) pid: u32,
    pub(crate) host: String,
}

/// Creates the database with its schema; an existing one is only brought up to date.
pub(crate) fn init(path: &Path) -> Result<DbStatus, StoreError> {
    let _lock = lock::acquire(path)?;
    sqlite::migrate(&mut sqlite::connect(path, true)?)?;
    status(path)
}

/// Brings an existing database up to date. No broker may run on it.
pub(crate) fn migrate(path: &Path) -> Result<DbStatus, StoreError> {
    exists(path)?;
    let _lock = lock::acquire(path)?;
    sqlite::migrate(&mut sqlite::connect(path, false)?)?;
    status(path)
}

/// Looks at any SQLite file; counts the rows, which takes a while when there are millions.
pub(crate) fn status(path: &Path) -> Result<DbStatus, StoreError> {
    exists(path)?;
    let conn = sqlite::connect(path, false)?;
    sqlite::names_are_free(&conn)?;
    let schema = sqlite::version(&conn)?;
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    Ok(DbStatus {
        path: path.into(),
        schema,
        schema_known: SCHEMA_VERSION,
        sqlite: rusqlite::version().into(),
        rows: if schema == 0 { Vec::new() } else { rows_by_state(&conn)? },
        bytes: size(path),
        free_bytes: pragma(&conn, "freelist_count")? * pragma(&conn, "page_size")?,
        wal_bytes: size(&wal_of(path)),
        last_epoch: if schema == 0 { None } else { last_epoch(&conn)? },
    })
}

/// The schema of a file and that of this program, without a look at its rows.
pub(crate) fn schemas(path: &Path) -> Result<(u32, u32), StoreError> {
    let (conn, found) = connect(path)?;
    leave_log(&conn)?;
    Ok((found, SCHEMA_VERSION))
}

/// The last one to close a database moves its log into it, unless told not to: a look must change nothing.
fn leave_log(conn: &Connection) -> Result<(), StoreError> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

/// When the newest task was made, by its own word.
pub(crate) fn newest_time(path: &Path) -> Result<Option<i64>, StoreError> {
    let (conn, _) = open(path)?;
    leave_log(&conn)?;
    let newest =
        conn.query_row("SELECT CAST(created_at AS INTEGER) FROM tasks ORDER BY id DESC LIMIT 1", [], |row| row.get(0));
    Ok(newest.optional()?)
}

/// What a monitoring system looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glance {
    /// Queued, and their time has come.
    pub(crate) due: u64,
    /// How long the oldest of these has been due; 0 without any. The oldest is the one with the lowest id.
    pub(crate) oldest_ms: u64,
    pub(crate) dead: u64,
    pub(crate) wal_bytes: u64,
}

/// Looks at indexes alone, and no longer than `within`: a hundred million rows fail, they do not hold up whoever asks.
pub(crate) fn glance(path: &Path, within: Duration) -> Result<Glance, StoreError> {
    let (mut conn, _) = open(path)?;
    leave_log(&conn)?;
    let until = Instant::now() + within;
    conn.progress_handler(10_000, Some(move || Instant::now() >= until))?;
    let now = now().wall.0;
    let look = || -> rusqlite::Result<Glance> {
        let sql = "SELECT count(*), min(id) FROM tasks INDEXED BY tasks_queue \
                   WHERE state = 'queued' AND (run_at IS NULL OR run_at <= ?1)";
        let (due, oldest): (i64, Option<i64>) = conn.query_row(sql, [now], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let since = "SELECT max(created_at, coalesce(run_at, 0)) FROM tasks WHERE id = ?1";
        let since: Option<f64> = conn.query_row(since, [oldest], |row| row.get(0)).optional()?;
        let dead: i64 =
            conn.query_row("SELECT count(*) FROM tasks INDEXED BY tasks_marked WHERE state = 'dead'", [], |row| {
                row.get(0)
            })?;
        #[expect(clippy::cast_possible_truncation, reason = "saturates, which is near enough for a time")]
        let oldest_ms = since.map_or(0, |at| u64::try_from(now.saturating_sub(at as i64)).unwrap_or(0));
        let wal_bytes = std::fs::metadata(wal_of(path)).map_or(0, |file| file.len());
        Ok(Glance { due: due.unsigned_abs(), oldest_ms, dead: dead.unsigned_abs(), wal_bytes })
    };
    look().map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::OperationInterrupted) => {
            StoreError::Unavailable(format!("to count its tasks takes more than {} s", within.as_secs()))
        }
        _ => error.into(),
    })
}

fn pragma(conn: &Connection, name: &str) -> Result<u64, StoreError> {
    let value: i64 = conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?;
    Ok(value.unsigned_abs())
}

/// Stores one task; on disk when it returns.
///
/// Gives [`Bad`] when it makes no sense, as far as the file tells: its lanes are those of the last broker.
pub(crate) fn submit(path: &Path, task: &NewTask) -> Result<Result<Stored, Bad>, StoreError> {
    let stored = insert(path, std::slice::from_ref(task), None)?;
    Ok(stored.map(|(stored, _)| stored[0]).map_err(|(_, bad)| bad))
}

/// Puts tasks in as a group, all or none; gives its number.
pub(crate) fn submit_group(
    path: &Path,
    tasks: &[NewTask],
    group: &NewGroup,
) -> Result<Judged<(Vec<Stored>, u64)>, StoreError> {
    let stored = insert(path, tasks, Some(group))?;
    Ok(stored.map(|(stored, number)| (stored, number.expect("a list that is to be a group has become one"))))
}

fn insert(path: &Path, tasks: &[NewTask], group: Option<&NewGroup>) -> Result<Judged<Said>, StoreError> {
    let (mut conn, judge) = open(path)?;
    let mut tasks = tasks.to_vec();
    tasks.iter_mut().for_each(derive_key);
    let turn = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (stored, number) = match sqlite::insert_all(&turn, &judge, &tasks, group, now())? {
        Ok(inserted) => inserted,
        Err(bad) => return Ok(Err(bad)),
    };
    let is_queued = "SELECT state = 'queued' FROM tasks WHERE id = ?1";
    for (at, (task, stored)) in tasks.iter().zip(&stored).enumerate() {
        let meets = task.on_conflict == OnConflict::Replace && !stored.new;
        if meets && turn.query_row(is_queued, [stored.task.value().cast_signed()], |row| row.get(0))? {
            return Ok(Err((at, Bad::replacing_offline(stored.task))));
        }
    }
    turn.commit()?;
    Ok(Ok((stored, number)))
}

/// Whether the file knows its lanes: a broker that ran on it has written them down.
pub(crate) fn knows_lanes(path: &Path) -> Result<bool, StoreError> {
    let (_, judge) = open(path)?;
    Ok(!judge.rules.lanes.is_empty())
}

/// A page, newest first; goes on by itself over pages that ended early.
pub(crate) fn list(path: &Path, filter: &Filter) -> Result<StatusRows, StoreError> {
    let (conn, judge) = open(path)?;
    let wanted = if filter.limit == 0 { LIST_ROWS } else { filter.limit.min(LIST_ROWS_MAX) };
    let mut rest = Filter { limit: wanted, ..filter.clone() };
    let mut page = sqlite::list(&conn, &judge.rules, &rest)?;
    while let Some(before) = page.next {
        rest.limit = wanted.saturating_sub(u32::try_from(page.rows.len()).unwrap_or(u32::MAX));
        if rest.limit == 0 {
            break;
        }
        rest.before = Some(before);
        let next = sqlite::list(&conn, &judge.rules, &rest)?;
        page.rows.extend(next.rows);
        page.next = next.next;
    }
    Ok(page)
}

/// These tasks with payload, result, failures and an explanation.
pub(crate) fn show(path: &Path, tasks: &[TaskId]) -> Result<StatusRows, StoreError> {
    let (conn, judge) = open(path)?;
    sqlite::show(&conn, &judge, tasks, true, now())
}

/// Rows of a page when the filter does not say, and at most.
const LIST_ROWS: u32 = 50;
const LIST_ROWS_MAX: u32 = 512;

/// With the schema of the file, which is not of a newer program.
fn connect(path: &Path) -> Result<(Connection, u32), StoreError> {
    exists(path)?;
    let conn = sqlite::connect(path, false)?;
    sqlite::names_are_free(&conn)?;
    let found = sqlite::version(&conn)?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::SchemaTooNew { found, known: SCHEMA_VERSION });
    }
    Ok((conn, found))
}

fn open(path: &Path) -> Result<(Connection, Judge), StoreError> {
    let (conn, found) = connect(path)?;
    if found < SCHEMA_VERSION {
        let text = format!("its schema is {found} and must be {SCHEMA_VERSION}: run laneway db migrate");
        return Err(StoreError::Unavailable(text));
    }
    let mut judge = Judge::new(rules(&conn)?);
    sqlite::know_lanes(&conn, &mut judge)?;
    Ok((conn, judge))
}

/// The rules as the last broker wrote them down. Lanes of single kinds are not among them, so a row without a lane is shown
/// as one of the fallback.
fn rules(conn: &Connection) -> Result<Rules, StoreError> {
    let mut statement =
        conn.prepare("SELECT name, fallback <> 0 FROM laneway_lanes WHERE configured <> 0 ORDER BY rank")?;
    let mut rows = statement.query([])?;
    let (mut lanes, mut fallback) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let Ok(lane) = LaneName::new(&row.get::<_, String>(0)?) else { continue };
        if row.get(1)? {
            fallback = Some(lane.clone());
        }
        lanes.push(lane);
    }
    let normal = || LaneName::new("normal").expect("a name of six letters");
    Ok(Rules {
        default_lane: fallback.unwrap_or_else(normal),
        lanes,
        kind_lanes: HashMap::new(),
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        full_durability: true,
    })
}

fn now() -> Now {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = UnixMillis(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX));
    Now { wall, ..Now::default() }
}

fn exists(path: &Path) -> Result<(), StoreError> {
    if path.exists() {
        return Ok(());
    }
    Err(StoreError::Unavailable(format!("there is no file {}: run laneway db init", path.display())))
}

fn rows_by_state(conn: &Connection) -> Result<Vec<(String, u64)>, StoreError> {
    let mut statement = conn.prepare("SELECT state, count(*) FROM tasks GROUP BY state ORDER BY state")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn last_epoch(conn: &Connection) -> Result<Option<LastEpoch>, StoreError> {
    let sql = "SELECT number, started_at, stopped_at, pid, host FROM laneway_epochs ORDER BY number DESC LIMIT 1";
    let epoch = conn.query_row(sql, [], |row| {
        Ok(LastEpoch {
            number: row.get::<_, i64>(0)?.unsigned_abs(),
            started_at: row.get(1)?,
            stopped_at: row.get(2)?,
            pid: row.get(3)?,
            host: row.get(4)?,
        })
    });
    Ok(epoch.optional()?)
}

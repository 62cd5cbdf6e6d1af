//! The connection that can only read, and the clock that breaks a look off.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use laneway_protocol::message::error_line;
use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::limits::{QUERY_TIME, QUERY_TIME_MAX, QUERY_WORK};

/// How long a look waits for a lock. In WAL mode a reader waits for nobody but a checkpoint that starts over.
const BUSY_TIME: Duration = Duration::from_millis(50);
/// Steps of SQLite's machine between two looks at the clock, some tens of microseconds.
const STEPS: i32 = 2_000;

/// Why there are no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Broken off.
    TooBroad,
    /// There is none, or it cannot be opened.
    NoDatabase(String),
    Sql(String),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Trouble::TooBroad,
            Some(ErrorCode::CannotOpen | ErrorCode::NotADatabase) => Trouble::NoDatabase(error.to_string()),
            _ => Trouble::Sql(error.to_string()),
        }
    }
}

/// The database, opened at the first look and again after an error.
pub(crate) struct Table {
    path: PathBuf,
    open: Option<Connection>,
    begin: Instant,
    /// When whoever looks now has asked for it.
    asked: Instant,
    bound: Arc<Bound>,
}

/// When the look that goes on is broken off. In microseconds: the first two from the table's `begin`, the last of the thread's
/// time on a processor.
#[derive(Default)]
struct Bound {
    until: AtomicU64,
    until_at_most: AtomicU64,
    work: AtomicU64,
}

impl Bound {
    fn set(&self, until: Duration, until_at_most: Duration, work: Duration) {
        self.until.store(micros(until), Ordering::Relaxed);
        self.until_at_most.store(micros(until_at_most), Ordering::Relaxed);
        self.work.store(micros(work), Ordering::Relaxed);
    }

    fn is_over(&self, now: Duration) -> bool {
        let is_behind = |bound: &AtomicU64, now| micros(now) > bound.load(Ordering::Relaxed);
        is_behind(&self.until, now) && (is_behind(&self.until_at_most, now) || is_behind(&self.work, worked()))
    }
}

impl Table {
    pub(crate) fn new(path: PathBuf) -> Self {
        let now = Instant::now();
        Self { path, open: None, begin: now, asked: now, bound: Arc::default() }
    }

    /// The looks that follow were asked for at this moment.
    pub(super) fn asked(&mut self, at: Instant) {
        self.asked = at;
    }

    /// One look. It is broken off [`QUERY_TIME`] after it was asked for if it has had [`QUERY_WORK`] of a processor by then, and
    /// otherwise once it has, or [`QUERY_TIME_MAX`] after it began: what is short is told however busy the machine is.
    pub(crate) fn look<T>(
        &mut self,
        look: impl FnOnce(&Connection, &Clock) -> rusqlite::Result<T>,
    ) -> Result<T, Trouble> {
        if self.open.is_none() {
            self.open = Some(self.connect()?);
        }
        let now = self.begin.elapsed();
        let until = (self.asked + QUERY_TIME).duration_since(self.begin).max(now + QUERY_WORK);
        self.bound.set(until, now + QUERY_TIME_MAX, worked() + QUERY_WORK);
        let clock = Clock { begin: self.begin, until };
        let conn = self.open.as_ref().ok_or_else(|| Trouble::Sql("no connection".into()))?;
        let found = look(conn, &clock).map_err(Trouble::from);
        if matches!(found, Err(Trouble::NoDatabase(_) | Trouble::Sql(_))) {
            // The file may have been replaced.
            self.open = None;
        }
        found
    }

    fn connect(&self) -> Result<Connection, Trouble> {
        // A reader of a log needs to write its index, so the file is opened for writing and the connection forbidden to.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(&self.path, flags)?;
        conn.busy_timeout(BUSY_TIME)?;
        conn.pragma_update(None, "query_only", 1)?;
        // The log is the broker's to move.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        add_functions(&conn)?;
        let (begin, bound) = (self.begin, Arc::clone(&self.bound));
        conn.progress_handler(STEPS, Some(move || bound.is_over(begin.elapsed())))?;
        Ok(conn)
    }
}

/// How much of a look's time is over.
pub(crate) struct Clock {
    begin: Instant,
    until: Duration,
}

impl Clock {
    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_sub(self.begin.elapsed())
    }
}

/// What a statement may ask besides SQLite's own: `error_line` is the broker's word for errors that are alike.
pub(super) fn add_functions(conn: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    conn.create_scalar_function("error_line", 1, flags, |context| {
        Ok(error_line(context.get_raw(0).as_str().unwrap_or_default()).to_owned())
    })
}

/// The look's time was over.
pub(super) fn is_broken_off(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}

/// What this thread has had of a processor.
fn worked() -> Duration {
    // The time since a thread's start is never before it.
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing;

    #[test]
    fn a_look_is_broken_off_and_the_next_one_works() {
        // Proves the bound in time: a query that would count for hours is over within a moment, and leaves nothing behind.
        let place = testing::Place::new();
        let mut table = Table::new(place.db());
        let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
        let started = Instant::now();
        let found = table.look(|conn, _| conn.query_row(endless, [], |row| row.get::<_, i64>(0)));
        assert_eq!(found, Err(Trouble::TooBroad));
        assert!(started.elapsed() < QUERY_TIME * 20, "{:?}", started.elapsed());
        assert_eq!(table.look(|conn, _| conn.query_row("SELECT 1", [], |row| row.get(0))), Ok(1));
    }

    #[test]
    fn a_look_that_has_waited_is_shorter() {
        // Proves that the time is counted from the question, so that looks which meet do not add up, and that the last one in a
        // long row of them has some, too.
        let place = testing::Place::new();
        let mut table = Table::new(place.db());
        let (now, begin) = (Instant::now(), table.begin);
        let mut until = |waited: Duration| {
            table.asked(now.checked_sub(waited).unwrap());
            begin + table.look(|_, clock| Ok(clock.until)).unwrap()
        };
        assert!(until(Duration::ZERO) >= now + QUERY_TIME);
        let late = until(QUERY_TIME * 9);
        assert!((now + QUERY_WORK..=Instant::now() + QUERY_WORK).contains(&late));
    }

    #[test]
    fn a_look_that_gets_no_processor_is_not_taken_for_a_long_one() {
        // Proves that a short statement is answered on a machine that is busy with others, and that even then there is an end.
        let place = testing::Place::new();
        let mut table = Table::new(place.db());
        let mut look = |wait: Duration, n: u32| {
            let count = format!(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {n}) SELECT count(*) FROM n"
            );
            table.look(|conn, _| {
                std::thread::sleep(wait);
                conn.query_row(&count, [], |row| row.get::<_, u32>(0))
            })
        };
        let some = u32::try_from(STEPS).unwrap();
        assert_eq!(look(QUERY_TIME + QUERY_WORK, some), Ok(some));
        assert_eq!(look(QUERY_TIME_MAX, some), Err(Trouble::TooBroad));
    }

    #[test]
    fn it_cannot_write() {
        // Proves that no statement of the dashboard could change a row, even a wrong one.
        let place = testing::Place::new();
        let mut table = Table::new(place.db());
        let error = table.look(|conn, _| conn.execute("DELETE FROM tasks", [])).unwrap_err();
        assert!(matches!(&error, Trouble::Sql(text) if text.contains("readonly")), "{error:?}");
    }

    #[test]
    fn no_database_is_told() {
        // Proves that nothing is made where a database should be.
        let place = testing::Place::new();
        let path = place.db().with_file_name("none.db");
        let mut table = Table::new(path.clone());
        assert!(matches!(table.look(|_, _| Ok(())), Err(Trouble::NoDatabase(_))));
        assert!(!path.exists());
    }
}

//! Keeps the write-ahead log from beginning anew at a moment when an app's checkpoint would miss it.
//!
//! SQLite before 3.51.3 (but for 3.50.7 and 3.44.6), so also the 3.40.1 of Debian 12, has a fault in its checkpoint: it
//! reads the header of a log that is copied completely, somebody commits and so begins the log anew, and it goes on by the
//! header it has read. From then on the first commits in the new log count as copied, and are lost when the log grows
//! over the length of the old one (sqlite.org/wal.html, "The WAL-reset bug"). Our own SQLite is newer, but apps bring theirs,
//! and theirs checkpoint after every commit that leaves 1000 pages in the log. `tests/faults/wal_reset.rs` shows it.
//!
//! A reader stands in the way, by either of the two locks that it may get:
//!
//! - of the log, when something in it is not copied yet: while it reads, nobody can begin the log anew;
//! - of the database file, when everything is copied: the log can begin anew, but no checkpoint copies anything, and one that
//!   goes by an old header does no harm.
//!
//! So one of two connections always reads. To let go of what is copied the other begins to read, and only after that has our
//! own checkpoint had the checkpoint lock, which proves that no checkpoint from before is still under way, the first ends.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::StoreError;
use super::checkpoint::{Moved, passive};
use super::sqlite::connect;

/// The two readers.
#[derive(Debug)]
pub(super) struct Pin {
    readers: [Connection; 2],
    held: Option<usize>,
}

impl Pin {
    /// Opens the connections; nothing is held yet.
    pub(super) fn open(database: &Path) -> Result<Self, StoreError> {
        Ok(Self { readers: [reader(database)?, reader(database)?], held: None })
    }

    /// Copies what the reader so far lets through, and reads on from the newest commit. `None` when another connection is
    /// at a checkpoint; then nothing has changed.
    pub(super) fn renew(&mut self, conn: &Connection) -> Result<Option<Moved>, StoreError> {
        let next = self.held.map_or(0, |held| 1 - held);
        begin(&self.readers[next])?;
        let moved = passive(conn);
        let ended = if let Ok(Some(_)) = moved { self.held.replace(next) } else { Some(next) };
        if let Some(ended) = ended {
            end(&self.readers[ended])?;
        }
        moved
    }

    /// Copies everything, and lets the log begin anew with the next commit, unless somebody commits meanwhile.
    pub(super) fn advance(&mut self, conn: &Connection) -> Result<Option<Moved>, StoreError> {
        // To read from the newest commit, to copy up to there, to take the lock of the database file instead of the log's.
        self.renew(conn)?;
        self.renew(conn)?;
        self.renew(conn)
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Lets go, until the next call of [`renew`](Self::renew).
    pub(super) fn release(&mut self) -> Result<(), StoreError> {
        self.held.take().map_or(Ok(()), |held| end(&self.readers[held]))
    }
}

/// A connection that leaves the log alone when it is closed.
fn reader(database: &Path) -> Result<Connection, StoreError> {
    let conn = connect(database, false)?;
    conn.busy_timeout(Duration::ZERO)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(conn)
}

fn begin(reader: &Connection) -> Result<(), StoreError> {
    reader.prepare_cached("BEGIN")?.execute([])?;
    // The transaction begins to read with its first statement.
    let read =
        reader.prepare_cached("SELECT count(*) FROM sqlite_master").and_then(|mut sql| sql.query_row([], |_| Ok(())));
    if read.is_err() {
        end(reader)?;
    }
    Ok(read?)
}

fn end(reader: &Connection) -> Result<(), StoreError> {
    reader.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database with a writer, a connection for checkpoints and a pin that is held.
    fn pinned(dir: &tempfile::TempDir) -> (Connection, Connection, Pin) {
        let path = dir.path().join("t.db");
        let writer = connect(&path, true).unwrap();
        writer.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x)").unwrap();
        let checkpoints = connect(&path, false).unwrap();
        let mut pin = Pin::open(&path).unwrap();
        pin.renew(&checkpoints).unwrap().unwrap();
        (writer, checkpoints, pin)
    }

    fn left(moved: Option<Moved>) -> u64 {
        moved.unwrap().left
    }

    #[test]
    fn the_log_begins_anew_only_by_way_of_the_pin() {
        // Proves that nobody else's checkpoint lets the log begin anew, and that renewing does: the log must not grow for ever.
        let dir = tempfile::tempdir().unwrap();
        let (writer, checkpoints, mut pin) = pinned(&dir);
        let log = |moved: Option<Moved>| moved.unwrap().log;
        let mut before = 0;
        for _ in 0..5 {
            writer.execute_batch("INSERT INTO t VALUES (zeroblob(9000))").unwrap();
            let now = log(passive(&checkpoints).unwrap());
            assert!(now > before, "the log began anew beside the pin");
            before = now;
        }
        assert_eq!(left(pin.advance(&checkpoints).unwrap()), 0);
        writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        assert!(log(passive(&checkpoints).unwrap()) < before, "the log goes on growing");
        // Now the pin has the lock of the database file: the new log cannot be copied but by way of the pin either.
        assert_ne!(left(passive(&checkpoints).unwrap()), 0);
        pin.renew(&checkpoints).unwrap();
        assert_eq!(left(pin.renew(&checkpoints).unwrap()), 0);
    }

    #[test]
    fn a_released_pin_lets_everyone_do_as_before() {
        // Proves that an app's own truncation of the log works once the pin gives way.
        let dir = tempfile::tempdir().unwrap();
        let (writer, checkpoints, mut pin) = pinned(&dir);
        writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        writer.busy_timeout(Duration::ZERO).unwrap();
        let truncate = || writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(truncate(), 1, "the pin is not in the way");
        pin.release().unwrap();
        assert_eq!(truncate(), 0);
        pin.renew(&checkpoints).unwrap().unwrap();
    }
}

//! Moves committed pages from the write-ahead log into the database, on connections and a thread of their own, so that
//! no turn of the scheduler pays for it, and by way of the [`Pin`], so that no app's older SQLite can lose any. Says so when
//! the log cannot shrink because a reader holds on to it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::StoreError;
use super::index_locks::truncating_process;
use super::pin::Pin;
use super::sqlite::connect;

/// A log over this is moved.
const MOVE_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// Beside a steady writer a checkpoint is never quite complete, and the log never begins anew. When only so much is left
/// of a log this long, the writer is asked to finish between two turns.
const FINISH_LOG_BYTES_MIN: u64 = 4 * MOVE_BYTES_MIN;
const FINISH_LEFT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Between two looks at the size of the log.
const LOOK: Duration = Duration::from_millis(200);
const ALARM_EVERY: Duration = Duration::from_mins(1);
/// Looks at an app's truncation of the log, each after this time, until it counts as one that waits.
const WAITING_LOOKS: u32 = 10;
const WAITING_LOOK: Duration = Duration::from_millis(15);

/// What the checkpoint thread shares with the writing connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct WalHint(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The writing connection is to finish a checkpoint after its next commit.
    wanted: AtomicBool,
    /// Bytes of a log over the alarm that cannot begin anew; 0 while all is well.
    pinned_bytes: AtomicU64,
    /// A log of so many bytes that cannot begin anew is told.
    alarm_bytes: AtomicU64,
    /// There while the thread runs.
    pin: Mutex<Option<Pin>>,
}

impl WalHint {
    /// Pins the log. From here on it begins anew only by way of the pin.
    pub(super) fn hold(&self, database: &Path, conn: &Connection) -> Result<(), StoreError> {
        let mut pin = Pin::open(database)?;
        pin.renew(conn)?;
        *self.pin() = Some(pin);
        Ok(())
    }

    /// From now on a log of so many bytes that cannot begin anew is told.
    pub(crate) fn set_alarm(&self, bytes: u64) {
        self.0.alarm_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn set(&self) {
        self.0.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for since the last call.
    pub(super) fn take(&self) -> bool {
        // A load first: this is asked after every commit, and a write would bounce the cache line.
        self.0.wanted.load(Ordering::Relaxed) && self.0.wanted.swap(false, Ordering::Relaxed)
    }

    /// How long a log is that should have begun anew by now and could not; 0 while all is well.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.0.pinned_bytes.load(Ordering::Relaxed)
    }

    /// Moves everything, on the writing connection and between two turns, when nothing new comes.
    pub(super) fn finish(&self, conn: &Connection) -> Result<(), StoreError> {
        // The thread has it while it moves pages itself; it will ask again.
        let Ok(mut pin) = self.0.pin.try_lock() else { return Ok(()) };
        pin.as_mut().map_or(Ok(()), |pin| pin.advance(conn).map(drop))
    }

    fn pin(&self) -> MutexGuard<'_, Option<Pin>> {
        self.0.pin.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log beside a database: beside the file itself, when the path is a link.
pub(crate) fn wal_of(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(database.canonicalize().unwrap_or_else(|_| database.into()));
    path.push(suffix);
    path.into()
}

/// What a checkpoint left, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moved {
    /// In the log.
    pub(super) log: u64,
    /// In the log and not yet in the database.
    pub(super) left: u64,
}

/// Moves what can be moved without waiting for anyone. `None` when another connection is at it.
pub(super) fn passive(conn: &Connection) -> Result<Option<Moved>, StoreError> {
    let page: i64 = conn.prepare_cached("PRAGMA page_size")?.query_row([], |row| row.get(0))?;
    let (busy, log, moved): (i64, i64, i64) = conn
        .prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if busy != 0 || log < 0 {
        return Ok(None);
    }
    let bytes = |frames: i64| u64::try_from(frames.saturating_mul(page)).unwrap_or(0);
    Ok(Some(Moved { log: bytes(log), left: bytes(log - moved) }))
}

/// The running thread. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the thread. The database must exist; `hint` is that of its [`SqliteStore`](super::sqlite::SqliteStore).
/// A log of `alarm_bytes` that cannot begin anew is told, until [`WalHint::set_alarm`] says another length.
pub(crate) fn start(database: &Path, hint: WalHint, alarm_bytes: u64) -> Result<Checkpoints, StoreError> {
    hint.set_alarm(alarm_bytes);
    let conn = connect(database, false)?;
    // A checkpoint that finds a lock taken comes again soon enough.
    conn.busy_timeout(Duration::ZERO)?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    // The store's connection is the one that clears up, if anyone may.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    hint.hold(database, &conn)?;
    let files = Files { wal: wal_of(database), index: beside(database, "-shm") };
    let (stop, stopped) = bounded(0);
    let thread = std::thread::Builder::new()
        .name("checkpoint".into())
        .spawn(move || run(&conn, &files, &hint, &stopped))
        .map_err(|error| StoreError::Unavailable(format!("cannot start the checkpoint thread: {error}")))?;
    Ok(Checkpoints { stop: Some(stop), thread: Some(thread) })
}

impl Checkpoints {
    /// Returns once the thread has ended, within the time of one checkpoint.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread had panicked");
        }
    }
}

/// Beside the database.
#[derive(Debug)]
struct Files {
    wal: PathBuf,
    index: PathBuf,
}

fn run(conn: &Connection, files: &Files, hint: &WalHint, stopped: &Receiver<()>) {
    let mut alarmed: Option<Instant> = None;
    while matches!(stopped.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
        let size = std::fs::metadata(&files.wal).map_or(0, |file| file.len());
        let alarm_bytes = hint.0.alarm_bytes.load(Ordering::Relaxed);
        match look(conn, hint, &files.index, size) {
            Ok(Some(moved)) => {
                if moved.log >= FINISH_LOG_BYTES_MIN && (1..=FINISH_LEFT_BYTES_MAX).contains(&moved.left) {
                    hint.set();
                }
                let pinned = if moved.log >= alarm_bytes { moved.log } else { 0 };
                hint.0.pinned_bytes.store(pinned, Ordering::Relaxed);
                if pinned > 0 && alarmed.is_none_or(|at| at.elapsed() >= ALARM_EVERY) {
                    alarmed = Some(Instant::now());
                    tracing::warn!(
                        target: "laneway::store",
                        wal_bytes = moved.log,
                        not_moved_bytes = moved.left,
                        "the write-ahead log cannot shrink: a reader holds a transaction open; end it"
                    );
                }
            }
            Ok(None) => {
                if size < alarm_bytes {
                    hint.0.pinned_bytes.store(0, Ordering::Relaxed);
                }
            }
            Err(error) => tracing::warn!(%error, "a checkpoint failed"),
        }
    }
    hint.pin().take();
}

/// Moves what there is when the log is long enough.
fn look(conn: &Connection, hint: &WalHint, index: &Path, size: u64) -> Result<Option<Moved>, StoreError> {
    let mut pin = hint.pin();
    let Some(pin) = pin.as_mut() else { return Ok(None) };
    // Of a short log nothing is moved beside the pin; but the pin may be in somebody's way.
    let moved = if size < MOVE_BYTES_MIN { passive(conn)? } else { pin.advance(conn)? };
    if moved.is_none() && is_truncation_waiting(conn, index)? {
        // An app's checkpoint that has the write lock as well, to begin the log anew, waits for readers, and everybody for it.
        // Nobody else can begin the log anew beside it.
        pin.release()?;
    } else if !pin.is_held() {
        pin.renew(conn)?;
    }
    Ok(moved.filter(|_| size >= MOVE_BYTES_MIN))
}

/// Whether one and the same other process has the write lock and the checkpoint lock for a while, and nobody commits: it waits
/// for readers. That two are at it, one that writes and one in a checkpoint that does not begin the log anew, must not
/// count: the log would begin anew with the writer's commit, beside that checkpoint.
fn is_truncation_waiting(conn: &Connection, index: &Path) -> Result<bool, StoreError> {
    let commits = || conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get::<_, i64>(0));
    let before = commits()?;
    let Some(process) = truncating_process(index) else { return Ok(false) };
    for _ in 0..WAITING_LOOKS {
        std::thread::sleep(WAITING_LOOK);
        if truncating_process(index) != Some(process) || commits()? != before {
            return Ok(false);
        }
    }
    Ok(true)
}

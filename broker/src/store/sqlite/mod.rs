//! The store in a SQLite file in WAL mode: the one writing connection of the broker, its turns and its epoch. The steps
//! inside a turn are in the files beside this one. Other processes write to the same file at any time; between `begin`
//! and `commit` they cannot.

mod ahead;
mod apply;
mod awake;
mod bulk;
mod count;
mod counted;
mod dependencies;
mod edit;
mod group;
mod guard;
mod insert;
mod limits;
mod news;
mod prune;
mod query;
mod queue;
mod refused;
mod row;
mod run;
mod schedules;
mod schema;
mod series;
mod submit;
mod sweep;
#[cfg(test)]
mod tests;
mod turns;
mod unique;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use laneway_core::{Now, Op, OpResult};
use laneway_protocol::message::Final;
use laneway_protocol::{Epoch, LaneName, TaskId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, params};

use self::count::Tally;
use self::dependencies::Dependencies;
use self::guard::Guard;
use self::news::News;
use self::submit::Forgetting;
use super::checkpoint::{self, WalHint};
use super::fair::Rounds;
use super::log_sync::LogSync;
use super::schedules::Fired;
use super::validate::Judge;
use super::{
    Intake, KnownSession, Load, LoadedRows, Opened, Pruned, Retention, Rules, Store, StoreError, Swept, Sync, Unstarted,
};

pub(super) use self::query::{list, paused_lanes, show};
pub(super) use self::schema::{NAMES, names_are_free, version};
pub(crate) use self::schema::{SCHEMA_VERSION, connect, migrate};
pub(super) use self::submit::{Judged, Said, insert_all};

/// How long `begin` retries on a locked database: longer than most apps' transactions. Work that nobody
/// can store is refused once several such times are over.
const LOCKED_MAX: Duration = Duration::from_millis(250);
/// The same for the start and the end of an epoch, which no worker waits for.
const EPOCH_LOCKED_MAX: Duration = Duration::from_secs(30);
/// Tries that only yield, before those that sleep.
const YIELDS: u32 = 20;
const RETRY: Duration = Duration::from_micros(50);
/// Page cache of the writing connection, in KiB. What is worked on is the head of each queue and the end of the table; more than
/// that is a copy of what the system's own cache has.
const CACHE_KIB: i64 = 2 * 1024;
/// A WAL that grew over this is cut back when it begins anew.
const WAL_KEPT_BYTES: i64 = 64 * 1024 * 1024;
/// Secrets of unclean epochs that are still tried on a worker's word.
const PAST_SECRETS_MAX: i64 = 16;
/// Epochs that are remembered.
const EPOCHS_MAX: i64 = 1000;

/// A store on one file. Owned by the scheduler thread.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    conn: Connection,
    path: PathBuf,
    log: LogSync,
    guard: Guard,
    state: State,
    epoch: Option<Epoch>,
    /// What the connection's `synchronous` is now.
    sync: Sync,
    /// Rows that the connection had changed when the turn began.
    changes_before: u64,
    /// `PRAGMA data_version` moves when another connection has committed. As of the last `changed`, and as of the last
    /// look inside a turn: apart, so that neither swallows what the other has to see.
    told_version: i64,
    turn_version: i64,
}

/// What the steps keep in memory between turns.
#[derive(Debug)]
struct State {
    judge: Judge,
    tally: Tally,
    news: News,
    forgetting: Forgetting,
    dependencies: Dependencies,
    pruning: prune::Walk,
    /// Ended rows that were queued again; those of turns that were undone among them.
    revived: u64,
    counted: counted::Counted,
    /// Where the last look for waiting rows stopped.
    toured_to: i64,
    hint: WalHint,
    mending: schedules::Mending,
    /// How queues with fair keys are read.
    rounds: Rounds,
    awake: awake::Awake,
    /// There may be more rows that an UPDATE has moved than the last intake has read.
    moved_more: bool,
    series: series::Cells,
    /// A look is open, not a turn: nothing is to be written.
    looks: bool,
}

impl SqliteStore {
    /// Opens or creates the file and brings its schema up to date. The caller holds the lock of
    /// [`lock`](super::lock).
    pub(crate) fn open(path: &Path, rules: Rules) -> Result<Self, StoreError> {
        let mut conn = connect(path, true)?;
        migrate(&mut conn)?;
        // Our own retry is fairer beside a busy app than SQLite's sleeps, which grow to 100 ms.
        conn.busy_timeout(Duration::ZERO)?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "wal_autocheckpoint", 0)?;
        conn.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        // Else SQLite plans a statement anew each time a value is bound that its plan could depend on, a LIMIT for example. No
        // plan here is better for it, and to plan a load costs as much as to read 64 rows.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        let data_version = data_version(&conn)?;
        Ok(Self {
            path: path.into(),
            log: LogSync::new(checkpoint::wal_of(path)),
            guard: Guard::new([path]),
            state: State {
                judge: Judge::new(rules),
                tally: Tally::default(),
                news: News::default(),
                forgetting: Forgetting::default(),
                dependencies: Dependencies::default(),
                pruning: prune::Walk::default(),
                revived: 0,
                counted: counted::Counted::default(),
                toured_to: 0,
                hint: WalHint::default(),
                mending: schedules::Mending::default(),
                rounds: Rounds::default(),
                awake: awake::Awake::default(),
                moved_more: false,
                series: series::Cells::on(&conn)?,
                looks: false,
            },
            epoch: None,
            sync: Sync::Power,
            changes_before: 0,
            told_version: data_version,
            turn_version: data_version,
            conn,
        })
    }

    /// What the checkpoint thread uses to ask this connection for the last step of a checkpoint.
    pub(crate) fn wal_hint(&self) -> WalHint {
        self.state.hint.clone()
    }

    fn set_sync(&mut self, sync: Sync) -> Result<(), StoreError> {
        if self.sync != sync {
            let level = match sync {
                Sync::Process => "PRAGMA synchronous = NORMAL",
                Sync::Power => "PRAGMA synchronous = FULL",
            };
            self.conn.execute_batch(level)?;
            self.sync = sync;
        }
        Ok(())
    }

    fn lock(&mut self, patience: Duration) -> Result<(), StoreError> {
        let mut begin = self.conn.prepare_cached("BEGIN IMMEDIATE")?;
        let started = Instant::now();
        for tries in 1_u32.. {
            match begin.execute([]).map_err(StoreError::from) {
                Ok(_) => {
                    drop(begin);
                    self.changes_before = self.conn.total_changes();
                    return Ok(());
                }
                Err(StoreError::Locked) if started.elapsed() < patience => {}
                Err(error) => return Err(error),
            }
            if tries <= YIELDS {
                std::thread::yield_now();
            } else {
                std::thread::sleep(RETRY);
            }
        }
        Err(StoreError::Locked)
    }

    /// Looks whether others have committed, and when they have, whether one of them was another broker.
    fn look_around(&mut self) -> Result<(), StoreError> {
        let seen = data_version(&self.conn)?;
        if seen == self.turn_version {
            return Ok(());
        }
        let Some(own) = self.epoch else { return Ok(()) };
        let newest = newest_epoch(&self.conn)?;
        if newest != Some(own) {
            return Err(StoreError::Superseded { by: newest.unwrap_or(Epoch(0)) });
        }
        self.turn_version = seen;
        Ok(())
    }

    /// A synced turn of its own, for the start and the end of an epoch.
    fn in_turn<T>(
        &mut self,
        step: impl FnOnce(&Connection, &mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.set_sync(Sync::Power)?;
        self.lock(EPOCH_LOCKED_MAX)?;
        let done = self.look_around().and_then(|()| step(&self.conn, &mut self.state)).and_then(|value| {
            self.commit()?;
            Ok(value)
        });
        if done.is_err() {
            self.rollback();
        }
        done
    }
}

impl Store for SqliteStore {
    fn open_epoch(&mut self, secret: [u8; 16], now: Now) -> Result<Opened, StoreError> {
        let opened = self.in_turn(|conn, state| open_epoch(conn, state, secret, now))?;
        self.epoch = Some(opened.epoch);
        // Now that something was committed, there is a log as well; it stays while it is open.
        self.guard = Guard::new([self.path.as_path(), self.log.wal()]);
        self.log.sync()?;
        // The first demands find the backlog; what is inserted from here on is told by the intake.
        self.state.news.start_behind(&self.conn)?;
        self.state.dependencies = Dependencies::start(&self.conn)?;
        Ok(opened)
    }

    fn close_epoch(&mut self, now: Now) -> Result<(), StoreError> {
        let Some(Epoch(number)) = self.epoch else { return Ok(()) };
        self.in_turn(|conn, _| {
            let sql = "UPDATE laneway_epochs SET stopped_at = ?2 WHERE number = ?1";
            conn.execute(sql, params![row::sql_u64(number), now.wall.0])?;
            Ok(())
        })
    }

    fn changed(&mut self) -> Result<bool, StoreError> {
        if let Err(replaced) = self.guard.look() {
            // To close the last connection deletes the log by its name, and that may be another database's by now.
            self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            return Err(replaced);
        }
        let seen = data_version(&self.conn)?;
        Ok(std::mem::replace(&mut self.told_version, seen) != seen)
    }

    fn begin(&mut self, sync: Sync) -> Result<(), StoreError> {
        self.set_sync(if self.state.judge.rules.full_durability { sync } else { Sync::Process })?;
        self.lock(LOCKED_MAX)?;
        self.look_around().inspect_err(|_| self.rollback())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let started = Instant::now();
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        if self.sync == Sync::Power {
            // A turn that wrote nothing synced nothing, and yet its answers rest on what it has read: rows that an app ended
            // or inserted without a sync of its own.
            if self.conn.total_changes() == self.changes_before {
                self.log.sync()?;
            }
            self.log.took(started.elapsed());
        }
        self.state.tally.commit();
        self.state.news.commit();
        self.state.dependencies.commit();
        if self.state.hint.take() {
            // The rest of a checkpoint that cannot finish beside a steady writer. A failure only leaves the WAL long.
            if let Err(error) = self.state.hint.finish(&self.conn) {
                tracing::debug!(%error, "the rest of a checkpoint failed");
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), StoreError> {
        self.conn.prepare_cached("BEGIN")?.execute([])?;
        self.state.looks = true;
        self.look_around().inspect_err(|_| self.rollback())
    }

    fn end_look(&mut self) -> Result<(), StoreError> {
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        self.state.looks = false;
        Ok(())
    }

    fn log_sync(&self) -> Option<LogSync> {
        self.state.judge.rules.full_durability.then(|| self.log.clone())
    }

    fn rollback(&mut self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::warn!(%error, "a turn could not be undone");
        }
        self.state.looks = false;
        self.state.tally.rollback();
        self.state.news.rollback();
        self.state.dependencies.rollback();
        // What it had deleted is there again.
        self.state.pruning = prune::Walk::default();
    }

    fn apply(&mut self, ops: &[Op], now: Now) -> Result<Vec<Option<OpResult>>, StoreError> {
        apply::apply(&self.conn, &mut self.state, &self.log, ops, now)
    }

    fn intake(&mut self, rows: usize, now: Now) -> Result<Intake, StoreError> {
        queue::intake(&self.conn, &mut self.state, rows, now)
    }

    fn load(&mut self, load: Load<'_>, now: Now) -> Result<LoadedRows, StoreError> {
        queue::load(&self.conn, &mut self.state, load, now)
    }

    fn sweep(&mut self, rows: usize, now: Now) -> Result<Swept, StoreError> {
        sweep::sweep(&self.conn, &mut self.state, rows, now)
    }

    fn endings(&mut self, tasks: &[TaskId]) -> Result<Vec<(TaskId, Option<Final>)>, StoreError> {
        query::ended(&self.conn, tasks)
    }

    fn prune(
        &mut self,
        retention: &Retention,
        watched: &BTreeSet<TaskId>,
        rows: usize,
        now: Now,
    ) -> Result<Pruned, StoreError> {
        prune::prune(&self.conn, &mut self.state, retention, watched, rows, now)
    }

    fn fire(&mut self, slots: usize, now: Now) -> Result<Fired, StoreError> {
        schedules::fire(&self.conn, &mut self.state, slots, now)
    }

    fn recount(&mut self, rows: usize) -> Result<bool, StoreError> {
        count::recount(&self.conn, &mut self.state.tally, &self.state.judge, rows)
    }

    fn is_behind(&self) -> bool {
        self.state.moved_more || self.state.dependencies.is_behind()
    }

    fn recheck(&mut self, edges: usize, now: Now) -> Result<(Vec<Unstarted>, bool), StoreError> {
        dependencies::recheck(&self.conn, &mut self.state, edges, now)
    }
}

fn data_version(conn: &Connection) -> Result<i64, StoreError> {
    Ok(conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

fn newest_epoch(conn: &Connection) -> Result<Option<Epoch>, StoreError> {
    let newest: Option<i64> =
        conn.prepare_cached("SELECT max(number) FROM laneway_epochs")?.query_row([], |row| row.get(0))?;
    Ok(newest.map(|number| Epoch(number.unsigned_abs())))
}

fn open_epoch(conn: &Connection, state: &mut State, secret: [u8; 16], now: Now) -> Result<Opened, StoreError> {
    let last: Option<Option<i64>> = conn
        .query_row("SELECT stopped_at FROM laneway_epochs ORDER BY number DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    let past_secrets = conn
        .prepare("SELECT secret FROM laneway_epochs WHERE stopped_at IS NULL ORDER BY number DESC LIMIT ?1")?
        .query_map([PAST_SECRETS_MAX], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let epoch = Epoch(newest_epoch(conn)?.map_or(1, |epoch| epoch.0 + 1));
    conn.execute(
        "INSERT INTO laneway_epochs (number, secret, started_at, pid, host) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![row::sql_u64(epoch.0), secret, now.wall.0, std::process::id(), super::lock::host()],
    )?;
    conn.execute("DELETE FROM laneway_epochs WHERE number <= ?1", [row::sql_u64(epoch.0) - EPOCHS_MAX])?;
    keep_lanes(conn, &mut state.judge)?;
    schedules::start(conn)?;
    let kinds = limits::kinds(conn)?;
    for known in &kinds {
        state.judge.set_lane(&known.kind, known.values.lane.as_ref());
    }
    Ok(Opened {
        epoch,
        past_secrets,
        running: running(conn, state, now)?,
        sessions: sessions(conn)?,
        unclean: last == Some(None),
        paused: paused_lanes(conn)?.iter().filter_map(|lane| LaneName::new(lane).ok()).collect(),
        kinds,
        lanes: limits::lanes(conn)?,
        fair_keys: limits::fair_keys(conn)?,
    })
}

/// Writes the configured lanes down and learns those of earlier settings.
fn keep_lanes(conn: &Connection, judge: &mut Judge) -> Result<(), StoreError> {
    conn.execute("UPDATE laneway_lanes SET configured = 0, rank = NULL, fallback = 0", [])?;
    let mut upsert = conn.prepare(
        "INSERT INTO laneway_lanes (name, rank, fallback) VALUES (?1, ?2, ?3) \
         ON CONFLICT (name) DO UPDATE SET rank = excluded.rank, fallback = excluded.fallback, configured = 1",
    )?;
    for (rank, lane) in (1_i64..).zip(&judge.rules.lanes) {
        upsert.execute(params![lane.as_str(), rank, *lane == judge.rules.default_lane])?;
    }
    know_lanes(conn, judge)
}

/// Learns the lanes that any broker on this file has had.
pub(super) fn know_lanes(conn: &Connection, judge: &mut Judge) -> Result<(), StoreError> {
    let mut names = conn.prepare("SELECT name FROM laneway_lanes")?;
    for name in names.query_map([], |row| row.get(0))? {
        judge.know(name?);
    }
    Ok(())
}

fn running(conn: &Connection, state: &mut State, now: Now) -> Result<Vec<laneway_core::FoundTask>, StoreError> {
    // A row that an app has set to running has no lease, so nobody could ever end it.
    sweep::reject_running_without_lease(conn, state, usize::MAX, now)?;
    let sql = format!("SELECT {} FROM tasks INDEXED BY tasks_marked WHERE state = 'running'", row::FOUND);
    let mut statement = conn.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut running = Vec::new();
    while let Some(row) = rows.next()? {
        running.extend(row::found(row, &state.judge.rules)?);
    }
    Ok(running)
}

fn sessions(conn: &Connection) -> Result<Vec<KnownSession>, StoreError> {
    let mut statement = conn.prepare("SELECT session, name, plain FROM laneway_sessions ORDER BY session")?;
    let sessions = statement
        .query_map([], |row| Ok(KnownSession { session: row.get(0)?, name: row.get(1)?, plain: row.get(2)? }))?;
    Ok(sessions.collect::<Result<_, _>>()?)
}

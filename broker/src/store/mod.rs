//! Where tasks live. [`Store`] is a narrow promise, one method per step, kept by [`sqlite`] and by the model in
//! [`memory`]; `conformance.rs` is the one suite that every store must pass. Only this folder knows SQL.
//!
//! The scheduler thread is the only caller. It works in turns: `begin`, steps, `commit`; a turn is atomic, its steps
//! take effect in order, and after `commit` returned it is as durable as `begin` was asked for. When a step or the
//! commit fails, `rollback` undoes the turn whole and the scheduler may say the same steps again: operations are
//! fenced by lease, state and run, so saying one twice changes nothing twice.

mod cancel;
pub(crate) mod care;
pub(crate) mod checkpoint;
#[cfg(test)]
mod conformance;
mod dependencies;
mod fair;
mod index_locks;
pub(crate) mod lock;
pub(crate) mod log_sync;
#[cfg(any(test, feature = "internals"))]
pub(crate) mod memory;
pub(crate) mod offline;
mod pin;
mod retention;
mod schedules;
pub(crate) mod sqlite;
mod validate;

use std::collections::BTreeSet;
use std::fmt;

use laneway_core::{FairRules, FoundTask, Now, Op, OpResult, QueueKey, QueuedTask, UnixMillis};
use laneway_protocol::message::{FairKeyValues, Final, KindValues, LaneValues};
use laneway_protocol::{Epoch, FairKey, Kind, LaneName, TaskId};

pub(crate) use self::retention::{Keep, Keeping, Limit, Limits, Pruned, Retention};
pub(crate) use self::schedules::Fired;
pub(crate) use self::validate::Bad;

/// What a turn must survive once it is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sync {
    /// A kill of the broker.
    Process,
    /// A power cut as well.
    Power,
}

/// A task store. Times come in as arguments; no method sleeps longer than its own retry on a locked database.
pub(crate) trait Store {
    /// Starts an epoch: keeps `secret` synced before it returns, so that leases made with it can be told apart ever
    /// after. Fails when another broker has a newer epoch or the schema is newer than this program.
    fn open_epoch(&mut self, secret: [u8; 16], now: Now) -> Result<Opened, StoreError>;

    /// Marks the epoch as ended cleanly: everything handed out is recorded.
    fn close_epoch(&mut self, now: Now) -> Result<(), StoreError>;

    /// Whether another connection has committed since the last call, here or inside a turn. Costs microseconds.
    fn changed(&mut self) -> Result<bool, StoreError>;

    /// Begins a turn. Fails with [`StoreError::Locked`] after a bounded retry.
    fn begin(&mut self, sync: Sync) -> Result<(), StoreError>;

    /// Ends a turn.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Begins a look: until `end_look` everything is read as of one moment, nothing is written, and no writer waits for it.
    /// Fails like a turn when another broker has opened the store.
    fn look(&mut self) -> Result<(), StoreError>;

    fn end_look(&mut self) -> Result<(), StoreError>;

    /// What makes committed turns survive a power cut, from any thread; `None` when only `begin` can ask for that.
    fn log_sync(&self) -> Option<log_sync::LogSync>;

    /// Undoes a turn, or ends a look; also called after a failed `commit` or `end_look`.
    fn rollback(&mut self);

    /// Applies operations in order. A [`Op::Started`] and the [`Op::Ended`] of the same run within `ops` may become one
    /// write. Gives one result for each operation that has one, in order; the others give `None`.
    fn apply(&mut self, ops: &[Op], now: Now) -> Result<Vec<Option<OpResult>>, StoreError>;

    /// Looks at up to `rows` rows that came in since the last intake, in id order: rejects those that make no sense
    /// (dead, with a reason that names the fix) and tells where work may be, the work of our own hand included: submits,
    /// spawned tasks, retries, releases, requeues, children whose parents have ended. Those do not show as a change.
    fn intake(&mut self, rows: usize, now: Now) -> Result<Intake, StoreError>;

    /// Reads the head of one queue: due rows in order of due time and id, none of `skip`, at most `rows` rows and about
    /// `bytes` of payload (at least one row). Where rows have fair keys each key in turn gives as many as its weight, in that
    /// order of its own, from where the last load stopped. Rejects rows that make no sense on the way; in a look it gives nothing but
    /// `unfit` when there are any, and a turn is to call it again. The cost does not grow with the backlog.
    fn load(&mut self, load: Load<'_>, now: Now) -> Result<LoadedRows, StoreError>;

    /// Looks at up to `rows` rows each that need a hand of the broker wherever they are: cancel requested, expired, of a
    /// wrong type. Costs nothing that grows with the backlog.
    fn sweep(&mut self, rows: usize, now: Now) -> Result<Swept, StoreError>;

    /// Of these tasks, those that have ended or vanished.
    fn endings(&mut self, tasks: &[TaskId]) -> Result<Vec<(TaskId, Option<Final>)>, StoreError>;

    /// Deletes ended rows past the retention, looking at no more than `rows` rows; goes on where the last call stopped. Rows that
    /// something still needs, those of `watched` among them, are kept.
    fn prune(
        &mut self,
        retention: &Retention,
        watched: &BTreeSet<TaskId>,
        rows: usize,
        now: Now,
    ) -> Result<Pruned, StoreError>;

    /// Looks at the schedules: works out the next slot of those that are new or were changed, and fires up to `slots` slots
    /// that are due, each once for ever. A turn that fires must be synced. Costs one look at an index while nothing is to
    /// be done.
    fn fire(&mut self, slots: usize, now: Now) -> Result<Fired, StoreError>;

    /// Counts on, over at most `rows` rows of the queue. True when the pass is complete: the counts of [`Op::Counts`] were
    /// corrected, and the next call begins anew.
    fn recount(&mut self, rows: usize) -> Result<bool, StoreError>;

    /// Whether ends were written whose children the next intake has to look at.
    fn is_behind(&self) -> bool;

    /// Walks on over up to `edges` open dependencies, for what happened to their parents unseen. Gives the tasks that were
    /// ended just now, and whether the walk is complete; the next call begins anew.
    fn recheck(&mut self, edges: usize, now: Now) -> Result<(Vec<Unstarted>, bool), StoreError>;
}

/// What an earlier life of the broker left.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) epoch: Epoch,
    /// Of earlier epochs whose leases may still be out, newest first, this epoch's not among them.
    pub(crate) past_secrets: Vec<[u8; 16]>,
    /// Every running row.
    pub(crate) running: Vec<FoundTask>,
    pub(crate) sessions: Vec<KnownSession>,
    /// The last epoch was not closed: hand-outs may be out that no row shows.
    pub(crate) unclean: bool,
    pub(crate) paused: Vec<LaneName>,
    pub(crate) kinds: Vec<KnownKind>,
    /// Lanes of which something was set besides a pause.
    pub(crate) lanes: Vec<(LaneName, LaneValues)>,
    pub(crate) fair_keys: Vec<(FairKey, FairKeyValues)>,
}

/// What was set of a kind while a broker ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownKind {
    pub(crate) kind: Kind,
    pub(crate) paused: bool,
    pub(crate) values: KindValues,
}

/// A worker process that was connected when the broker went away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownSession {
    pub(crate) session: String,
    pub(crate) name: String,
    /// It says no HELLO, so it cannot resume: its tasks keep their leases until they time out.
    pub(crate) plain: bool,
}

/// A row that the store itself has ended: cancelled, expired or rejected, before it ever ran or between two runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unstarted {
    pub(crate) end: Final,
    /// Its queue, when its kind and lane make sense. For the log.
    pub(crate) key: Option<QueueKey>,
}

/// What an intake found.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// Rows looked at; fewer than asked for means that all are seen.
    pub(crate) rows: usize,
    /// Queues that may have new due work.
    pub(crate) due: Vec<QueueKey>,
    /// Queues with new work for later, and when.
    pub(crate) later: Vec<(QueueKey, UnixMillis)>,
    /// Of queues that are read by turns: the keys of the new work, `None` for work without one; due, and for later.
    pub(crate) turns: Vec<(QueueKey, Option<FairKey>)>,
    pub(crate) turns_later: Vec<(UnixMillis, QueueKey, Option<FairKey>)>,
    pub(crate) rejected: Vec<Unstarted>,
    /// Rows that were queued because all that they waited for has ended, since the last call. For the log.
    pub(crate) let_go: Vec<(TaskId, QueueKey)>,
}

/// Which rows to read ahead.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) key: &'a QueueKey,
    /// Already in memory or handed out.
    pub(crate) skip: &'a dyn Fn(TaskId) -> bool,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    /// How rows with fair keys take turns.
    pub(crate) fair: &'a FairRules,
}

#[derive(Debug, Default)]
pub(crate) struct LoadedRows {
    pub(crate) tasks: Vec<QueuedTask>,
    /// Due rows are left behind these.
    pub(crate) more: bool,
    /// When the first row that is not due yet will be, or earlier.
    pub(crate) next_at: Option<UnixMillis>,
    /// As in [`Loaded`](laneway_core::Loaded).
    pub(crate) left: Vec<Option<FairKey>>,
    pub(crate) passed: Vec<FairKey>,
    /// Rows at the head that were rejected, cancelled or expired just now.
    pub(crate) rejected: Vec<Unstarted>,
    /// In a look: there are such rows, so nothing was read.
    pub(crate) unfit: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Queued rows that were cancelled, expired or rejected just now.
    pub(crate) ended: Vec<Unstarted>,
    /// Running rows with a cancel requested, each told in every sweep until it ends.
    pub(crate) cancel_requested: Vec<TaskId>,
    /// There was more than `rows` to do.
    pub(crate) more: bool,
    /// When the next row expires.
    pub(crate) next_at: Option<UnixMillis>,
}

/// What the store must know to tell a good row from a bad one.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Configured lanes; rows of lanes known from earlier settings are kept, rows of never-known lanes rejected.
    pub(crate) lanes: Vec<LaneName>,
    pub(crate) default_lane: LaneName,
    /// Kinds whose default lane is another.
    pub(crate) kind_lanes: std::collections::HashMap<Kind, LaneName>,
    pub(crate) payload_bytes_max: usize,
    pub(crate) full_durability: bool,
}

impl Rules {
    /// The lane of rows of this kind whose own is NULL.
    pub(crate) fn lane_of(&self, kind: &Kind) -> &LaneName {
        self.kind_lanes.get(kind).unwrap_or(&self.default_lane)
    }
}

/// Why the store did not do it.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// Another process holds the write lock for longer than the retry. A retry helps.
    Locked,
    /// Disk full, read-only, input or output error. A retry helps once the cause is gone.
    Unavailable(String),
    /// Another broker has opened the store since; this one must stop.
    Superseded { by: Epoch },
    /// The file was made by a newer program.
    SchemaTooNew { found: u32, known: u32 },
    /// The file has no schema of ours, and an app's table or view stands where it would go.
    NameTaken { what: String, name: String },
    /// Another broker runs on the database; what it wrote about itself.
    InUse { by: String },
    /// A task that makes no sense was to be stored without a broker; the text names value, bound and fix.
    Refused(String),
    /// SQLite finds the file damaged, or no database at all: stop.
    Corrupt(String),
    /// The file that is open is not the one at the path any more: stop, what is written to it is lost.
    Replaced(String),
    /// What was committed could not be synced: stop, for nothing tells what of it is on disk.
    Unsynced(String),
    /// Anything that leaves doubt about what is stored: stop.
    Broken(String),
}

impl StoreError {
    /// Whether the same turn can succeed later.
    pub(crate) fn retry(&self) -> bool {
        matches!(self, Self::Locked | Self::Unavailable(_))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked => write!(f, "the database is locked by another process"),
            Self::Unavailable(cause) => write!(f, "the database cannot be written: {cause}"),
            Self::Superseded { by } => write!(f, "another broker has opened this database (epoch {by})"),
            Self::SchemaTooNew { found, known } => {
                write!(f, "the database has schema {found}, this program knows {known}: use a newer laneway")
            }
            Self::NameTaken { what, name } => write!(
                f,
                "the database already has a {what} named '{name}' that is not Laneway's: use another file, or rename it"
            ),
            Self::InUse { by } => {
                write!(f, "another broker runs on this database ({by}): stop it, or use another database")
            }
            Self::Refused(reason) => f.write_str(reason),
            Self::Corrupt(cause) => write!(
                f,
                "the database is damaged, or no database: {cause}; `laneway db check` tells what is wrong, \
                 `laneway db restore` puts a backup in its place"
            ),
            Self::Replaced(what) => write!(
                f,
                "the database was replaced under the running broker ({what}): stop the broker before you move its files, \
                 use `laneway db restore` to put a backup in, then start it again"
            ),
            Self::Unsynced(cause) => write!(
                f,
                "the disk did not sync {cause}; nothing that hangs on it was confirmed: look after the disk, then start again"
            ),
            Self::Broken(cause) => write!(f, "the database is not as it should be: {cause}"),
        }
    }
}

impl std::error::Error for StoreError {}

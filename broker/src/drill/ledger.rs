//! What the drill was promised: ids that the broker or a commit acknowledged, cancels, results that callers were given.
//! Kept outside the broker and its database, for the audit to hold them against it.

use laneway::TaskState;

/// Filled by the threads of the load.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) tasks: Vec<Acknowledged>,
    /// Stores that met a live task with the same key: the number that was not stored, and the task that was there when
    /// that was told.
    pub(super) met: Vec<(u64, Option<i64>)>,
    /// Stores that ended in an error: they may have happened or not.
    pub(super) unsure: Vec<u64>,
    pub(super) cancels: Vec<Cancel>,
    pub(super) calls: Vec<Call>,
    /// Rows that were seen ended.
    pub(super) seen: Vec<Seen>,
    /// What went wrong for an app.
    pub(super) complaints: Vec<String>,
}

/// A task whose store was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) number: u64,
    pub(super) task: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cancel {
    pub(super) task: i64,
    pub(super) told: Told,
}

/// What came of asking for a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It had not started and is cancelled.
    Cancelled,
    /// It is to stop.
    Requested,
    /// It had ended before; or nothing was told, and the cancel may have come through or not.
    Nothing,
}

/// How a task ended, as its caller was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) task: i64,
    pub(super) state: TaskState,
    pub(super) result: Option<String>,
}

/// A row as it stood when it had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) task: i64,
    pub(super) state: String,
    pub(super) result: Option<String>,
    pub(super) lease: Option<i64>,
    pub(super) finished_at: Option<i64>,
}

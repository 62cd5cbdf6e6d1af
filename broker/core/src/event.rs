//! Everything that can happen to the core. A new cause of change is a new variant here, not a callback.

use laneway_protocol::message::{Final, Request};
use laneway_protocol::{FairKey, Kind, LaneName, Lease, Payload, TaskId, TaskState};

use crate::action::OpResult;
use crate::time::UnixMillis;

#[derive(Debug)]
pub enum Event {
    /// A peer asked something. Answered exactly once, with [`Action::Answer`](crate::Action::Answer) to the same place,
    /// unless a later question of the same slot replaces it.
    Asked { from: Asker, request: Request },
    /// A message could not be decoded; the shell has answered it.
    BadMessage,
    /// Every word on this connection came and no more will.
    Disconnected(ConnId),
    /// An answer that carried hand-outs could not be given to the socket.
    Undelivered(ReplyTo),
    /// Rows read ahead from the heads of queues. What one look at the table found comes as one event: all of it is at hand
    /// before any of it is handed out.
    Loaded(Vec<Loaded>),
    /// Queues whose tables got due rows of these keys, or of none where others have one; behind what was loaded of them.
    Appeared(Vec<(QueueKey, Option<FairKey>)>),
    /// Results of operations, in the order of their commits. Everything in here is as durable as the settings say.
    Committed(Vec<(OpId, OpResult)>),
    /// Tasks that the store itself has ended, before they ever ran or between two runs: cancelled, expired, rejected. Each
    /// is told once.
    EndedByStore(Vec<Final>),
    /// Watched tasks that were found to have ended, or vanished (`None`): by an app's SQL, or by a hand that is known.
    Overtaken(Vec<(TaskId, Option<Final>)>),
    /// Running tasks that an app wants cancelled.
    CancelRequested(Vec<TaskId>),
    /// The store refuses writes. Operations are held and tried again; new work is refused with this text.
    StoreFailed(String),
    /// The store takes writes again.
    StoreRecovered,
    /// The shell did not run for this long: its own stall, nobody else's fault.
    Stalled { ms: u64 },
    /// A deadline of [`Broker::next_deadline`](crate::Broker::next_deadline) has come.
    Tick,
    /// Hand nothing out until told otherwise, while everything else goes on (true), or hand out again. Workers wait with their
    /// questions and are not sent away.
    Quiet(bool),
    /// Stop handing out; what is asked is answered with WAIT.
    Stop,
}

/// Where an answer goes: chosen by the shell, one for each question, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo(pub u64);

/// One connection from its first word to its disconnect; never used again, though descriptors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    pub reply: ReplyTo,
    pub conn: ConnId,
}

/// Names one store operation until its result comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A lane and a kind: what is queued, demanded and loaded together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey {
    pub lane: LaneName,
    pub kind: Kind,
}

/// The answer to a demand. Each demand is answered at least once, at once and possibly with no rows, then again
/// whenever rows turn up while the demand is open.
#[derive(Debug)]
pub struct Loaded {
    pub key: QueueKey,
    pub tasks: Vec<QueuedTask>,
    /// There are more due rows behind these.
    pub more: bool,
    /// Keys that these rows have, and of which there may be more due rows; `None` for rows without one. Empty where no row
    /// of the queue has a key.
    pub left: Vec<Option<FairKey>>,
    /// Keys that were passed over though they have due rows, for the demand said that they are closed.
    pub passed: Vec<FairKey>,
}

/// A due row of the table, as read ahead. It is `queued` there until its hand-out is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedTask {
    pub id: TaskId,
    /// `run_at`, or `created_at` when that is NULL: the order within a lane.
    pub due: UnixMillis,
    /// Tells the task from an earlier one of the same id that a power cut took away, see [`crate::LeaseKey`].
    pub created_at: UnixMillis,
    pub runs: u32,
    pub attempts: u32,
    pub losses: u32,
    pub max_attempts: Option<u32>,
    pub timeout_ms: Option<u64>,
    pub expires_at: Option<UnixMillis>,
    pub payload: Option<Payload>,
    pub checkpoint: Option<Payload>,
    pub trace: Option<String>,
    pub fair_key: Option<FairKey>,
    /// Whose waiters hear what it says.
    pub group: Option<u64>,
}

/// A row looked up by id, as the core needs it to resume or adopt a hand-out.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundTask {
    pub id: TaskId,
    pub kind: Kind,
    /// The row's own lane, or the default of its kind.
    pub lane: LaneName,
    pub fair_key: Option<FairKey>,
    pub group: Option<u64>,
    pub state: TaskState,
    pub lease: Option<Lease>,
    pub runs: u32,
    pub attempts: u32,
    pub losses: u32,
    pub max_attempts: Option<u32>,
    pub timeout_ms: Option<u64>,
    pub due: UnixMillis,
    /// See [`QueuedTask::created_at`].
    pub created_at: UnixMillis,
    pub started_at: Option<UnixMillis>,
    /// The session that runs it, or ran it last.
    pub worker: Option<String>,
    pub cancel_requested: bool,
}

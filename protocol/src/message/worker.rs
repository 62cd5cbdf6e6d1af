//! What workers say and hear: HELLO, READY, PROGRESS, BEAT and BYE.

use serde::{Deserialize, Serialize};

use super::{Final, NewTask, Payload, is_false, one};
use crate::ids::{Epoch, Kind, LaneName, Lease, SessionName, TaskId};

/// A task and the lease under which a worker holds it; `[task, lease]` on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Held(pub TaskId, pub Lease);

/// A worker process introduces itself, at start and after every restart of the broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub session: SessionName,
    /// For people: shown in lists and logs. At most 128 bytes are kept.
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub pid: u32,
    /// The library and its version.
    #[serde(default)]
    pub sdk: String,
    pub kinds: Vec<Kind>,
    /// Absent: every lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<Vec<LaneName>>,
    /// Handler slots of the process, for people.
    #[serde(default)]
    pub slots: u32,
    /// Everything the process holds: received, running, finished and not settled.
    #[serde(default)]
    pub resume: Vec<Held>,
    /// More pages of `resume` follow in further HELLOs.
    #[serde(default)]
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    pub epoch: Epoch,
    /// How often a worker says BEAT, at least.
    pub beat_ms: u64,
    /// The longest `wait_ms` that is honoured; longer ones are cut to it.
    pub wait_ms_max: u64,
    /// The largest payload, result or piece of partial data.
    pub payload_bytes_max: u64,
    /// The most tasks, outcomes or leases in one message.
    pub batch_max: u32,
    /// The lanes, most urgent first.
    #[serde(default)]
    pub lanes: Vec<LaneName>,
    /// Those of `resume` that are no longer this worker's: stop them, their outcome would be stale.
    #[serde(default)]
    pub lost: Vec<Held>,
}

/// A slot has nothing to do and asks for work, bringing the outcomes of what it finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    pub session: SessionName,
    #[serde(default)]
    pub slot: u32,
    /// From WELCOME, or for a plain worker, which says no HELLO, from its last TASKS: the broker start that `ack` belongs
    /// to. Absent: a plain worker that has received no TASKS yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The last `seq` that this slot received, 0 before the first. Tasks sent later were lost on the way and go back
    /// at once. Absent: unknown, nothing goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<u64>,
    /// Rises with each READY of the slot, said again or not. One that comes behind a higher number was overtaken on its way
    /// and is left unanswered. Absent: it is the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// The most tasks the answer may carry.
    #[serde(default = "one")]
    pub max: u32,
    /// How long the broker may park the question while there is no task. 0: answer at once.
    #[serde(default)]
    pub wait_ms: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<Outcome>,
    /// The slot's count of messages with outcomes. Present: the peer keeps these outcomes until an answer's `settled`
    /// reaches this number, and the answer need not wait for their commit. Absent: the answer follows the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u64>,
    /// Hand tasks out only once that is recorded in the table, for workers that finish tasks by SQL.
    #[serde(default, skip_serializing_if = "is_false")]
    pub committed: bool,
    /// Needed without HELLO; with one, narrows this slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<Kind>>,
    /// Absent: the lanes of HELLO, or every lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<Vec<LaneName>>,
}

/// How one run of a task ended, said by the worker that ran it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub task: TaskId,
    pub lease: Lease,
    pub end: End,
    /// With `done`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Payload>,
    /// With `fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `fail`: retry after this long instead of the kind's backoff. With `snooze`: come back after this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// With `fail`: no more tries.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dead: bool,
    /// New tasks, committed together with this outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spawn: Vec<NewTask>,
}

impl Outcome {
    /// An outcome without result, error or delay.
    pub fn new(task: TaskId, lease: Lease, end: End) -> Self {
        Self { task, lease, end, result: None, error: None, after_ms: None, dead: false, spawn: Vec::new() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The handler succeeded.
    Done,
    /// The handler failed: an attempt.
    Fail,
    /// Not now: comes back after `after_ms`, no attempt counted.
    Snooze,
    /// Handed back at once, no attempt counted.
    Release,
    /// Ended because a cancel was requested.
    Cancelled,
    /// The worker finished the row itself, by SQL.
    Already,
}

/// What became of one outcome, in the order in which they were said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeCode {
    /// Taken; on disk as soon as `settled` says so, or already when the question had no `batch`.
    Ok,
    /// Said before and on disk.
    Recorded,
    /// Under a lease that is not the current one: changed nothing.
    Stale,
    /// A spawned task made no sense; the outcome was recorded as a failure that says so.
    Refused,
    /// A code of a newer broker.
    #[serde(other)]
    Unknown,
}

/// TASKS: work for a slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandOut {
    pub epoch: Epoch,
    /// The slot's count of TASKS answers in this epoch; goes back as `ack`.
    pub seq: u64,
    pub tasks: Vec<HandedTask>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<OutcomeCode>,
    /// Every outcome said by this slot with a `batch` up to this is on disk.
    #[serde(default)]
    pub settled: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandedTask {
    pub task: TaskId,
    pub lease: Lease,
    pub kind: Kind,
    pub lane: LaneName,
    /// Hand-outs of this task, this one included.
    pub run: u32,
    /// Attempts, this one included: 1 up to `max_attempts`.
    pub attempt: u32,
    pub max_attempts: u32,
    /// The lease ends this long after the hand-out.
    pub timeout_ms: u64,
    /// Absent: the row's payload is NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// What an earlier run saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Payload>,
}

/// WAIT: nothing for this slot now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    pub epoch: Epoch,
    /// When to ask again; 0 is at once.
    pub after_ms: u64,
    pub reason: WaitReason,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outcomes: Vec<OutcomeCode>,
    #[serde(default)]
    pub settled: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// No task was due.
    Idle,
    /// The broker was told to drain: finish what runs, then leave.
    Draining,
    /// The broker is stopping or has just started.
    Stopping,
    #[serde(other)]
    Unknown,
}

/// A running task tells how far it is. Every field but the lease is optional.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub session: SessionName,
    pub task: TaskId,
    pub lease: Lease,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Ends the lease this long from now instead of at its deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extend_ms: Option<u64>,
    /// A piece of the result, for those who wait for the task; not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Payload>,
    /// Lines of a log, for those who wait for the task; not kept. At most 8 KiB, cut at a character boundary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Kept in the row and handed out with the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Payload>,
    /// Asks how the tasks ended that this one depended on: those with an id above this, 0 for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parents: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgressNoted {
    /// A cancel was requested: stop and say `cancelled`.
    pub cancel: bool,
    /// As asked for, by id, as many as fit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Final>,
    /// There are more parents behind the last of these.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

/// A worker process is alive and runs these. Parked until there is news or `wait_ms` is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    pub session: SessionName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    #[serde(default)]
    pub running: Vec<Held>,
    #[serde(default)]
    pub wait_ms: u64,
}

/// A slot, and the last of its batches of outcomes up to which all are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled(pub u32, pub u64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BeatNoted {
    pub epoch: Epoch,
    /// Tasks to stop because a cancel was requested or their time is up.
    #[serde(default)]
    pub cancel: Vec<Held>,
    /// Tasks of the question that are no longer this worker's.
    #[serde(default)]
    pub stale: Vec<Held>,
    /// Slots whose outcomes have come to disk since they were last told how far; 0 to 512 of them.
    #[serde(default)]
    pub settled: Vec<Settled>,
    /// Take no more tasks and leave when those that run are finished.
    #[serde(default)]
    pub drain: bool,
    /// Hand back what runs, then leave.
    #[serde(default)]
    pub release: bool,
}

/// A worker process leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bye {
    pub session: SessionName,
    /// Tasks that it will not finish: handed back, nothing counted against them.
    #[serde(default)]
    pub release: Vec<Held>,
    #[serde(default)]
    pub outcomes: Vec<Outcome>,
    /// More pages follow in further BYEs; the session ends with the last.
    #[serde(default)]
    pub more: bool,
}

/// After the commit of everything that BYE brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ByeNoted {
    #[serde(default)]
    pub outcomes: Vec<OutcomeCode>,
}

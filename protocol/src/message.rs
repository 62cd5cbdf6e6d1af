//! Every message as a type: what a peer may ask, what the broker answers.
//!
//! A struct here is the `MessagePack` map of the same keys. A [`Payload`] shows up in the map as its format only; its bytes
//! travel in a frame of their own, in the order in which the payloads stand in the message.

mod bulk;
mod schedules;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::WireError;
use crate::ids::{Epoch, FairKey, Kind, LaneName, Lease, RequestId, SessionName, TaskId};
use crate::rate::Rate;

pub use self::bulk::{Batch, Bulk, BulkFilter, Bulked, Change};
pub use self::schedules::{CatchUp, NewSchedule, ScheduleRow, ScheduleRows, Schedules};

/// Asked by a client or a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    Hello(Hello),
    Ready(Ready),
    Progress(Progress),
    Beat(Beat),
    Bye(Bye),
    Submit(Submit),
    WaitFor(WaitFor),
    Status(Status),
    Cancel(Tasks),
    Requeue(Tasks),
    Lanes(Lanes),
    Workers(ListWorkers),
    Stats,
    Drain(Drain),
    Schedules(Schedules),
    Bulk(Bulk),
    Kinds(Kinds),
    FairKeys(FairKeys),
    Group(AboutGroup),
    Ping,
}

/// Said by the broker, once for each well-formed question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Welcome(Welcome),
    Tasks(HandOut),
    Wait(Wait),
    Progress(ProgressNoted),
    Beat(BeatNoted),
    Bye(ByeNoted),
    Submit(Submitted),
    WaitFor(Waited),
    Status(StatusRows),
    Cancel(Verdicts),
    Requeue(Verdicts),
    Lanes(LaneRows),
    Workers(WorkerRows),
    Stats(StatsReport),
    Drain(Drained),
    Schedules(ScheduleRows),
    Bulk(Bulked),
    Kinds(KindRows),
    FairKeys(FairKeyRows),
    Group(GroupRow),
    Pong(Pong),
    Error(WireError),
}

// ---------------------------------------------------------------------------------------------------------- payloads

/// How the bytes of a payload are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// UTF-8 text that is JSON; TEXT in the table.
    Json,
    /// `MessagePack` or anything else; BLOB in the table.
    Bin,
}

/// Bytes that the broker carries and never parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub format: Format,
    pub bytes: Vec<u8>,
}

impl Payload {
    pub fn json(text: impl Into<String>) -> Self {
        Self { format: Format::Json, bytes: text.into().into_bytes() }
    }

    pub fn bin(bytes: impl Into<Vec<u8>>) -> Self {
        Self { format: Format::Bin, bytes: bytes.into() }
    }
}

// In the body a payload is its format; the codec moves the bytes to and from the frames behind it.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.format.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { format: Format::deserialize(deserializer)?, bytes: Vec::new() })
    }
}

// ------------------------------------------------------------------------------------------------------------- worker

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

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
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

// ------------------------------------------------------------------------------------------------------------- client

/// A task to be. Every field but the kind is optional and has the broker's default for the kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTask {
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// Unix milliseconds; absent is at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Unix milliseconds after which the task is not started any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// For whom it is: tasks of its lane with other keys take turns with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fair_key: Option<FairKey>,
    /// What happens when the unique key is taken.
    #[serde(default, skip_serializing_if = "OnConflict::is_keep")]
    pub on_conflict: OnConflict,
    /// With a unique key: it stays taken for so long after its task is done, so that late callers get that one's result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_for_ms: Option<u64>,
    /// Makes the unique key out of the payload; not beside `unique_key`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unique_by_payload: bool,
    /// Tasks that must have ended before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<After>,
    /// A group that is there already, which it joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u64>,
    /// With `spawn`: joins the group of the task that spawns it, if that has one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub join: bool,
}

/// What a submit does when a task with its kind and unique key is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// That task stands for the new one.
    #[default]
    Keep,
    /// As `keep`; one that is still queued gets the payload and `run_at` of the new one. Not in `spawn`.
    Replace,
    /// Nothing of the submit is stored: `conflict`.
    Reject,
}

impl OnConflict {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_keep(&self) -> bool {
        *self == Self::Keep
    }
}

/// One task that another waits for: a stored one by its id, or one of the same list by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Its place in the list of tasks that this one stands in, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Run all the same when that one is dead or cancelled. Else this one is cancelled with it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub anyway: bool,
}

impl NewTask {
    /// A task with every setting at the broker's default for its kind.
    pub fn new(kind: Kind, payload: Option<Payload>) -> Self {
        Self {
            kind,
            lane: None,
            payload,
            run_at: None,
            unique_key: None,
            max_attempts: None,
            timeout_ms: None,
            expires_at: None,
            trace: None,
            fair_key: None,
            on_conflict: OnConflict::Keep,
            unique_for_ms: None,
            unique_by_payload: false,
            after: Vec::new(),
            group: None,
            join: false,
        }
    }
}

/// Tasks to store, all or none. Said again with the same `request` within 10 minutes, it gets the same ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submit {
    pub request: RequestId,
    pub tasks: Vec<NewTask>,
    /// How long to wait for the results before the answer is sent without them.
    #[serde(default)]
    pub wait_ms: u64,
    /// The new ones are cancelled when nobody waits for them any more, as with [`WaitFor::abandon`], or when nobody comes to
    /// wait for them. Not beside `group`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub abandon: bool,
    /// Makes these tasks a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<NewGroup>,
}

/// A group to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NewGroup {
    /// For people. At most 128 bytes are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number of the task that waits for all others of the group, those that join later among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// That one runs though some of them are dead or cancelled.
    #[serde(default, skip_serializing_if = "is_false")]
    pub anyway: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// One for each task, in order. On disk.
    pub tasks: Vec<Stored>,
    /// Those that ended within `wait_ms`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finals: Vec<Final>,
    /// The group that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub task: TaskId,
    /// False: a task with the same kind and unique key was met. The same again when the request is said again.
    pub new: bool,
    /// The task that was met got the payload and `run_at` of the submit, and has not started with the old ones.
    #[serde(default, skip_serializing_if = "is_false")]
    pub replaced: bool,
}

impl Stored {
    /// A task that was not there before.
    pub fn new(task: TaskId) -> Self {
        Self { task, new: true, replaced: false }
    }

    /// One that was.
    pub fn met(task: TaskId) -> Self {
        Self { task, new: false, replaced: false }
    }
}

/// Wait for tasks to end, hearing their progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitFor {
    #[serde(default)]
    pub tasks: Vec<TaskId>,
    /// With `unique_key`: the newest task of this kind and key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    /// From the last answer: only later events are told. Absent: those of the buffer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
    #[serde(default)]
    pub wait_ms: u64,
    /// The tasks are cancelled when the last of those who wait for them has left and nobody has come back in time, whether or
    /// not that one says it too. Forgotten with a restart of the broker, so say it each time. Not for a group.
    #[serde(default, skip_serializing_if = "is_false")]
    pub abandon: bool,
    /// Instead of tasks: a group, until none of its tasks is live any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u64>,
}

/// A place in the broker's stream of progress events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    pub epoch: Epoch,
    pub n: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waited {
    pub cursor: Cursor,
    /// Events between the question's cursor and the first one here are gone, by a restart or a full buffer.
    #[serde(default)]
    pub gap: bool,
    #[serde(default)]
    pub events: Vec<ProgressEvent>,
    /// Tasks that have ended; ask no more for these.
    #[serde(default)]
    pub finals: Vec<Final>,
    /// Still to end.
    #[serde(default)]
    pub pending: Vec<TaskId>,
    /// Never existed.
    #[serde(default)]
    pub not_found: Vec<TaskId>,
    /// Ended so long ago that the row was deleted.
    #[serde(default)]
    pub pruned: Vec<TaskId>,
    /// Where the group stands that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupRow>,
}

/// Ask about a group, or cancel what of it has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AboutGroup {
    pub group: u64,
    /// What has not started ends at once, what runs is asked to stop.
    #[serde(default)]
    pub cancel: bool,
}

/// Where a group stands: its tasks by state, the last one among them. Each number is counted up to
/// [`GROUP_COUNT_MAX`](crate::limits::GROUP_COUNT_MAX).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupRow {
    pub group: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The task that waits for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<TaskId>,
    pub created_at: i64,
    pub waiting: u64,
    pub queued: u64,
    pub running: u64,
    pub done: u64,
    pub dead: u64,
    pub cancelled: u64,
}

impl GroupRow {
    /// Its tasks that have not ended.
    pub fn live(&self) -> u64 {
        self.waiting + self.queued + self.running
    }

    pub fn total(&self) -> u64 {
        self.live() + self.done + self.dead + self.cancelled
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgressEvent {
    pub n: u64,
    pub task: TaskId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Payload>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Final {
    pub task: TaskId,
    /// `done`, `dead` or `cancelled`.
    pub state: TaskState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Payload>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where a task is in its life; the `state` column holds the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Has unfinished dependencies.
    Waiting,
    /// Due now or at `run_at`.
    Queued,
    /// Leased to a worker.
    Running,
    /// Succeeded.
    Done,
    /// Failed for good, or rejected; kept until a person requeues or purges it.
    Dead,
    /// Withdrawn or expired.
    Cancelled,
}

impl TaskState {
    pub const ALL: [TaskState; 6] = [
        TaskState::Waiting,
        TaskState::Queued,
        TaskState::Running,
        TaskState::Done,
        TaskState::Dead,
        TaskState::Cancelled,
    ];

    /// As it stands in the table and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::Waiting => "waiting",
            TaskState::Queued => "queued",
            TaskState::Running => "running",
            TaskState::Done => "done",
            TaskState::Dead => "dead",
            TaskState::Cancelled => "cancelled",
        }
    }

    /// `None` when `word` is not a state.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether the task has ended.
    pub fn is_final(self) -> bool {
        matches!(self, TaskState::Done | TaskState::Dead | TaskState::Cancelled)
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Look tasks up: by id, or by filter in pages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    #[serde(default)]
    pub tasks: Vec<TaskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// With payload, result, failures and an explanation; for at most 16 ids.
    #[serde(default)]
    pub detail: bool,
}

/// Which tasks to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Only ids below this: the last id of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<TaskId>,
    /// Rows in the answer, at most 512; 0 means 50.
    #[serde(default)]
    pub limit: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusRows {
    pub rows: Vec<TaskRow>,
    #[serde(default)]
    pub not_found: Vec<TaskId>,
    /// The page ended early; go on with this as `before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<TaskId>,
    /// Of the ids asked for, those whose rows found no room in this answer: ask again for these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<TaskId>,
}

/// A task as people see it. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRow {
    pub id: TaskId,
    pub kind: String,
    /// The row's own, or the default for its kind; absent when the row's kind is no name of a kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    pub state: TaskState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fair_key: Option<String>,
    pub runs: u32,
    pub attempts: u32,
    pub losses: u32,
    pub releases: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    pub created_at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_done: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_total: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_note: Option<String>,
    #[serde(default)]
    pub cancel_requested: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With `detail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// With `detail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Payload>,
    /// With `detail`, newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<FailureRow>,
    /// With `detail`: why the task is where it is, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explain: Option<String>,
    /// With `detail` and asked for alone, of a queued task that is due: tasks of its lane, and of its fair key if it has
    /// one, that go before it, at most [`AHEAD_MAX`](crate::limits::AHEAD_MAX), which means so many and more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<u32>,
    /// With `detail`, of a task that has ended: the live task that has its unique key now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<TaskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u64>,
    /// With `detail`, of a task that waits: the first of those that have not ended, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<TaskId>,
    /// With `detail`, of a task that waits: how many there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waits_for_n: u32,
}

/// One failed or lost run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureRow {
    pub run: u32,
    /// `failed`, `timeout`, `lost` or `rejected`.
    pub cause: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    pub failed_at: i64,
    pub error: String,
}

/// CANCEL and REQUEUE: the tasks it is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tasks {
    pub tasks: Vec<TaskId>,
}

/// What CANCEL or REQUEUE did with each task, in order. On disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdicts {
    pub verdicts: Vec<Verdict>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It had not started and is cancelled.
    Cancelled,
    /// It runs; its worker was asked to stop.
    Requested,
    /// It is queued again, its attempts and losses at zero.
    Requeued,
    /// It is in the lane that was asked for.
    Moved,
    /// It is due at once.
    Due,
    /// Its row is deleted.
    Purged,
    /// It has ended, and something still needs its row.
    Needed,
    /// Its unique key is live again in this other task.
    Twin(TaskId),
    /// It is in no state for this: it had ended already; or, for REQUEUE, it is not dead or cancelled; for BULK, see
    /// [`Change`].
    Unchanged,
    NotFound,
    #[serde(other)]
    Unknown,
}

// -------------------------------------------------------------------------------------------------------------- admin

/// Change lanes, then list all. Every list may be empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lanes {
    #[serde(default)]
    pub pause: Vec<LaneName>,
    #[serde(default)]
    pub resume: Vec<LaneName>,
    /// What was set before goes back to the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reset: Vec<LaneName>,
    /// On top of what was set before, or of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<SetLane>,
}

impl Lanes {
    /// Whether it only looks.
    pub fn changes_nothing(&self) -> bool {
        self.pause.is_empty() && self.resume.is_empty() && self.reset.is_empty() && self.set.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetLane {
    pub lane: LaneName,
    pub values: LaneValues,
}

/// How much of a lane may run. What is absent is left as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneValues {
    /// Tasks that run at a time; 0 is no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Starts at once after a quiet time; 0 is as many as come in 10 ms, and at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
    /// The least part of the hand-outs, in per cent, while it has tasks; 0 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneRows {
    /// Most urgent first; lanes that only have a backlog left come last.
    pub lanes: Vec<LaneRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneRow {
    pub lane: String,
    pub paused: bool,
    /// False: taken out of the settings, its backlog is kept.
    pub configured: bool,
    /// Queued rows, those for later included; the count may lag by a moment.
    pub queued: u64,
    pub running: u64,
    /// Slots that wait for a task of this lane.
    pub ready: u64,
    /// Tasks that may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
    /// The least part of the hand-outs, in per cent, while it has tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
    /// What the share comes to: at least one of so many hand-outs in a row is of this lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_of: Option<u32>,
    /// The fields above that were set while the broker ran, not by its settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
}

impl LaneRow {
    /// A lane that is not in the settings and of which nothing waits.
    pub fn new(lane: String) -> Self {
        Self {
            lane,
            paused: false,
            configured: false,
            queued: 0,
            running: 0,
            ready: 0,
            cap: None,
            rate: None,
            rate_burst: None,
            share: None,
            one_of: None,
            set: Vec::new(),
        }
    }
}

/// Change kinds, then list them in the order of their names. Every list may be empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kinds {
    /// Hand out no task of these; what runs goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pause: Vec<Kind>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resume: Vec<Kind>,
    /// What was set before goes back to the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reset: Vec<Kind>,
    /// On top of what was set before, or of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<SetKind>,
    /// Only kinds behind this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Kind>,
}

impl Kinds {
    /// Whether it only looks.
    pub fn changes_nothing(&self) -> bool {
        self.pause.is_empty() && self.resume.is_empty() && self.reset.is_empty() && self.set.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetKind {
    pub kind: Kind,
    pub values: KindValues,
}

/// What holds for the tasks of one kind where their rows do not say, and how many of them may run. What is absent is left
/// as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindValues {
    /// Tasks that run at a time; 0 is no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Starts at once after a quiet time; 0 is as many as come in 10 ms, and at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_base_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_max_ms: Option<u64>,
    /// Its ended tasks are deleted so long after their end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_age_ms: Option<u64>,
    /// And the oldest beyond so many, counted apart from those of other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_count_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_age_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_count_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_age_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_count_max: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KindRows {
    pub kinds: Vec<KindState>,
    /// There are more; go on with this as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Kind>,
}

/// A kind that has tasks, workers or settings of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindState {
    pub kind: Kind,
    pub paused: bool,
    /// Queued rows, those for later included; the count may lag by a moment.
    pub queued: u64,
    pub running: u64,
    /// Connected worker processes that can run it.
    pub workers: u64,
    /// Tasks that may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
    pub lane: LaneName,
    pub max_attempts: u32,
    pub timeout_ms: u64,
    pub backoff_base_ms: u64,
    pub backoff_max_ms: u64,
    /// How long its ended tasks are kept, and how many, where that differs from all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_age_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_count_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_age_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_count_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_age_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_count_max: Option<u64>,
    /// The fields above that were set while the broker ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Those that the kind's section of the settings says. The others are the defaults of all kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
}

/// Change fair keys, then list those that have values or running tasks, in the order of their names. Every list may be empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FairKeys {
    /// What was set before goes back to the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reset: Vec<FairKey>,
    /// On top of what was set before, or of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<SetFairKey>,
    /// Only keys behind this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<FairKey>,
}

impl FairKeys {
    /// Whether it only looks.
    pub fn changes_nothing(&self) -> bool {
        self.reset.is_empty() && self.set.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetFairKey {
    /// `*` stands for every key, where it says nothing of its own.
    pub fair_key: FairKey,
    pub values: FairKeyValues,
}

/// How much of the tasks of one fair key may run, and what part it gets beside others. What is absent is left as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FairKeyValues {
    /// Tasks that it is given in each round of its lane, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Tasks that run at a time; 0 is no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Starts at once after a quiet time; 0 is as many as come in 10 ms, and at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FairKeyRows {
    pub fair_keys: Vec<FairKeyRow>,
    /// There are more; go on with this as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<FairKey>,
}

/// A fair key with what holds for its tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FairKeyRow {
    pub fair_key: FairKey,
    pub running: u64,
    pub weight: u32,
    /// Tasks that may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
    /// The fields above that were set of this key while the broker ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Those that the key's section of the settings says. The others are those of `*`, or the defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
}

/// List the worker processes, in the order of their sessions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ListWorkers {
    /// Only sessions behind this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<SessionName>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerRows {
    pub workers: Vec<WorkerRow>,
    /// There are more; go on with this as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<SessionName>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    pub session: SessionName,
    pub name: String,
    pub host: String,
    pub pid: u32,
    pub sdk: String,
    pub kinds: Vec<Kind>,
    pub lanes: Vec<LaneName>,
    pub slots: u32,
    /// Slots that wait for a task.
    pub ready: u32,
    pub running: Vec<TaskId>,
    /// Since its first word in this epoch.
    pub connected_ms: u64,
    /// All its connections are gone; it is lost when the grace is over.
    pub away: bool,
    /// It was told to take no more tasks and to leave.
    #[serde(default)]
    pub draining: bool,
}

/// Stop handing out and ask the workers to leave, all of them or one; `off` takes that back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// Workers hand back what they run instead of finishing it.
    #[serde(default)]
    pub release: bool,
    #[serde(default)]
    pub off: bool,
    /// Only this one: its session, the beginning of that, or its name, alone or as `name@host/pid`. The others go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
}

/// Where a drain stands, of all workers or of the one that was named; ask again until both are 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drained {
    pub draining: bool,
    pub workers: u64,
    pub running: u64,
}

/// Numbers about the whole broker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsReport {
    pub epoch: u64,
    pub version: String,
    pub uptime_ms: u64,
    pub draining: bool,
    /// Rows by state, from the store's count; it may lag by a moment.
    pub queued: u64,
    pub running: u64,
    pub dead: u64,
    pub workers: u64,
    pub ready: u64,
    /// Since start, like the next ones: new rows, by SQL, SUBMIT or spawn.
    pub submitted: u64,
    pub handed_out: u64,
    pub done: u64,
    pub failed: u64,
    pub lost: u64,
    pub released: u64,
    /// Tasks that ended so, whether they ran or not.
    pub cancelled: u64,
    pub stale: u64,
    pub bad_messages: u64,
    /// Rows that an app changed or deleted under the broker.
    pub overtaken: u64,
    pub log_lines_dropped: u64,
    pub wal_bytes: u64,
    /// Of a write-ahead log that is too long and cannot shrink: a reader holds a transaction open. 0 while all is well.
    #[serde(default)]
    pub wal_pinned_bytes: u64,
    /// Of the last 1,024 synced commits.
    pub commit_p50_us: u64,
    pub commit_p99_us: u64,
    /// Why the store refuses work, when it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_error: Option<String>,
    pub kinds: Vec<KindRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindRow {
    pub kind: String,
    pub queued: u64,
    /// Connected worker processes that can run it.
    pub workers: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    pub epoch: Epoch,
    /// The broker's version.
    pub version: String,
}

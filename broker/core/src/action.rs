//! Everything the core may ask for. Actions run in list order; an answer that promises something durable is only asked
//! for after the commit was reported.

use std::fmt;
use std::sync::Arc;

use laneway_protocol::message::{
    Answer, BulkFilter, FairKeyValues, Filter, Final, GroupRow, Held, KindValues, LaneValues, NewGroup, NewTask,
    ScheduleRows, Schedules, StatusRows, Stored, Verdict,
};
use laneway_protocol::{FairKey, Kind, LaneName, Lease, Payload, RequestId, SessionName, TaskId, TaskState};

use crate::event::{FoundTask, OpId, QueueKey, ReplyTo};
use crate::fair::FairRules;
use crate::limits::SESSION_SHOWN_CHARS;
use crate::time::UnixMillis;

#[derive(Debug)]
pub enum Action {
    /// Send this and forget the place.
    Answer {
        to: ReplyTo,
        answer: Answer,
    },
    /// A newer question of the same slot took its place: forget it without a word.
    Forget(ReplyTo),
    /// Write or look something up; the result comes back as [`Event::Committed`](crate::Event::Committed) when `id` is
    /// given.
    Store {
        id: Option<OpId>,
        op: Op,
    },
    /// Read up to `rows` rows of a queue ahead, now or when they turn up. Replaces the earlier demand for the key;
    /// 0 withdraws it. Where rows have fair keys they are read by turns, as `fair` says.
    Demand {
        key: QueueKey,
        rows: usize,
        fair: Arc<FairRules>,
    },
    /// These rows were read ahead and will not be handed out from memory any more: the store may load them again.
    Unload(Vec<TaskId>),
    /// Tell about tasks that end by another hand.
    Watch(TaskId),
    Unwatch(TaskId),
    /// Something for people to know; nothing depends on it.
    Tell(WorkerEvent),
    /// The same: these were cancelled, or asked to stop, because nobody waited for them any more. On disk.
    TellAbandoned(Vec<TaskId>),
}

/// A worker came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEvent {
    /// It said all of its HELLO; or, when it says none, its first word.
    Connected { worker: WorkerName, kinds: Vec<Kind>, lanes: Option<Vec<LaneName>> },
    /// It said BYE.
    Left { worker: WorkerName },
    /// Its connections are gone for good, and it ran so many tasks.
    Lost { worker: WorkerName, running: usize },
}

/// A worker process as people know it. All but the session is empty or 0 when it said no HELLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerName {
    pub session: SessionName,
    pub name: String,
    pub host: String,
    pub pid: u32,
}

impl WorkerName {
    /// One word for lists and logs: `name@host/pid`, or the session of a worker that did not introduce itself.
    pub fn label(&self) -> String {
        if self.name.is_empty() {
            return self.session.to_string();
        }
        let host = if self.host.is_empty() { String::new() } else { format!("@{}", self.host) };
        let pid = if self.pid == 0 { String::new() } else { format!("/{}", self.pid) };
        format!("{}{host}{pid}", self.name)
    }
}

/// For sentences: `name (host h, pid 7, session 0123abcd…)`.
impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            return write!(f, "{}", self.session);
        }
        write!(f, "{} (", self.name)?;
        if !self.host.is_empty() {
            write!(f, "host {}, ", self.host)?;
        }
        if self.pid != 0 {
            write!(f, "pid {}, ", self.pid)?;
        }
        let session = self.session.as_str();
        match session.char_indices().nth(SESSION_SHOWN_CHARS) {
            Some((end, _)) => write!(f, "session {}…)", &session[..end]),
            None => write!(f, "session {session})"),
        }
    }
}

/// One step of a task's life, or a question about it.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A hand-out. Needs no sync: lost in a power cut, it leaves its row queued and its lease worthless.
    Started(Started),
    /// The end of a run. Synced. -> [`OpResult::Ended`]
    Ended(Ended),
    /// Progress of a running task. Synced when it has a checkpoint. -> [`OpResult::Noted`]
    Noted(Noted),
    /// All or none. Synced. -> [`OpResult::Submitted`], [`OpResult::SubmittedGroup`] or [`OpResult::Refused`]
    Submit {
        request: RequestId,
        tasks: Vec<NewTask>,
        /// They become a group of their own.
        group: Option<Box<NewGroup>>,
        /// Queued tasks that nobody will start before this is applied: only these may be replaced. Each with the mark that its row
        /// gets as its lease when it is. Afterwards they are to be read ahead again.
        secured: Vec<Held>,
    },
    /// Queued ones end at once; running ones are marked. Synced. -> [`OpResult::Verdicts`]
    Cancel(Vec<TaskId>),
    /// Dead and cancelled ones become queued, attempts and losses at zero. Synced. -> [`OpResult::Verdicts`]
    Requeue(Vec<TaskId>),
    /// What people ask for tasks by id. Synced. -> [`OpResult::Verdicts`]
    Edit {
        edit: Edit,
        tasks: Vec<TaskId>,
    },
    /// A piece of what people ask for all tasks that meet a filter. Synced, but for a dry run. -> [`OpResult::Bulk`]
    Bulk(Box<BulkSlice>),
    /// -> [`OpResult::Found`]
    Find(Vec<TaskId>),
    /// The newest task with this key. -> [`OpResult::Found`] with one or none
    FindKey {
        kind: Kind,
        unique_key: String,
    },
    /// The live tasks with these keys. -> [`OpResult::Found`]
    FindTwins(Vec<(Kind, String)>),
    /// How tasks ended, for those who wait. -> [`OpResult::Endings`]
    Endings(Vec<TaskId>),
    /// -> [`OpResult::Rows`]
    List(Filter),
    /// -> [`OpResult::Rows`]
    Show {
        tasks: Vec<TaskId>,
        detail: bool,
    },
    /// -> [`OpResult::Counts`]
    Counts,
    /// Where a group stands, with up to `live` of its tasks that have not ended; with 0 nothing but where it stands. ->
    /// [`OpResult::Group`]
    Group {
        group: u64,
        live: usize,
    },
    /// Up to `rows` tasks of the group are asked to end, as an app asks. Synced. -> [`OpResult::GroupCancelled`]
    CancelGroup {
        group: u64,
        rows: usize,
    },
    /// How the tasks ended that this one depended on: those with an id above `after`, by id, at most `rows` and about
    /// `bytes` of results. -> [`OpResult::Parents`]
    Parents {
        task: TaskId,
        after: u64,
        rows: usize,
        bytes: usize,
    },
    /// Keeps who is connected, so that the next start knows whom to expect. Not synced.
    SessionUp {
        session: SessionName,
        /// As in [`WorkerName::label`].
        name: String,
        plain: bool,
    },
    SessionGone {
        session: SessionName,
    },
    /// -> [`OpResult::Paused`]. Synced.
    PauseLane {
        lane: LaneName,
        paused: bool,
    },
    /// All that is set of a kind from now on. -> [`OpResult::Set`]. Synced.
    SetKind {
        kind: Kind,
        paused: bool,
        values: KindValues,
    },
    /// All that is set of a lane from now on, but for a pause. -> [`OpResult::Set`]. Synced.
    SetLane {
        lane: LaneName,
        values: LaneValues,
    },
    /// All that is set of a fair key from now on. -> [`OpResult::Set`]. Synced.
    SetFairKey {
        fair_key: FairKey,
        values: FairKeyValues,
    },
    /// Synced when it changes anything. -> [`OpResult::Schedules`] or [`OpResult::Refused`]
    Schedules(Box<Schedules>),
}

/// What is to become of a task; a row that is in no state for it is left alone. As in
/// [`Change`](laneway_protocol::message::Change).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    Requeue,
    Cancel,
    /// As `Cancel`, for nobody waits for it any more: the row says so.
    Abandon,
    /// An ended row is deleted, unless something still needs it.
    Purge,
    /// A row that waits or is queued goes into this lane.
    Move(LaneName),
    /// A queued row that is due later is due at once.
    RunNow,
}

/// Rows in the order of their ids, behind the place where the last slice stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct BulkSlice {
    pub edit: Edit,
    pub filter: BulkFilter,
    /// Ended, or of one that has not, created, at this time at the latest.
    pub before: Option<UnixMillis>,
    pub after: Option<TaskId>,
    /// The newest row that is meant; the first slice finds it out.
    pub until: Option<TaskId>,
    /// Met at most.
    pub rows: usize,
    /// Says what it would do.
    pub dry_run: bool,
}

/// What a [`BulkSlice`] did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BulkSliced {
    /// Of the rows that met the filter.
    pub verdicts: Vec<(TaskId, Verdict)>,
    /// The last row that was looked at: the next slice goes on behind it.
    pub at: Option<TaskId>,
    pub until: Option<TaskId>,
    /// There is nothing behind it.
    pub over: bool,
}

/// A hand-out as the row shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    pub task: TaskId,
    pub lease: Lease,
    /// The row's `runs` with this hand-out; the row must have one less.
    pub run: u32,
    /// The session.
    pub worker: SessionName,
    pub at: UnixMillis,
    // The rest is for the log only.
    pub kind: Kind,
    pub lane: LaneName,
    pub attempt: u32,
    pub wait_ms: u64,
}

/// The end of one run: which state comes next, what is counted, what is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub task: TaskId,
    /// The row must be running under it, or queued one run earlier with its [`Started`] in the same batch.
    pub lease: Lease,
    pub run: u32,
    pub next: Next,
    pub count: Count,
    /// The row's `error`, and the failure's.
    pub error: Option<String>,
    /// Adds a row to `failures`.
    pub cause: Option<Cause>,
    pub spawn: Vec<NewTask>,
    pub worker: SessionName,
    pub at: UnixMillis,
    // The rest is for the log only.
    pub kind: Kind,
    pub lane: LaneName,
    pub attempt: u32,
    pub run_ms: u64,
}

/// With a cancel requested in the row, everything but `Done` becomes cancelled; the store sees to that.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    Done(Option<Payload>),
    /// Due at `run_at`; `None` keeps the row's own.
    Queued {
        run_at: Option<UnixMillis>,
    },
    Dead,
    Cancelled,
    /// The worker says that it has finished the row by SQL: nothing is written, the row is looked at.
    Already,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    Attempt,
    Loss,
    Release,
    /// The hand-out never arrived.
    Nothing,
}

/// Why a run has a row in `failures`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Failed,
    Timeout,
    Lost,
    Rejected,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Failed => "failed",
            Cause::Timeout => "timeout",
            Cause::Lost => "lost",
            Cause::Rejected => "rejected",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Noted {
    pub task: TaskId,
    pub lease: Lease,
    pub done: Option<u64>,
    pub total: Option<u64>,
    pub note: Option<String>,
    pub checkpoint: Option<Payload>,
}

/// What came of an operation.
#[derive(Debug, Clone, PartialEq)]
pub enum OpResult {
    Ended(EndedAs),
    Noted(NotedAs),
    Submitted(Vec<Stored>),
    /// The same, in the new group of this id.
    SubmittedGroup(Vec<Stored>, u64),
    /// Task number `index` of the submit makes no sense; nothing was stored.
    Refused {
        index: usize,
        field: &'static str,
        reason: String,
    },
    Verdicts(Vec<Verdict>),
    Bulk(BulkSliced),
    Found(Vec<FoundTask>),
    Endings(Vec<(TaskId, Ending)>),
    Rows(StatusRows),
    Counts(Counts),
    /// `None` when no task has the group's number and no row tells of it.
    Group(Option<FoundGroup>),
    GroupCancelled {
        more: bool,
    },
    Parents {
        endings: Vec<(TaskId, Ending)>,
        more: bool,
    },
    Paused,
    Set,
    Schedules(ScheduleRows),
}

#[derive(Debug, Clone, PartialEq)]
pub struct FoundGroup {
    pub row: GroupRow,
    /// Some of its tasks that have not ended, those that run first; all, when they are fewer than were asked for.
    pub live: Vec<TaskId>,
    /// How its last task ended, when tasks were asked for and all have ended.
    pub last: Option<Final>,
}

/// What came of a [`Noted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotedAs {
    Written,
    /// The row does not run under this lease: nothing was written.
    Overtaken,
    /// A trigger or a constraint of an app stands against it: the row is as it was.
    Refused,
}

/// What the row says after an [`Ended`].
#[derive(Debug, Clone, PartialEq)]
pub enum EndedAs {
    /// Written: the row's state now.
    Written(TaskState),
    /// The same word was on disk before.
    Recorded(TaskState),
    /// The row was changed or deleted under the broker, or belongs to another lease: nothing was written.
    Overtaken,
    /// A spawned task made no sense: the run was recorded as failed with this reason.
    SpawnRefused { state: TaskState, reason: String },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    Final(Final),
    /// Not ended.
    Live {
        done: Option<u64>,
        total: Option<u64>,
        note: Option<String>,
    },
    /// The row is gone, but its id was given out once.
    Pruned,
    NotFound,
}

/// The store's own numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// New rows since start, whoever inserted them.
    pub submitted: u64,
    /// Queued rows for each lane and kind; lanes as rows name them, NULL resolved.
    pub queued: Vec<(String, String, u64)>,
    pub dead: u64,
    pub wal_bytes: u64,
    /// Of a log that cannot begin anew although it should; 0 while all is well.
    pub wal_pinned_bytes: u64,
    pub commit_p50_us: u64,
    pub commit_p99_us: u64,
    /// Rows that an app changed or deleted under the broker, since start.
    pub overtaken: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_named_by_what_it_said_of_itself() {
        // As one word, and in a sentence with enough of its session to find it; what it did not say is left out.
        let cases = [
            ("", "alder", 47, "0123456789", "0123456789"),
            ("thumbs", "", 0, "thumbs", "thumbs (session 01234567…)"),
            ("thumbs", "alder", 0, "thumbs@alder", "thumbs (host alder, session 01234567…)"),
            ("thumbs", "", 47, "thumbs/47", "thumbs (pid 47, session 01234567…)"),
            ("thumbs", "alder", 47, "thumbs@alder/47", "thumbs (host alder, pid 47, session 01234567…)"),
        ];
        for (name, host, pid, label, sentence) in cases {
            let session = SessionName::new("0123456789").unwrap();
            let worker = WorkerName { session, name: name.into(), host: host.into(), pid };
            assert_eq!((worker.label().as_str(), worker.to_string().as_str()), (label, sentence));
        }
    }
}

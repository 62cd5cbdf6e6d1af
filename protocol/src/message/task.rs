//! Tasks as people see them: STATUS, and what is said to CANCEL and REQUEUE.

use serde::{Deserialize, Serialize};

use super::{Payload, is_zero};
use crate::ids::TaskId;

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u64>,
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
    /// As submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
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
    /// one, that are due before it, those that are kept back (paused, capped, without a worker) among them. One more than
    /// [`AHEAD_MAX`](crate::limits::AHEAD_MAX) means more than that.
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
    /// [`Change`](super::Change).
    Unchanged,
    NotFound,
    #[serde(other)]
    Unknown,
}

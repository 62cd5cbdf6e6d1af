//! `WAIT_FOR`: how tasks ended, and what is heard on the way there.

use serde::{Deserialize, Serialize};

use super::{GroupRow, Payload, TaskState, is_false};
use crate::ids::{Epoch, Kind, TaskId};

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
    /// Instead of tasks: a group, until none of its tasks is live any more and all that they said is told.
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
    /// Tasks that have ended; ask no more for these. Of a group its last task alone, when all have ended.
    #[serde(default)]
    pub finals: Vec<Final>,
    /// Still to end. Of a group some of those; ask no more when there are none.
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

//! SUBMIT: tasks to be, and what became of them.

use serde::{Deserialize, Serialize};

use super::{Final, Payload, is_false};
use crate::ids::{FairKey, Kind, LaneName, RequestId, TaskId};

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
    /// The new ones are cancelled when nobody waits for them any more, as with [`WaitFor::abandon`](super::WaitFor::abandon), or
    /// when nobody comes to wait for them. Not beside `group`.
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

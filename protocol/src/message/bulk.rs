//! BULK: changes that people make to tasks, to some by id.

use serde::{Deserialize, Serialize};

use super::Verdict;
use crate::ids::{LaneName, TaskId};

/// Change tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    pub change: Change,
    /// With [`Change::Move`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskId>,
}

/// What is done with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Queue it again when it is dead or cancelled, its attempts and losses at zero.
    Requeue,
    /// End it when it has not started; ask its worker to stop when it runs.
    Cancel,
    /// Delete it when it has ended.
    Purge,
    /// Put it into another lane when it does not run.
    Move,
    /// Let it run at once when it waits for a later time.
    RunNow,
}

impl Change {
    pub const ALL: [Change; 5] = [Change::Requeue, Change::Cancel, Change::Purge, Change::Move, Change::RunNow];
}

/// What came of a [`Bulk`]. On disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulked {
    /// One for each task that was named, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Verdict>,
}

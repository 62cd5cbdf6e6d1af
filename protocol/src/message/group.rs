//! GROUP: tasks that belong together.

use serde::{Deserialize, Serialize};

use crate::ids::TaskId;

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

//! WORKERS and DRAIN: who is there, and sending them home.

use serde::{Deserialize, Serialize};

use crate::ids::{Kind, LaneName, SessionName, TaskId};
use crate::limits::RUNNING_LISTED_MAX;

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

impl WorkerRow {
    /// Slots that run something. One with a batch runs several tasks, and of a large worker not all tasks are listed.
    pub fn busy(&self) -> u32 {
        let taken = self.slots.saturating_sub(self.ready);
        match u32::try_from(self.running.len()) {
            Ok(listed) if self.running.len() < RUNNING_LISTED_MAX => listed.min(taken),
            _ => taken,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_slots_are_neither_tasks_nor_what_is_listed() {
        // Proves a slot with a batch, a worker that was told to take nothing, and one with more tasks than are listed.
        let busy = |slots, ready, running: u64| {
            let running = (1..=running).filter_map(TaskId::new).collect();
            WorkerRow {
                session: SessionName::new("w").unwrap(),
                name: String::new(),
                host: String::new(),
                pid: 1,
                sdk: String::new(),
                kinds: Vec::new(),
                lanes: Vec::new(),
                slots,
                ready,
                running,
                connected_ms: 0,
                away: false,
                draining: false,
            }
            .busy()
        };
        assert_eq!([busy(4, 4, 0), busy(4, 3, 1), busy(4, 0, 4)], [0, 1, 4]);
        assert_eq!([busy(4, 3, 8), busy(4, 0, 0), busy(500, 100, 64)], [1, 0, 400]);
    }
}

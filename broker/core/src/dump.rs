//! What the broker knows at this moment, for a person who looks at it from outside: whether it hands out, its lanes, the longest
//! leases. The shell asks for it when a signal says so; nothing is changed, and no more is gathered than a log should hold.

use std::collections::{BTreeMap, BinaryHeap};

use laneway_protocol::{Epoch, Kind, LaneName, TaskId};

use crate::action::WorkerName;
use crate::broker::Broker;
use crate::limits::DUMP_LEASES_MAX;
use crate::task::{Running, Stop};
use crate::time::{Millis, Now};

/// Durations are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    pub epoch: Epoch,
    pub uptime_ms: u64,
    /// Why nothing is handed out; `None` when it is.
    pub held_back: Option<String>,
    pub workers: usize,
    pub ready: usize,
    pub running: usize,
    /// Operations that are on their way to the disk, and their bytes.
    pub unsettled: usize,
    pub unsettled_bytes: usize,
    /// Questions that hang on the store, and those of clients that wait for tasks.
    pub questions: usize,
    pub waiters: usize,
    /// Most urgent first.
    pub lanes: Vec<DumpedLane>,
    /// The oldest first, at most `DUMP_LEASES_MAX`.
    pub leases: Vec<DumpedLease>,
    /// Leases that are not in the list.
    pub more_leases: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedLane {
    pub lane: LaneName,
    pub paused: bool,
    /// Tasks that are read ahead.
    pub at_hand: usize,
    /// Slots that wait for a task of it.
    pub ready: usize,
    pub running: usize,
    /// Since start.
    pub handed_out: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedLease {
    pub task: TaskId,
    pub kind: Kind,
    pub lane: LaneName,
    pub run: u32,
    pub attempt: u32,
    /// The session alone for one that has not come back since the broker's start.
    pub worker: String,
    pub session: String,
    pub slot: Option<u32>,
    pub since_ms: u64,
    pub left_ms: u64,
    /// `cancel` or `timeout` when its worker was told to stop; `orphan` when that worker is not there.
    pub note: Option<&'static str>,
}

impl Broker {
    /// Looks once at each lease, and at each queue for each lane.
    pub fn dump(&self, now: Now) -> Dump {
        let mut running: BTreeMap<&LaneName, usize> = BTreeMap::new();
        let mut oldest: BinaryHeap<(Millis, TaskId)> = BinaryHeap::with_capacity(DUMP_LEASES_MAX + 1);
        for (&id, task) in &self.running {
            *running.entry(&task.lane).or_default() += 1;
            oldest.push((task.since, id));
            if oldest.len() > DUMP_LEASES_MAX {
                oldest.pop();
            }
        }
        let lanes = self.dispatch.all_lanes().into_iter().map(|rank| {
            let lane = self.dispatch.lane_name(rank).clone();
            DumpedLane {
                paused: self.dispatch.is_paused(rank),
                at_hand: self.dispatch.at_hand(rank),
                ready: self.dispatch.ready_in_lane(rank),
                running: running.get(&lane).copied().unwrap_or(0),
                handed_out: self.dispatch.handed_out(rank),
                lane,
            }
        });
        let more_leases = self.running.len() - oldest.len();
        let leases = oldest.into_sorted_vec().into_iter().map(|(_, id)| self.dumped(&self.running[&id], now));
        Dump {
            epoch: self.epoch,
            uptime_ms: now.mono.since(self.started),
            held_back: self.held_back(),
            workers: self.workers.len(),
            ready: self.dispatch.ready(),
            running: self.running.len(),
            unsettled: self.pending.len(),
            unsettled_bytes: self.pending.bytes(),
            questions: self.questions.len(),
            waiters: self.waiters.len(),
            lanes: lanes.collect(),
            leases: leases.collect(),
            more_leases,
        }
    }

    fn dumped(&self, task: &Running, now: Now) -> DumpedLease {
        let worker = task.session.map(|session| self.workers.get(session).worker());
        let note = match (task.stop, &worker) {
            (_, None) => Some("orphan"),
            (Some(Stop::Cancel), _) => Some("cancel"),
            (Some(Stop::Timeout), _) => Some("timeout"),
            (None, _) => None,
        };
        DumpedLease {
            task: task.id,
            kind: task.kind.clone(),
            lane: task.lane.clone(),
            run: task.run,
            attempt: task.attempts + 1,
            worker: worker.as_ref().map_or_else(|| task.worker.to_string(), WorkerName::label),
            session: task.worker.to_string(),
            slot: task.slot,
            since_ms: now.mono.since(task.since),
            left_ms: task.deadline.since(now.mono),
            note,
        }
    }

    /// Why nothing is handed out now, if nothing is.
    fn held_back(&self) -> Option<String> {
        if let Some(cause) = &self.store_error {
            return Some(format!("the store refuses work: {cause}"));
        }
        let why = match self {
            Self { stopping: true, .. } => "it stops",
            Self { drain: Some(_), .. } => "it drains",
            Self { quiet: true, .. } => "it is quiet (SIGTSTP)",
            Self { hold: Some(_), .. } => "it waits for the workers of its last life",
            Self { blocked: true, .. } => "too many operations wait for the disk",
            _ => return None,
        };
        Some(why.into())
    }
}

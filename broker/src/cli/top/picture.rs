//! One picture of the broker: what it said in one look. Nothing in it changes afterwards.

use clap::ValueEnum;
use laneway_protocol::message::{KindState, LaneRow, StatsReport, TaskRow, WorkerRow};
use laneway_web::Oldest;

/// What stands below the lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Pane {
    /// Running tasks, the longest first
    Running,
    /// Connected workers
    Workers,
    /// Kinds of tasks
    Kinds,
    /// Dead tasks, the newest first
    Dead,
}

impl Pane {
    /// In the order of their keys, 1 to 4.
    pub(super) const ALL: [Pane; 4] = [Pane::Running, Pane::Workers, Pane::Kinds, Pane::Dead];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Workers => "Workers",
            Self::Kinds => "Kinds",
            Self::Dead => "Dead",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Picture {
    /// Of this machine's clock, Unix milliseconds.
    pub(super) at: i64,
    pub(super) stats: StatsReport,
    pub(super) lanes: Vec<LaneRow>,
    pub(super) kinds: Vec<KindState>,
    pub(super) workers: Vec<WorkerRow>,
    /// Which pane the tasks are of; those of the others were not asked for.
    pub(super) pane: Pane,
    pub(super) tasks: Vec<TaskRow>,
    /// Empty where the database is not at hand.
    pub(super) oldest: Oldest,
}

impl Picture {
    pub(super) fn slots(&self) -> u64 {
        self.workers.iter().map(|worker| u64::from(worker.slots)).sum()
    }

    pub(super) fn busy(&self) -> u64 {
        self.workers.iter().map(|worker| u64::from(worker.busy())).sum()
    }

    /// How many rows a pane has in the broker, of which the picture may hold some.
    pub(super) fn count(&self, pane: Pane) -> u64 {
        match pane {
            Pane::Running => self.stats.running,
            Pane::Workers => self.workers.len() as u64,
            Pane::Kinds => self.kinds.len() as u64,
            Pane::Dead => self.stats.dead,
        }
    }

    /// The tasks of this pane, once they have been asked for.
    pub(super) fn tasks(&self, pane: Pane) -> &[TaskRow] {
        if self.pane == pane { &self.tasks } else { &[] }
    }

    /// A worker as people know it, by what a task's row has of it.
    pub(super) fn worker_name(&self, session: &str) -> String {
        let known = self.workers.iter().find(|worker| worker.session.as_str() == session);
        known.map_or_else(|| session.chars().take(8).collect(), worker_name)
    }
}

/// Its name, or as much of its session as the errors of tasks quote.
pub(super) fn worker_name(worker: &WorkerRow) -> String {
    if worker.name.is_empty() { worker.session.as_str().chars().take(8).collect() } else { worker.name.clone() }
}

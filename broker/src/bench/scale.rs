//! How much of everything is measured: once for figures, once to see that it works.

use std::time::Duration;

pub(super) struct Scale {
    /// Tasks that are handed out one at a time, which takes longer, and those in batches.
    pub(super) drain_tasks_alone: u32,
    pub(super) drain_tasks: u32,
    pub(super) drain_slots: &'static [u32],
    pub(super) drain_maxes: &'static [u32],
    /// Peers of the raw socket limits; what stands in `drain_slots` finds its yardstick here.
    pub(super) raw_peers: &'static [u32],
    /// How long each limit that is a rate over time is measured.
    pub(super) limit_time: Duration,
    /// Rows of the SQLite limits, single commits and syncs.
    pub(super) limit_rows: u32,
    pub(super) limit_commits: u32,
    pub(super) submits_single: u32,
    pub(super) submits_bulk: u32,
    /// Of each of several clients at the same time.
    pub(super) submits_each: u32,
    /// Tasks that are queued before apps and workers begin.
    pub(super) beside_tasks: u32,
    pub(super) large_tasks: u32,
    /// Workers that connect at once.
    pub(super) crowd: u32,
    pub(super) latency_samples: u32,
    pub(super) makespan_tasks: u32,
    /// Bulk tasks that keep the workers busy while urgent ones come: of 1 ms, and without anything to do.
    pub(super) urgent_bulk: u32,
    pub(super) urgent_noops: u32,
    pub(super) queued_rows: u32,
    pub(super) idle_time: Duration,
    /// Tasks that are drained beside open dashboards, of `queued_rows`: one at a time, and in batches.
    pub(super) watched_tasks_alone: u32,
    pub(super) watched_tasks: u32,
    /// Dead rows beside them: more than the page groups.
    pub(super) watched_dead: u32,
}

impl Scale {
    pub(super) const FULL: Self = Self {
        drain_tasks_alone: 25_000,
        drain_tasks: 100_000,
        drain_slots: &[1, 4, 16, 64],
        drain_maxes: &[1, 16, 64],
        raw_peers: &[1, 4, 16, 64],
        limit_time: Duration::from_secs(1),
        limit_rows: 200_000,
        limit_commits: 2_000,
        submits_single: 3_000,
        submits_bulk: 100_000,
        submits_each: 1_000,
        beside_tasks: 50_000,
        large_tasks: 400,
        crowd: 5_000,
        latency_samples: 1_000,
        makespan_tasks: 2_000,
        urgent_bulk: 20_000,
        urgent_noops: 30_000,
        queued_rows: 1_000_000,
        idle_time: Duration::from_secs(5),
        watched_tasks_alone: 150_000,
        watched_tasks: 950_000,
        watched_dead: 20_000,
    };

    pub(super) const QUICK: Self = Self {
        drain_tasks_alone: 3_000,
        drain_tasks: 3_000,
        drain_slots: &[1, 4],
        drain_maxes: &[1, 16],
        raw_peers: &[1, 4],
        limit_time: Duration::from_millis(200),
        limit_rows: 10_000,
        limit_commits: 200,
        submits_single: 200,
        submits_bulk: 5_000,
        submits_each: 50,
        beside_tasks: 2_000,
        large_tasks: 20,
        crowd: 200,
        latency_samples: 100,
        makespan_tasks: 200,
        urgent_bulk: 2_000,
        urgent_noops: 3_000,
        queued_rows: 50_000,
        idle_time: Duration::from_secs(1),
        watched_tasks_alone: 5_000,
        watched_tasks: 40_000,
        watched_dead: 1_000,
    };
}

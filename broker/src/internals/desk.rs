//! The scheduler's desk: orders in, reports out, one turn a call. What the router's thread and the scheduler's would do
//! over their channels.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use laneway_core::{Event, FairRules, Now, Op, OpId, QueueKey, Start};
use laneway_protocol::{Kind, LaneName, TaskId};

use super::faulty::{Faults, Faulty};
use super::table::Table;
use crate::clock::Clock;
use crate::doorbell::{DoorbellWait, doorbell};
use crate::scheduler::{self, Pace, Scheduler};
use crate::store::{Keeping, KnownKind, Limit, Limits, Rules, Store};
use crate::telemetry::no_task_log;

/// A scheduler on a table, without its thread.
pub struct Desk {
    scheduler: Scheduler<Faulty>,
    reports: Receiver<Vec<Event>>,
    bell: DoorbellWait,
}

/// See the settings of the same names.
#[derive(Debug, Clone)]
pub struct DeskSettings {
    /// Most urgent first.
    pub lanes: Vec<LaneName>,
    pub default_lane: LaneName,
    pub kind_lanes: HashMap<Kind, LaneName>,
    pub payload_bytes_max: usize,
    pub turn_rows: usize,
    pub window_bytes: usize,
    pub full_durability: bool,
    /// How long done and cancelled rows are kept, and dead ones; `None`: for ever.
    pub done_age_ms: Option<u64>,
    pub dead_age_ms: Option<u64>,
    pub prune_interval_ms: u64,
    pub prune_rows: usize,
}

/// What the core has asked for in one turn of the router.
#[derive(Debug, Default)]
pub struct Orders {
    pub ops: Vec<(Option<OpId>, Op)>,
    pub demands: Vec<(QueueKey, usize, Arc<FairRules>)>,
    pub unload: Vec<TaskId>,
    pub watch: Vec<(TaskId, bool)>,
}

/// What a step came to.
#[derive(Debug)]
pub enum Report {
    /// For the core, in order.
    Events(Vec<Event>),
    /// The scheduler's thread would have ended, and with it the broker.
    Ended(String),
}

impl Desk {
    /// Opens the table and begins an epoch. Gives also what the core starts from. Fails as the broker's start would.
    ///
    /// # Panics
    /// When the system has no more descriptors.
    pub fn open(
        table: &Table,
        faults: Faults,
        settings: DeskSettings,
        secret: [u8; 16],
        seed: u64,
        now: Now,
    ) -> Result<(Self, Start), String> {
        Clock::pretend(now);
        let rules = Rules {
            lanes: settings.lanes.clone(),
            default_lane: settings.default_lane,
            kind_lanes: settings.kind_lanes,
            payload_bytes_max: settings.payload_bytes_max,
            full_durability: settings.full_durability,
        };
        let inner = table.open(rules).map_err(|error| error.to_string())?;
        let mut store = Faulty::new(inner, faults, table.same_memory());
        let opened = store.open_epoch(secret, now).map_err(|error| error.to_string())?;
        let pace = Pace {
            poll: Duration::ZERO,
            lanes: settings.lanes,
            turn_rows: settings.turn_rows,
            window_bytes: settings.window_bytes,
            full_durability: settings.full_durability,
            keeping: keeping(settings.done_age_ms, settings.dead_age_ms, &opened.kinds),
            prune_interval_ms: settings.prune_interval_ms,
            prune_rows: settings.prune_rows,
            retention_news: crossbeam_channel::never(),
        };
        let (_, orders) = unbounded();
        let (to_router, reports) = unbounded();
        let (bell, bell_wait) = doorbell().expect("a socket pair can be made");
        let channels = (orders, to_router, bell);
        let scheduler = Scheduler::new(store, channels, Clock::start(), pace, None, no_task_log());
        let start = crate::run::start(opened, secret, seed);
        Ok((Self { scheduler, reports, bell: bell_wait }, start))
    }

    /// Takes orders in and does a turn if there is something to do.
    pub fn step(&mut self, orders: Vec<Orders>, now: Now) -> Report {
        Clock::pretend(now);
        let orders = orders.into_iter();
        let orders =
            orders.map(|Orders { ops, demands, unload, watch }| scheduler::Orders { ops, demands, unload, watch });
        if let Err(error) = self.scheduler.step(orders.collect()) {
            return Report::Ended(error.to_string());
        }
        self.bell.clear(true);
        Report::Events(self.reports.try_iter().flatten().collect())
    }

    /// How long until the next step, when no orders come and no app commits.
    pub fn wait_ms(&self) -> u64 {
        u64::try_from(self.scheduler.wait().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether there is something that the scheduler knows of and has not done.
    pub fn is_behind(&self) -> bool {
        self.scheduler.is_behind()
    }

    /// Whether rows or open dependencies are still being looked over, a step every 100 ms.
    pub fn is_counting(&self) -> bool {
        self.scheduler.is_counting()
    }

    /// Operations that are not on disk.
    pub fn n_waiting(&self) -> usize {
        self.scheduler.n_waiting()
    }

    /// The end of a broker that was told to stop, once nothing waits.
    pub fn close(mut self, now: Now) -> Result<(), String> {
        Clock::pretend(now);
        self.scheduler.store().close_epoch(now).map_err(|error| error.to_string())
    }
}

/// By age alone; `None` keeps rows, for whoever looks at them afterwards.
fn keeping(done_age_ms: Option<u64>, dead_age_ms: Option<u64>, known: &[KnownKind]) -> Keeping {
    let limit = |age_ms| Limit { age_ms, count_max: None };
    let (done, dead) = (limit(done_age_ms), limit(dead_age_ms));
    Keeping::new(Limits { done, cancelled: done, dead }, BTreeMap::new(), known)
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("waiting", &self.n_waiting()).finish_non_exhaustive()
    }
}

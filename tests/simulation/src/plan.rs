//! What a run is made of: drawn from the seed, and cut down by the shrinker.

use std::collections::{BTreeMap, HashMap};

use laneway_broker::internals::DeskSettings;
use laneway_core::{KindSettings, Settings};
use laneway_protocol::message::{FairKeyValues, KindValues, LaneValues};
use laneway_protocol::{FairKey, Kind, LaneName, Rate};

use crate::random::Random;

/// Most urgent first.
pub(crate) const LANES: [&str; 3] = ["high", "normal", "low"];
/// Fair keys of tasks, in runs that have any.
pub(crate) const FAIR_KEYS: [&str; 3] = ["x", "y", "z"];
pub(crate) const KINDS: [&str; 4] = ["alarm", "mail", "thumb", "report"];
/// Tasks of this kind go here when their row names no lane.
pub(crate) const OWN_LANE: (&str, &str) = ("alarm", "high");
pub(crate) const DEFAULT_LANE: &str = "normal";

/// A class of faults; each can be left out of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A connection breaks, with or without what is on its way.
    Cut,
    /// A process cannot be reached for a while and does not know it.
    Silence,
    WorkerCrash,
    BrokerCrash,
    /// The broker stands still for a while.
    Freeze,
    PowerCut,
    Locked,
    Full,
    FailedSync,
    WallClock,
    /// Handlers that fail, hang, are slow, kill their process.
    Handlers,
    /// Apps that change, finish and delete rows.
    RoughApps,
}

impl Fault {
    pub const ALL: [Self; 12] = [
        Self::Cut,
        Self::Silence,
        Self::WorkerCrash,
        Self::BrokerCrash,
        Self::Freeze,
        Self::PowerCut,
        Self::Locked,
        Self::Full,
        Self::FailedSync,
        Self::WallClock,
        Self::Handlers,
        Self::RoughApps,
    ];
}

/// One run, but for its seed's draws on the way.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing of its own that a run has or has not")]
pub struct Plan {
    pub seed: u64,
    /// On a real SQLite file instead of the model.
    pub sqlite: bool,
    /// The classes that happen.
    pub faults: Vec<Fault>,
    pub workers: usize,
    pub clients: usize,
    /// Tasks made by apps and clients together.
    pub tasks: u64,
    /// How long things go wrong, in virtual milliseconds; then the world heals and must come to rest.
    pub chaos_ms: u64,
    pub turn_rows: usize,
    pub window_rows_min: usize,
    pub window_rows_max: usize,
    pub backlog_bytes_max: usize,
    /// Schedules that apps keep.
    pub schedules: usize,
    /// Caps, rates and pauses, in the settings and set meanwhile.
    pub limits: bool,
    /// Tasks have fair keys; with `limits` these have caps and rates as well.
    pub fair: bool,
    pub bulk_rows: usize,
    /// Somebody tells the broker to be quiet for a while, now and then.
    pub quiet: bool,
    /// How long done and cancelled rows are kept, and whether dead ones go like them; `None`: for ever.
    pub kept_ms: Option<u64>,
    pub kept_dead: bool,
    /// Handlers say more than how far they are.
    pub words: bool,
    /// Clients wait for groups, and longer than a word may take.
    pub groups: bool,
    /// Clients ask for the same again and again, by keys.
    pub callers: bool,
    /// Somebody looks after the whole table, beside the clients.
    pub operator: bool,
    /// Tasks of one kind, lane and moment, of several fair keys.
    pub crowd: u64,
    /// Every line of the trace is printed as it comes.
    pub aloud: bool,
}

impl Plan {
    /// A tenth of the seeds run on SQLite.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        // Most runs leave some classes out: what hides behind a crash shows without it.
        let share = *random.pick(&[30, 60, 100]);
        let window_rows_max = *random.pick(&[1, 2, 4, 8, 64]);
        Self {
            seed,
            sqlite: seed.is_multiple_of(10),
            faults: Fault::ALL.into_iter().filter(|_| random.chance(share)).collect(),
            workers: random.index(3) + 1,
            clients: random.index(2) + 1,
            tasks: random.between(5, 60),
            chaos_ms: random.between(1_500, 8_000),
            turn_rows: *random.pick(&[4, 16, 256]),
            window_rows_min: *random.pick(&[1, 2, 8]),
            window_rows_max,
            backlog_bytes_max: *random.pick(&[1_000, 4_000, 1_000_000]),
            schedules: Random::new(seed, 5).index(4),
            limits: Random::new(seed, 8).chance(40),
            fair: Random::new(seed, 11).chance(50),
            // At most as many as a slice changes before it looks at the clock of the machine.
            bulk_rows: *random.pick(&[1, 3, 16]),
            quiet: Random::new(seed, 14).chance(40),
            kept_ms: *Random::new(seed, 9).pick(&[None, None, Some(0), Some(300), Some(2_000)]),
            kept_dead: Random::new(seed, 10).chance(60),
            words: Random::new(seed, 40).chance(60),
            groups: Random::new(seed, 60).chance(50),
            callers: Random::new(seed, 42).chance(50),
            operator: Random::new(seed, 50).chance(60),
            crowd: *Random::new(seed, 52).pick(&[0, 20, 40]),
            aloud: false,
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// The broker's settings, with times short enough that a run sees the end of each.
    pub(crate) fn settings(&self) -> Settings {
        let defaults = KindSettings {
            lane: lane(DEFAULT_LANE),
            max_attempts: 3,
            timeout_ms: 1_200,
            backoff_base_ms: 40,
            backoff_max_ms: 500,
        };
        Settings {
            lanes: LANES.map(lane).into(),
            kinds: HashMap::new(),
            kind_values: self.kind_values(),
            lane_values: self.lane_values(),
            fair_key_values: self.fair_key_values(),
            defaults,
            losses_max: 3,
            resume_grace_ms: RESUME_GRACE_MS,
            restart_hold_ms: 400,
            disconnect_grace_ms: DISCONNECT_GRACE_MS,
            cancel_grace_ms: CANCEL_GRACE_MS,
            abandon_grace_ms: ABANDON_GRACE_MS,
            beat_ms: 400,
            payload_bytes_max: 10_000,
            result_bytes_max: 10_000,
            window_rows_min: self.window_rows_min.min(self.window_rows_max),
            window_rows_max: self.window_rows_max,
            window_bytes_max: 100_000,
            backlog_bytes_max: self.backlog_bytes_max,
            sessions_max: 64,
            kinds_max: 16,
            waiters_max: 100,
            bulk_rows: self.bulk_rows,
        }
    }

    pub(crate) fn kind_values(&self) -> BTreeMap<Kind, KindValues> {
        let own = KindValues { lane: Some(lane(OWN_LANE.1)), ..KindValues::default() };
        let mut values: BTreeMap<Kind, KindValues> = std::iter::once((kind(OWN_LANE.0), own)).collect();
        let mut random = Random::new(self.seed, 6);
        for name in KINDS.iter().filter(|_| self.limits) {
            let values = values.entry(kind(name)).or_default();
            values.cap = random.chance(40).then(|| u32::try_from(random.between(1, 3)).expect("a small number"));
            if random.chance(30) {
                (values.rate, values.rate_burst) = (Some(rate(random.pick::<&str>(&["20/s", "50/s"]))), Some(2));
            }
        }
        values
    }

    pub(crate) fn lane_values(&self) -> BTreeMap<LaneName, LaneValues> {
        let mut random = Random::new(self.seed, 7);
        let mut values = BTreeMap::new();
        for name in LANES.iter().filter(|_| self.limits) {
            let cap = random.chance(30).then(|| u32::try_from(random.between(1, 4)).expect("a small number"));
            let rate = random.chance(20).then(|| rate("30/s"));
            let share = random.chance(30).then(|| *random.pick(&[5, 20, 33]));
            values.insert(lane(name), LaneValues { cap, rate, rate_burst: Some(3), share });
        }
        values
    }

    pub(crate) fn fair_key_values(&self) -> BTreeMap<FairKey, FairKeyValues> {
        let mut random = Random::new(self.seed, 12);
        let mut values = BTreeMap::new();
        for name in FAIR_KEYS.iter().chain(&["*"]).filter(|_| self.fair) {
            let weight = random.chance(50).then(|| u32::try_from(random.between(1, 5)).expect("a small number"));
            let cap = (self.limits && random.chance(30)).then(|| u32::try_from(random.between(1, 3)).expect("small"));
            let rate = (self.limits && random.chance(20)).then(|| rate("30/s"));
            values.insert(fair_key(name), FairKeyValues { weight, cap, rate, rate_burst: Some(2) });
        }
        values
    }

    pub(crate) fn desk(&self) -> DeskSettings {
        DeskSettings {
            lanes: LANES.map(lane).into(),
            default_lane: lane(DEFAULT_LANE),
            kind_lanes: HashMap::from([(kind(OWN_LANE.0), lane(OWN_LANE.1))]),
            payload_bytes_max: 10_000,
            turn_rows: self.turn_rows,
            window_bytes: 100_000,
            full_durability: true,
            done_age_ms: self.kept_ms,
            dead_age_ms: self.kept_ms.filter(|_| !self.kept_dead),
            prune_interval_ms: 150,
            // At most as many as a piece deletes before it looks at the clock of the machine.
            prune_rows: 16,
        }
    }
}

pub(crate) const RESUME_GRACE_MS: u64 = 1_500;
pub(crate) const CANCEL_GRACE_MS: u64 = 200;
pub(crate) const ABANDON_GRACE_MS: u64 = 600;
pub(crate) const DISCONNECT_GRACE_MS: u64 = 150;
/// A gap in the router's loop over this is a stall.
pub(crate) const STALL_MS: u64 = 300;
/// Silence that breaks a connection.
pub(crate) const HEARTBEAT_MS: u64 = 700;

pub(crate) fn lane(name: &str) -> LaneName {
    LaneName::new(name).expect("the names here are valid")
}

pub(crate) fn kind(name: &str) -> Kind {
    Kind::new(name).expect("the names here are valid")
}

pub(crate) fn fair_key(name: &str) -> FairKey {
    FairKey::new(name).expect("the names here are valid")
}

pub(crate) fn rate(text: &str) -> Rate {
    text.parse().expect("the rates here are valid")
}

/// The rank of the lane that a row belongs to; `None` when no lane has that name.
pub(crate) fn rank(own: Option<&str>, kind: &str) -> Option<usize> {
    let name = own.unwrap_or(if kind == OWN_LANE.0 { OWN_LANE.1 } else { DEFAULT_LANE });
    LANES.iter().position(|lane| *lane == name)
}

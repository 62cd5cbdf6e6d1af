//! What the core needs of the broker's settings, resolved and validated before it starts.

use std::collections::{BTreeMap, HashMap};

use laneway_protocol::message::{FairKeyValues, KindValues, LaneValues};
use laneway_protocol::{FairKey, Kind, LaneName};

/// How tasks of one kind are treated where their row does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindSettings {
    pub lane: LaneName,
    /// At least 1.
    pub max_attempts: u32,
    /// The lease of a run ends this long after its hand-out.
    pub timeout_ms: u64,
    /// Delay before the second attempt; doubles with each further one.
    pub backoff_base_ms: u64,
    pub backoff_max_ms: u64,
}

/// Durations are milliseconds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most urgent first; at least one.
    pub lanes: Vec<LaneName>,
    pub defaults: KindSettings,
    /// What kinds differ in, worked out by the core from `kind_values` and from what is set while the broker runs.
    pub kinds: HashMap<Kind, KindSettings>,
    /// What the settings say of single kinds and lanes.
    pub kind_values: BTreeMap<Kind, KindValues>,
    pub lane_values: BTreeMap<LaneName, LaneValues>,
    /// The same of fair keys; `*` is every key.
    pub fair_key_values: BTreeMap<FairKey, FairKeyValues>,
    /// Losses that end a task as dead.
    pub losses_max: u32,
    /// After a start or a stall nobody is declared dead for this long.
    pub resume_grace_ms: u64,
    /// After an unclean stop, hand-outs wait at most this long for the known workers to resume.
    pub restart_hold_ms: u64,
    /// A session is lost when all its connections are gone for this long.
    pub disconnect_grace_ms: u64,
    /// Between a cancel or a timeout and the end of the lease.
    pub cancel_grace_ms: u64,
    /// A task that is to be cancelled when nobody waits for it any more is, when nobody has for this long.
    pub abandon_grace_ms: u64,
    pub beat_ms: u64,
    /// The largest payload, checkpoint or piece of partial data.
    pub payload_bytes_max: usize,
    pub result_bytes_max: usize,
    /// Rows read ahead for one lane and kind that even one slot serves, and at most.
    pub window_rows_min: usize,
    pub window_rows_max: usize,
    /// Bytes of payload read ahead for one lane and kind.
    pub window_bytes_max: usize,
    /// Memory of operations that wait for the disk; submits are refused above it, outcomes above twice as much.
    pub backlog_bytes_max: usize,
    pub sessions_max: usize,
    pub kinds_max: usize,
    pub waiters_max: usize,
    /// Tasks that one slice of a batch changes at most.
    pub bulk_rows: usize,
}

impl Settings {
    pub fn kind(&self, kind: &Kind) -> &KindSettings {
        self.kinds.get(kind).unwrap_or(&self.defaults)
    }
}

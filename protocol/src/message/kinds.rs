//! KINDS: what holds for the tasks of one kind.

use serde::{Deserialize, Serialize};

use crate::ids::{Kind, LaneName};
use crate::rate::Rate;

/// Change kinds, then list them in the order of their names. Every list may be empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Kinds {
    /// Hand out no task of these; what runs goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pause: Vec<Kind>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resume: Vec<Kind>,
    /// What was set before goes back to the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reset: Vec<Kind>,
    /// On top of what was set before, or of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<SetKind>,
    /// Only kinds behind this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Kind>,
}

impl Kinds {
    /// Whether it only looks.
    pub fn changes_nothing(&self) -> bool {
        self.pause.is_empty() && self.resume.is_empty() && self.reset.is_empty() && self.set.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetKind {
    pub kind: Kind,
    pub values: KindValues,
}

/// What holds for the tasks of one kind where their rows do not say, and how many of them may run. What is absent is left
/// as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindValues {
    /// Tasks that run at a time; 0 is no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Starts at once after a quiet time; 0 is as many as come in 10 ms, and at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_base_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_max_ms: Option<u64>,
    /// Its ended tasks are deleted so long after their end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_age_ms: Option<u64>,
    /// And the oldest beyond so many, counted apart from those of other kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_count_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_age_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_count_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_age_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_count_max: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KindRows {
    pub kinds: Vec<KindState>,
    /// There are more; go on with this as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Kind>,
}

/// A kind that has tasks, workers or settings of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KindState {
    pub kind: Kind,
    pub paused: bool,
    /// Queued rows, those for later included; the count may lag by a moment.
    pub queued: u64,
    pub running: u64,
    /// Connected worker processes that can run it.
    pub workers: u64,
    /// Tasks that may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
    pub lane: LaneName,
    pub max_attempts: u32,
    pub timeout_ms: u64,
    pub backoff_base_ms: u64,
    pub backoff_max_ms: u64,
    /// How long its ended tasks are kept, and how many, where that differs from all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_age_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_count_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_age_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled_count_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_age_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_count_max: Option<u64>,
    /// The fields above that were set while the broker ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Those that the kind's section of the settings says. The others are the defaults of all kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
}

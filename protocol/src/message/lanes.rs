//! LANES: what waits in each, and how much of it may run.

use serde::{Deserialize, Serialize};

use crate::ids::LaneName;
use crate::rate::Rate;

/// Change lanes, then list all. Every list may be empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lanes {
    #[serde(default)]
    pub pause: Vec<LaneName>,
    #[serde(default)]
    pub resume: Vec<LaneName>,
    /// What was set before goes back to the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reset: Vec<LaneName>,
    /// On top of what was set before, or of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<SetLane>,
}

impl Lanes {
    /// Whether it only looks.
    pub fn changes_nothing(&self) -> bool {
        self.pause.is_empty() && self.resume.is_empty() && self.reset.is_empty() && self.set.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetLane {
    pub lane: LaneName,
    pub values: LaneValues,
}

/// How much of a lane may run. What is absent is left as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneValues {
    /// Tasks that run at a time; 0 is no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Starts at once after a quiet time; 0 is as many as come in 10 ms, and at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
    /// The least part of the hand-outs, in per cent, while it has tasks; 0 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneRows {
    /// Most urgent first; lanes that only have a backlog left come last.
    pub lanes: Vec<LaneRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneRow {
    pub lane: String,
    pub paused: bool,
    /// False: taken out of the settings, its backlog is kept.
    pub configured: bool,
    /// Queued rows, those for later included; the count may lag by a moment.
    pub queued: u64,
    pub running: u64,
    /// Slots that wait for a task of this lane.
    pub ready: u64,
    /// Since the broker's start.
    #[serde(default)]
    pub handed_out: u64,
    /// Tasks that may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
    /// The least part of the hand-outs, in per cent, while it has tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
    /// What the share comes to: at least one of so many hand-outs in a row, to slots that could take one of its tasks, is of
    /// this lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_of: Option<u32>,
    /// The fields above that were set while the broker ran, not by its settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
}

impl LaneRow {
    /// A lane that is not in the settings and of which nothing waits.
    pub fn new(lane: String) -> Self {
        Self {
            lane,
            paused: false,
            configured: false,
            queued: 0,
            running: 0,
            ready: 0,
            handed_out: 0,
            cap: None,
            rate: None,
            rate_burst: None,
            share: None,
            one_of: None,
            set: Vec::new(),
        }
    }
}

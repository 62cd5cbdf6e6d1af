//! `FAIR_KEYS`: how much of the tasks of one key may run, and what part it gets.

use serde::{Deserialize, Serialize};

use crate::ids::FairKey;
use crate::rate::Rate;

/// Change fair keys, then list those that have values or running tasks, in the order of their names. Every list may be empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FairKeys {
    /// What was set before goes back to the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reset: Vec<FairKey>,
    /// On top of what was set before, or of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<SetFairKey>,
    /// Only keys behind this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<FairKey>,
}

impl FairKeys {
    /// Whether it only looks.
    pub fn changes_nothing(&self) -> bool {
        self.reset.is_empty() && self.set.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetFairKey {
    /// `*` stands for every key, where it says nothing of its own.
    pub fair_key: FairKey,
    pub values: FairKeyValues,
}

/// How much of the tasks of one fair key may run, and what part it gets beside others. What is absent is left as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FairKeyValues {
    /// Tasks that it is given in each round of its lane, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Tasks that run at a time; 0 is no cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Starts at once after a quiet time; 0 is as many as come in 10 ms, and at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FairKeyRows {
    pub fair_keys: Vec<FairKeyRow>,
    /// There are more; go on with this as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<FairKey>,
}

/// A fair key with what holds for its tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FairKeyRow {
    pub fair_key: FairKey,
    pub running: u64,
    pub weight: u32,
    /// Tasks that may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_burst: Option<u32>,
    /// The fields above that were set of this key while the broker ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Those that the key's section of the settings says. The others are those of `*`, or the defaults.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
}

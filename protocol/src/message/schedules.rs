//! SCHEDULES: tasks that come again and again.

use serde::{Deserialize, Serialize};

use super::Payload;
use crate::ids::{Kind, LaneName, TaskId};

/// Change schedules, or look at them. One of the first four at most; without any, those behind `after` are listed by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Schedules {
    /// Add this one, or change the one that has its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put: Option<Box<NewSchedule>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pause: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resume: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Only this one, with its payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only names behind this one: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl Schedules {
    /// Whether it changes anything.
    pub fn is_change(&self) -> bool {
        self.put.is_some() || !(self.pause.is_empty() && self.resume.is_empty() && self.remove.is_empty())
    }
}

/// A schedule to be. What is absent has the broker's default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewSchedule {
    /// 1 to [`SCHEDULE_NAME_CHARS_MAX`](crate::limits::SCHEDULE_NAME_CHARS_MAX) characters.
    pub name: String,
    /// Minute, hour, day of the month, month, day of the week; the second may stand before them.
    pub cron: String,
    /// A name of the IANA database; absent is UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
    /// A slot makes no task while one of the kind with this key is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Absent is `one`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,
    /// With `all`: at most so many; absent is 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up_max: Option<u32>,
}

impl NewSchedule {
    /// In UTC, with every setting at the broker's default.
    pub fn new(name: impl Into<String>, cron: impl Into<String>, kind: Kind, payload: Option<Payload>) -> Self {
        Self {
            name: name.into(),
            cron: cron.into(),
            time_zone: None,
            kind,
            lane: None,
            payload,
            unique_key: None,
            max_attempts: None,
            timeout_ms: None,
            catch_up: None,
            catch_up_max: None,
        }
    }
}

/// What becomes of slots that passed while no broker ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// Nothing, but for one of the last minute.
    Skip,
    /// However many there were, the newest alone.
    One,
    /// The newest `catch_up_max` of them.
    All,
}

impl CatchUp {
    /// As it stands in the table and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            CatchUp::Skip => "skip",
            CatchUp::One => "one",
            CatchUp::All => "all",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScheduleRows {
    /// Those that were asked for or changed, by name; on disk.
    pub schedules: Vec<ScheduleRow>,
    /// There are more; go on with this as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Names that no schedule has, or had when it was to be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_found: Vec<String>,
}

/// A schedule as people see it. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleRow {
    pub name: String,
    pub cron: String,
    pub time_zone: String,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// `skip`, `one` or `all`.
    pub catch_up: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up_max: Option<u32>,
    pub paused: bool,
    pub created_at: i64,
    /// The next slot; absent when there is none, or it is not worked out yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<i64>,
    /// The last slot that was fired, and the task that it made or met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_task: Option<TaskId>,
    /// Why it does not fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where it was asked for by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
}

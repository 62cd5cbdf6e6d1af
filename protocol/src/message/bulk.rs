//! BULK: changes that people make to tasks, to some by id or to all that a filter meets, as a batch in the broker.

use serde::{Deserialize, Serialize};

use super::{TaskState, Verdict, is_false};
use crate::ids::{LaneName, TaskId};
use crate::limits::ERROR_LINE_CHARS_MAX;

/// Change tasks by id; or start a batch that changes all that a filter meets; or, without `change`, look at a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulk {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// With [`Change::Move`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskId>,
    /// Instead of tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Box<BulkFilter>>,
    /// With a filter: count what would be done, and change nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Instead of a change: the batch to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u64>,
    /// With `batch`: end it where it stands.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stop: bool,
}

/// What is done with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Queue it again when it is dead or cancelled, its attempts and losses at zero.
    Requeue,
    /// End it when it has not started; ask its worker to stop when it runs.
    Cancel,
    /// Delete it when it has ended.
    Purge,
    /// Put it into another lane when it does not run.
    Move,
    /// Let it run at once when it waits for a later time.
    RunNow,
}

impl Change {
    pub const ALL: [Change; 5] = [Change::Requeue, Change::Cancel, Change::Purge, Change::Move, Change::RunNow];
}

/// Which tasks a batch is about: those that meet every condition that is given. One must be, or `all`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkFilter {
    /// Meant to have no condition.
    #[serde(default, skip_serializing_if = "is_false")]
    pub all: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TaskState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The row's own, or the default for its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// Ended at least this long before the batch began; of one that has not ended, created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_ms: Option<u64>,
    /// Its error has this text in it, letter for letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its [`error_line`] is that of this text; empty: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_line: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fair_key: Option<String>,
    /// By its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u64>,
    /// The session that runs it, or ran it last, begins with one of these, at most 64; none: whoever ran it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<String>,
    /// Its count of attempts is in this range, the bounds included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_min: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
}

impl BulkFilter {
    /// Whether it meets every task.
    pub fn is_open(&self) -> bool {
        *self == Self { all: self.all, ..Self::default() }
    }
}

/// By what errors are told apart: the first line, of at most [`ERROR_LINE_CHARS_MAX`] characters, without the white space around
/// it. It hangs on no more than so many characters, so that of a long error no more needs to be read.
pub fn error_line(error: &str) -> &str {
    let end = error.char_indices().nth(ERROR_LINE_CHARS_MAX).map_or(error.len(), |(at, _)| at);
    // SQLite's functions on text end at a zero.
    error[..end].split(['\n', '\r', '\0']).next().unwrap_or_default().trim()
}

/// What came of a [`Bulk`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bulked {
    /// One for each task that was named, in order. On disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Verdict>,
    /// The batch that was started or asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
}

/// Where a batch stands. What it counts as changed is on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Never used again.
    pub number: u64,
    pub change: Change,
    #[serde(default)]
    pub dry_run: bool,
    /// Tasks that met the filter; the next four add up to it.
    pub seen: u64,
    /// Of a dry run: that would be.
    pub changed: u64,
    /// Left alone: in no state for it.
    #[serde(default)]
    pub unchanged: u64,
    /// Left alone: their unique key is live again in another task.
    #[serde(default)]
    pub twins: u64,
    /// Left alone: something still needs them.
    #[serde(default)]
    pub needed: u64,
    /// It goes through the ids in order: how far it is, and the newest when it began.
    pub at: u64,
    pub until: u64,
    /// Nothing more will be done.
    pub over: bool,
    /// Ended before its time.
    #[serde(default)]
    pub stopped: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_begin_alike_have_one_line() {
        // Proves where the line ends, and that it is the same of the error's beginning alone and of itself.
        let long = "ä".repeat(ERROR_LINE_CHARS_MAX);
        for (error, line) in [
            ("", ""),
            (" no route \n at x", "no route"),
            ("no route\r\nat x", "no route"),
            ("no\0route", "no"),
            ("\nno route", ""),
            (&format!("{long}b\nc"), &long),
            (&format!("{}a", " ".repeat(ERROR_LINE_CHARS_MAX)), ""),
        ] {
            assert_eq!(error_line(error), line, "{error:?}");
            let beginning: String = error.chars().take(ERROR_LINE_CHARS_MAX).collect();
            assert_eq!((error_line(&beginning), error_line(line)), (line, line), "{error:?}");
        }
    }
}

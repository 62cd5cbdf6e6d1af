//! What programs of a recorded run were told, and what they were about to ask where a later state could otherwise not be
//! told from an earlier one. Also the one rule that makes every row checkable: its payload says who brought it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Who brings tasks, and how far the commit reaches that tells them that they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// A submit over the socket.
    Wire,
    /// An app's own INSERT with `synchronous = FULL`.
    Full,
    /// An app's own INSERT with `synchronous = NORMAL`.
    Normal,
    /// Python's sqlite3, whose default is FULL.
    Python,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub(crate) enum Said {
    /// The submit was answered or the COMMIT has returned.
    Stored {
        by: By,
        id: i64,
        payload: String,
    },
    /// A submit was answered with the live task that has its key.
    Met {
        id: i64,
        key: String,
    },
    /// A worker has received a task.
    Taken {
        id: i64,
        run: u32,
        lease: i64,
        epoch: u64,
    },
    /// A task's end: an outcome was answered `ok` or `recorded`, or the result was told to a waiter.
    Ended {
        id: i64,
        state: String,
        to: To,
    },
    /// An attempt's failure was answered `ok`.
    Failed {
        id: i64,
        run: u32,
    },
    /// The COMMIT of an app's `cancel_requested = 1` has returned.
    Requested {
        id: i64,
    },
    /// One client takes a task of its own up a ladder: stored, cancelled, requeued, cancelled and so on.
    Asked {
        id: i64,
        step: u32,
    },
    Climbed {
        id: i64,
        step: u32,
    },
    /// A lane was paused, or resumed; asked, and answered.
    Pausing {
        lane: String,
        paused: bool,
    },
    Paused {
        lane: String,
        paused: bool,
    },
}

/// Who was told of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum To {
    /// One that waits for each answer.
    Worker,
    /// One that had finished the row by SQL.
    SqlWorker,
    Waiter,
}

/// Length of the filling, long enough for a row to be spread over sectors, and sometimes over pages.
const FILLING_BYTES: [usize; 3] = [10, 700, 5_000];

/// The payload of the `n`th task of one origin. `of` tasks are brought together, all or none, as group `group`.
pub(crate) fn payload(by: By, n: u64, group: u64, of: u64) -> String {
    json!({ "by": by, "n": n, "group": group, "of": of, "filling": filling(n) }).to_string()
}

fn filling(n: u64) -> String {
    let letter = char::from(b'a' + u8::try_from(n % 26).unwrap());
    let length = FILLING_BYTES[usize::try_from(n % 7).unwrap().saturating_sub(4)];
    letter.to_string().repeat(length)
}

/// Who brought a row with this payload, in which group of how many; an error when it is not whole.
pub(crate) fn origin(payload: &str) -> Result<(By, u64, u64), String> {
    let value: Value = serde_json::from_str(payload).map_err(|error| format!("payload {payload:?}: {error}"))?;
    let number = |name: &str| value[name].as_u64().ok_or_else(|| format!("payload without {name}: {payload}"));
    if value["filling"] != json!(filling(number("n")?)) {
        return Err(format!("payload whose filling is not whole: {payload}"));
    }
    let by = serde_json::from_value(value["by"].clone()).map_err(|error| format!("payload {payload:?}: {error}"))?;
    Ok((by, number("group")?, number("of")?))
}

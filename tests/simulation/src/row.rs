//! A row of the table, as far as the auditor reads it.

use std::collections::BTreeMap;

use laneway_broker::internals::{Table, Value};
use laneway_protocol::{Payload, TaskState};

use crate::plan::rank;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) kind: String,
    /// `None` for a lane that does not exist.
    pub(crate) rank: Option<usize>,
    /// The row's own word, not the default of its kind.
    pub(crate) names_lane: bool,
    pub(crate) state: TaskState,
    pub(crate) created_at: i64,
    pub(crate) due: i64,
    pub(crate) expires_at: Option<i64>,
    /// Its end, or where that has no time its creation.
    pub(crate) ended_at: i64,
    pub(crate) lease: Option<i64>,
    pub(crate) runs: i64,
    pub(crate) attempts: i64,
    pub(crate) losses: i64,
    pub(crate) releases: i64,
    pub(crate) cancel_requested: bool,
    pub(crate) unique_key: Option<String>,
    pub(crate) fair_key: Option<String>,
    pub(crate) payload: Option<String>,
    pub(crate) checkpoint: Option<Payload>,
    pub(crate) result: Option<String>,
    pub(crate) group: Option<i64>,
    pub(crate) progress: Option<i64>,
    pub(crate) error: Option<String>,
    pub(crate) worker: Option<String>,
    pub(crate) max_attempts: Option<i64>,
    pub(crate) timeout_ms: Option<i64>,
}

pub(crate) fn rows(table: &Table) -> BTreeMap<i64, Row> {
    table.rows().iter().map(|(id, cells)| (*id, row(cells))).collect()
}

fn row(cells: &BTreeMap<&'static str, Value>) -> Row {
    let text = |name| match &cells[name] {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    let int = |name| match cells[name] {
        Value::Integer(n) => Some(n),
        _ => None,
    };
    let kind = text("kind").expect("every app here names its kind");
    Row {
        rank: rank(text("lane").as_deref(), &kind),
        kind,
        names_lane: text("lane").is_some(),
        state: text("state").and_then(|word| TaskState::parse(&word)).expect("nobody here invents a state"),
        created_at: int("created_at").unwrap_or(0),
        due: int("run_at").or(int("created_at")).unwrap_or(0),
        expires_at: int("expires_at"),
        ended_at: int("finished_at").or(int("created_at")).unwrap_or(0),
        lease: int("lease"),
        runs: int("runs").unwrap_or(0),
        attempts: int("attempts").unwrap_or(0),
        losses: int("losses").unwrap_or(0),
        releases: int("releases").unwrap_or(0),
        cancel_requested: int("cancel_requested").unwrap_or(0) != 0,
        unique_key: text("unique_key"),
        fair_key: text("fair_key"),
        payload: text("payload"),
        checkpoint: match &cells["checkpoint"] {
            Value::Text(text) => Some(Payload::json(text.clone())),
            Value::Blob(bytes) => Some(Payload::bin(bytes.clone())),
            _ => None,
        },
        result: text("result"),
        group: int("group_id"),
        progress: int("progress_done"),
        error: text("error"),
        worker: text("worker"),
        max_attempts: int("max_attempts"),
        timeout_ms: int("timeout_ms"),
    }
}

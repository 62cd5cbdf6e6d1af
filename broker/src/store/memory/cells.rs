//! The cells of a row of the model, as SQL would give them.

use laneway_core::{FoundTask, UnixMillis};
use laneway_protocol::message::{Format, TaskRow};
use laneway_protocol::{FairKey, Kind, LaneName, Lease, Payload, TaskId, TaskState};
use rusqlite::types::{Value, ValueRef};

use super::Cells;
use crate::store::Rules;
use crate::store::cancel::CancelCause;
use crate::store::validate::{Judge, Values};
pub(super) fn cell<'a>(row: &'a Cells, column: &str) -> ValueRef<'a> {
    ValueRef::from(&row[column])
}

pub(super) fn int(row: &Cells, column: &str) -> Option<i64> {
    cell(row, column).as_i64().ok()
}

/// A fraction counts as the next whole millisecond.
#[expect(clippy::cast_possible_truncation, reason = "tests use times of this century")]
pub(super) fn time(row: &Cells, column: &str) -> Option<i64> {
    match cell(row, column) {
        ValueRef::Real(at) => Some(at.ceil() as i64),
        _ => int(row, column),
    }
}

pub(super) fn text<'a>(row: &'a Cells, column: &str) -> Option<&'a str> {
    cell(row, column).as_str().ok()
}

pub(super) fn fair_key(row: &Cells) -> Option<FairKey> {
    text(row, "fair_key").and_then(|key| FairKey::new(key).ok())
}

pub(super) fn group(row: &Cells) -> Option<u64> {
    int(row, "group_id").and_then(|group| u64::try_from(group).ok())
}

pub(super) fn state(row: &Cells) -> TaskState {
    TaskState::parse(text(row, "state").unwrap()).unwrap()
}

pub(super) fn requested(row: &Cells) -> bool {
    cancel_cause(row).is_some()
}

pub(super) fn cancel_cause(row: &Cells) -> Option<CancelCause> {
    match row["cancel_requested"] {
        Value::Integer(requested) => CancelCause::of(requested),
        _ => Some(CancelCause::Asked),
    }
}

pub(super) fn sql(task: TaskId) -> i64 {
    i64::try_from(task.value()).unwrap()
}

pub(super) fn task_id(id: i64) -> TaskId {
    TaskId::new(id.unsigned_abs()).unwrap()
}

pub(super) fn sql_payload(payload: Option<&Payload>) -> Value {
    match payload {
        None => Value::Null,
        Some(Payload { format: Format::Json, bytes }) => Value::Text(String::from_utf8(bytes.clone()).unwrap()),
        Some(Payload { format: Format::Bin, bytes }) => Value::Blob(bytes.clone()),
    }
}

pub(super) fn payload(value: &Value) -> Option<Payload> {
    match value {
        Value::Text(text) => Some(Payload::json(text.clone())),
        Value::Blob(bytes) => Some(Payload::bin(bytes.clone())),
        _ => None,
    }
}

pub(super) fn values(row: &Cells) -> Values<'_> {
    Values {
        run_at: cell(row, "run_at"),
        created_at: cell(row, "created_at"),
        runs: cell(row, "runs"),
        attempts: cell(row, "attempts"),
        losses: cell(row, "losses"),
        max_attempts: cell(row, "max_attempts"),
        timeout_ms: cell(row, "timeout_ms"),
        expires_at: cell(row, "expires_at"),
        unique_key: cell(row, "unique_key"),
        trace: cell(row, "trace"),
        fair_key: cell(row, "fair_key"),
        payload_type: row["payload"].data_type(),
        payload_bytes: match &row["payload"] {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            _ => 0,
        },
    }
}

pub(super) fn found(id: i64, row: &Cells, judge: &Judge) -> Option<FoundTask> {
    let kind = Kind::new(text(row, "kind")?).ok()?;
    let number = |column| int(row, column).and_then(|n| u32::try_from(n).ok());
    Some(FoundTask {
        id: task_id(id),
        lane: text(row, "lane").map_or_else(|| judge.rules.lane_of(&kind).clone(), |lane| LaneName::new(lane).unwrap()),
        kind,
        state: state(row),
        lease: int(row, "lease").map(Lease::new),
        runs: number("runs").unwrap_or(0),
        attempts: number("attempts").unwrap_or(0),
        losses: number("losses").unwrap_or(0),
        max_attempts: number("max_attempts"),
        timeout_ms: int(row, "timeout_ms").map(i64::unsigned_abs),
        due: UnixMillis(int(row, "run_at").or(int(row, "created_at")).unwrap_or(0)),
        created_at: UnixMillis(int(row, "created_at").unwrap_or(0)),
        started_at: int(row, "started_at").map(UnixMillis),
        worker: text(row, "worker").map(str::to_owned),
        cancel_requested: requested(row),
        fair_key: fair_key(row),
        group: group(row),
    })
}

pub(super) fn task_row(id: i64, row: &Cells, rules: &Rules) -> TaskRow {
    let number = |column| int(row, column).and_then(|n| u32::try_from(n).ok());
    let owned = |column| text(row, column).map(str::to_owned);
    let kind = owned("kind").unwrap_or_default();
    let default = || Some(rules.lane_of(&kind.parse().ok()?).to_string());
    TaskRow {
        id: task_id(id),
        lane: owned("lane").or_else(default),
        kind,
        state: state(row),
        run_at: int(row, "run_at"),
        unique_key: owned("unique_key"),
        max_attempts: number("max_attempts"),
        timeout_ms: int(row, "timeout_ms").map(i64::unsigned_abs),
        expires_at: int(row, "expires_at"),
        fair_key: owned("fair_key"),
        trace: owned("trace"),
        runs: number("runs").unwrap_or(0),
        attempts: number("attempts").unwrap_or(0),
        losses: number("losses").unwrap_or(0),
        releases: number("releases").unwrap_or(0),
        worker: owned("worker"),
        created_at: int(row, "created_at").unwrap_or(0),
        started_at: int(row, "started_at"),
        finished_at: int(row, "finished_at"),
        progress_done: int(row, "progress_done").map(i64::unsigned_abs),
        progress_total: int(row, "progress_total").map(i64::unsigned_abs),
        progress_note: owned("progress_note"),
        cancel_requested: requested(row),
        error: owned("error"),
        payload: None,
        result: None,
        failures: Vec::new(),
        explain: None,
        ahead: None,
        twin: None,
        group: group(row),
        waits_for: Vec::new(),
        waits_for_n: 0,
    }
}

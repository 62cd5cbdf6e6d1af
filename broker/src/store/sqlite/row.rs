//! Reads cells leniently: apps may have put anything into any column, and a row that a person looks at must be shown all
//! the same. Whether a row makes sense is decided in `validate.rs`.

use laneway_core::{FoundTask, UnixMillis};
use laneway_protocol::message::{Format, Payload};
use laneway_protocol::{FairKey, Kind, Lease, TaskId, TaskState};
use rusqlite::Row;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use crate::store::Rules;
use crate::store::cancel::CancelCause;

pub(super) fn task_id(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<TaskId>> {
    Ok(int(row.get_ref(column)?).and_then(|n| u64::try_from(n).ok()).and_then(TaskId::new))
}

/// An id as a task's.
pub(super) fn given_out(id: i64) -> Option<TaskId> {
    u64::try_from(id).ok().and_then(TaskId::new)
}

/// A whole number; fractions, which only times have, are rounded up.
#[expect(clippy::cast_possible_truncation, reason = "saturates, which is near enough for a time")]
pub(super) fn int(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(n) => Some(n),
        ValueRef::Real(n) => Some(n.ceil() as i64),
        ValueRef::Null | ValueRef::Text(_) | ValueRef::Blob(_) => None,
    }
}

/// 0 when it is no number, the nearest bound when it does not fit.
pub(super) fn count(value: ValueRef<'_>) -> u32 {
    u32::try_from(int(value).unwrap_or(0).max(0)).unwrap_or(u32::MAX)
}

pub(super) fn unsigned(value: ValueRef<'_>) -> Option<u64> {
    int(value).and_then(|n| u64::try_from(n).ok())
}

pub(super) fn millis(value: ValueRef<'_>) -> Option<UnixMillis> {
    int(value).map(UnixMillis)
}

pub(super) fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(n) => Some(n.to_string()),
        ValueRef::Real(n) => Some(n.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// `None` for what no task can have.
pub(super) fn fair_key(value: ValueRef<'_>) -> Option<FairKey> {
    match value {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok().and_then(|key| FairKey::new(key).ok()),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}

/// TEXT is JSON and BLOB is not; a number stands for itself in JSON.
pub(super) fn payload(value: ValueRef<'_>) -> Option<Payload> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(n) => Some(Payload::json(n.to_string())),
        ValueRef::Real(n) => Some(Payload::json(n.to_string())),
        ValueRef::Text(bytes) => Some(Payload { format: Format::Json, bytes: bytes.to_vec() }),
        ValueRef::Blob(bytes) => Some(Payload { format: Format::Bin, bytes: bytes.to_vec() }),
    }
}

/// The table's CHECK lets no other word in, unless an app has switched checks off: then the row is nobody's.
pub(super) fn state(value: ValueRef<'_>) -> Option<TaskState> {
    value.as_str().ok().and_then(TaskState::parse)
}

/// Columns of [`found`], in its order.
pub(super) const FOUND: &str = "id, kind, lane, state, lease, runs, attempts, losses, max_attempts, timeout_ms, run_at, \
                                created_at, started_at, worker, cancel_requested, fair_key, group_id";

/// A row of [`FOUND`]; `None` for a row whose id, kind or state no task can have.
pub(super) fn found(row: &Row<'_>, rules: &Rules) -> rusqlite::Result<Option<FoundTask>> {
    let kind = text(row.get_ref(1)?).and_then(|kind| Kind::new(kind).ok());
    let (Some(id), Some(kind), Some(state)) = (task_id(row, 0)?, kind, state(row.get_ref(3)?)) else {
        return Ok(None);
    };
    let lane = text(row.get_ref(2)?).and_then(|lane| lane.parse().ok());
    Ok(Some(FoundTask {
        id,
        lane: lane.unwrap_or_else(|| rules.lane_of(&kind).clone()),
        kind,
        state,
        lease: row.get_ref(4)?.as_i64().ok().map(Lease::new),
        runs: count(row.get_ref(5)?),
        attempts: count(row.get_ref(6)?),
        losses: count(row.get_ref(7)?),
        max_attempts: int(row.get_ref(8)?).and_then(|n| u32::try_from(n).ok()),
        timeout_ms: unsigned(row.get_ref(9)?),
        due: millis(row.get_ref(10)?).or(millis(row.get_ref(11)?)).unwrap_or_default(),
        created_at: millis(row.get_ref(11)?).unwrap_or_default(),
        started_at: millis(row.get_ref(12)?),
        worker: text(row.get_ref(13)?),
        cancel_requested: requested(row.get_ref(14)?),
        fair_key: fair_key(row.get_ref(15)?),
        group: unsigned(row.get_ref(16)?),
    }))
}

/// Who asked for the end of a task, as `cancel_requested` has it.
pub(super) fn cancel_cause(value: ValueRef<'_>) -> Option<CancelCause> {
    match value {
        ValueRef::Integer(requested) => CancelCause::of(requested),
        other => requested(other).then_some(CancelCause::Asked),
    }
}

/// Whether `cancel_requested` is set, as the SQL `<> 0` sees it.
pub(super) fn requested(value: ValueRef<'_>) -> bool {
    !matches!(value, ValueRef::Integer(0) | ValueRef::Null)
}

/// Binds an id.
#[expect(clippy::cast_possible_wrap, reason = "ids end at 2^53 - 1")]
pub(super) fn sql_id(task: TaskId) -> i64 {
    task.value() as i64
}

/// Binds a number that a peer chose.
pub(super) fn sql_u64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Binds a payload without copying it: TEXT or BLOB by its format. JSON that is not UTF-8 becomes a BLOB, as no SQL
/// function could read it as text.
pub(super) struct SqlPayload<'a>(pub(super) Option<&'a Payload>);

impl ToSql for SqlPayload<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            None => ValueRef::Null,
            Some(payload) if payload.format == Format::Json && std::str::from_utf8(&payload.bytes).is_ok() => {
                ValueRef::Text(&payload.bytes)
            }
            Some(payload) => ValueRef::Blob(&payload.bytes),
        }))
    }
}

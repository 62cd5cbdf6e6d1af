//! What people have set of kinds, lanes and fair keys: read at the start of an epoch, written whole at each change.

use laneway_protocol::limits::WEIGHT_MAX;
use laneway_protocol::message::{FairKeyValues, KindValues, LaneValues};
use laneway_protocol::{FairKey, Kind, LaneName};
use rusqlite::{Connection, Row, params};

use super::row;
use crate::store::{KnownKind, StoreError};

pub(super) fn set_kind(conn: &Connection, kind: &Kind, paused: bool, values: &KindValues) -> Result<(), StoreError> {
    if !paused && *values == KindValues::default() {
        conn.prepare_cached("DELETE FROM laneway_kinds WHERE name = ?1")?.execute([kind.as_str()])?;
        return Ok(());
    }
    let sql = "INSERT OR REPLACE INTO laneway_kinds (name, paused, cap, rate, rate_burst, lane, max_attempts, timeout_ms, \
               backoff_base_ms, backoff_max_ms, done_age_ms, done_count_max, cancelled_age_ms, cancelled_count_max, dead_age_ms, \
               dead_count_max) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";
    conn.prepare_cached(sql)?.execute(params![
        kind.as_str(),
        paused,
        values.cap,
        values.rate.map(|rate| rate.to_string()),
        values.rate_burst,
        values.lane.as_ref().map(LaneName::as_str),
        values.max_attempts,
        values.timeout_ms.map(row::sql_u64),
        values.backoff_base_ms.map(row::sql_u64),
        values.backoff_max_ms.map(row::sql_u64),
        values.done_age_ms.map(row::sql_u64),
        values.done_count_max.map(row::sql_u64),
        values.cancelled_age_ms.map(row::sql_u64),
        values.cancelled_count_max.map(row::sql_u64),
        values.dead_age_ms.map(row::sql_u64),
        values.dead_count_max.map(row::sql_u64),
    ])?;
    Ok(())
}

pub(super) fn set_lane(conn: &Connection, lane: &LaneName, values: &LaneValues) -> Result<(), StoreError> {
    let sql = "UPDATE laneway_lanes SET cap = ?2, rate = ?3, rate_burst = ?4, share = ?5 WHERE name = ?1";
    let rate = values.rate.map(|rate| rate.to_string());
    conn.prepare_cached(sql)?.execute(params![lane.as_str(), values.cap, rate, values.rate_burst, values.share])?;
    Ok(())
}

/// A value that no broker can have written is passed over, as if it were not set.
pub(super) fn kinds(conn: &Connection) -> Result<Vec<KnownKind>, StoreError> {
    let sql = "SELECT name, paused <> 0, cap, rate, rate_burst, lane, max_attempts, timeout_ms, backoff_base_ms, \
               backoff_max_ms, done_age_ms, done_count_max, cancelled_age_ms, cancelled_count_max, dead_age_ms, dead_count_max \
               FROM laneway_kinds ORDER BY name";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut kinds = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(kind) = parsed(row, 0)? else { continue };
        let values = KindValues {
            cap: number(row, 2)?,
            rate: parsed(row, 3)?,
            rate_burst: number(row, 4)?,
            lane: parsed(row, 5)?,
            max_attempts: number(row, 6)?,
            timeout_ms: number(row, 7)?,
            backoff_base_ms: number(row, 8)?,
            backoff_max_ms: number(row, 9)?,
            done_age_ms: number(row, 10)?,
            done_count_max: number(row, 11)?,
            cancelled_age_ms: number(row, 12)?,
            cancelled_count_max: number(row, 13)?,
            dead_age_ms: number(row, 14)?,
            dead_count_max: number(row, 15)?,
        };
        kinds.push(KnownKind { kind, paused: row.get(1)?, values });
    }
    Ok(kinds)
}

pub(super) fn lanes(conn: &Connection) -> Result<Vec<(LaneName, LaneValues)>, StoreError> {
    let mut statement = conn.prepare("SELECT name, cap, rate, rate_burst, share FROM laneway_lanes ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut lanes = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(lane) = parsed(row, 0)? else { continue };
        let values = LaneValues {
            cap: number(row, 1)?,
            rate: parsed(row, 2)?,
            rate_burst: number(row, 3)?,
            share: number(row, 4)?,
        };
        if values != LaneValues::default() {
            lanes.push((lane, values));
        }
    }
    Ok(lanes)
}

pub(super) fn set_fair_key(conn: &Connection, key: &FairKey, values: &FairKeyValues) -> Result<(), StoreError> {
    if *values == FairKeyValues::default() {
        conn.prepare_cached("DELETE FROM laneway_fair_keys WHERE name = ?1")?.execute([key.as_str()])?;
        return Ok(());
    }
    let sql =
        "INSERT OR REPLACE INTO laneway_fair_keys (name, weight, cap, rate, rate_burst) VALUES (?1, ?2, ?3, ?4, ?5)";
    let rate = values.rate.map(|rate| rate.to_string());
    conn.prepare_cached(sql)?.execute(params![key.as_str(), values.weight, values.cap, rate, values.rate_burst])?;
    Ok(())
}

pub(super) fn fair_keys(conn: &Connection) -> Result<Vec<(FairKey, FairKeyValues)>, StoreError> {
    let mut statement =
        conn.prepare("SELECT name, weight, cap, rate, rate_burst FROM laneway_fair_keys ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let Some(key) = parsed(row, 0)? else { continue };
        let weight = number(row, 1)?.filter(|weight| (1..=WEIGHT_MAX).contains(weight));
        let values = FairKeyValues { weight, cap: number(row, 2)?, rate: parsed(row, 3)?, rate_burst: number(row, 4)? };
        keys.push((key, values));
    }
    Ok(keys)
}

fn parsed<T: std::str::FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    Ok(row::text(row.get_ref(column)?).and_then(|text| text.parse().ok()))
}

fn number<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    Ok(row::int(row.get_ref(column)?).and_then(|number| T::try_from(number).ok()))
}

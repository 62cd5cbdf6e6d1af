//! Schedules: which are to be looked at, told by one partial index, and what firing a slot writes. A slot is a row of its own,
//! so that it is fired once, by whoever comes first.

use laneway_core::{Millis, Now, OpResult, QueueKey, UnixMillis};
use laneway_protocol::LaneName;
use laneway_protocol::limits::TEXT_BYTES_MAX;
use laneway_protocol::message::{CatchUp, NewSchedule, ScheduleRow, ScheduleRows, Schedules, Stored};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::State;
use super::row::{self, SqlPayload, sql_id, sql_u64};
use super::submit::insert_judged;
use crate::schedule;
use crate::store::schedules::{
    Due, Fired, FiredSlot, MEND_INTERVAL_MS, PAGE_ROWS, ROWS_PER_TURN, SCHEDULES_MAX, SLOTS_KEPT, Schedule, Verdict,
    WRONG_PER_TURN, judge_new, too_many,
};
use crate::store::validate::{Judge, clipped};
use crate::store::{Bad, StoreError};

/// When the far future is to be looked into again.
#[derive(Debug, Default)]
pub(super) struct Mending(Option<Millis>);

pub(super) fn fire(conn: &Connection, state: &mut State, slots: usize, now: Now) -> Result<Fired, StoreError> {
    let mut fired = Fired::default();
    let mut next = head(conn)?;
    if next.is_none() {
        return Ok(fired);
    }
    mend(conn, state, now)?;
    let mut left = slots;
    for _ in 0..ROWS_PER_TURN {
        next = head(conn)?;
        let id = match next {
            None => break,
            Some(Head { next_at: Some(at), .. }) if at > now.wall || left == 0 => break,
            Some(_) if fired.wrong.len() >= WRONG_PER_TURN => break,
            Some(Head { id, .. }) => id,
        };
        match one(conn, state, id, left, now, &mut fired) {
            Ok(n_slots) => left -= n_slots,
            // A trigger of an app keeps the broker from writing its own columns: until that app commits again, nothing fires.
            Err(StoreError::Refused(reason)) => {
                fired.wrong.push((format!("number {id}"), reason));
                return Ok(fired);
            }
            Err(error) => return Err(error),
        }
        next = head(conn)?;
    }
    fired.more = next.is_some_and(|head| head.next_at.is_none());
    fired.next_at = next.and_then(|head| head.next_at);
    Ok(fired)
}

/// Errors of an earlier life are looked at anew, for the settings may have changed; slots of schedules that went in a way
/// that no trigger saw are of no use.
pub(super) fn start(conn: &Connection) -> Result<(), StoreError> {
    conn.execute("UPDATE schedules SET error = NULL WHERE error IS NOT NULL", [])?;
    conn.execute("DELETE FROM schedule_slots WHERE schedule NOT IN (SELECT id FROM schedules)", [])?;
    Ok(())
}

/// The schedule that comes first.
#[derive(Debug, Clone, Copy)]
struct Head {
    id: i64,
    /// NULL sorts before every number: what is to be worked out comes before what is due.
    next_at: Option<UnixMillis>,
}

fn head(conn: &Connection) -> Result<Option<Head>, StoreError> {
    let sql = const_sql::HEAD;
    let head = |row: &Row<'_>| Ok(Head { id: row.get(0)?, next_at: row::millis(row.get_ref(1)?) });
    Ok(conn.prepare_cached(sql)?.query_row([], head).optional()?)
}

/// A clock that was far ahead has left slots behind it that would keep a schedule silent until then.
fn mend(conn: &Connection, state: &mut State, now: Now) -> Result<(), StoreError> {
    if state.mending.0.is_some_and(|at| now.mono.since(at) < MEND_INTERVAL_MS) {
        return Ok(());
    }
    state.mending.0 = Some(now.mono);
    let sql = "SELECT id, last_at FROM schedules WHERE next_at > last_at AND last_at > ?1";
    let found: Vec<(i64, i64)> = conn
        .prepare_cached(sql)?
        .query_map([now.wall.0], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (id, last_at) in found {
        if schedule::is_absurd(UnixMillis(last_at), now.wall) {
            conn.prepare_cached("UPDATE schedules SET next_at = NULL WHERE id = ?1")?.execute([id])?;
        }
    }
    Ok(())
}

/// Looks at one schedule. Gives how many slots it took.
fn one(
    conn: &Connection,
    state: &mut State,
    id: i64,
    slots: usize,
    now: Now,
    fired: &mut Fired,
) -> Result<usize, StoreError> {
    let schedule = conn.prepare_cached(const_sql::ROW)?.query_row([id], read)?;
    match schedule.verdict(&state.judge, now) {
        Ok(Verdict::Planned(at)) => {
            set_next(conn, id, Some(at))?;
            Ok(0)
        }
        Ok(Verdict::Due(due)) => fire_due(conn, state, &schedule, &due, slots, now, fired),
        Err(bad) => {
            reject(conn, &schedule, &bad, fired)?;
            Ok(0)
        }
    }
}

fn fire_due(
    conn: &Connection,
    state: &mut State,
    schedule: &Schedule,
    due: &Due,
    slots: usize,
    now: Now,
    fired: &mut Fired,
) -> Result<usize, StoreError> {
    // What a trigger of an app refuses costs this schedule and nothing else.
    conn.prepare_cached("SAVEPOINT schedule")?.execute([])?;
    let (mut done, mut inserted) = (Vec::new(), Vec::new());
    for slot in due.slots.iter().take(slots) {
        match fire_slot(conn, &state.judge, schedule, due, *slot, now, &mut inserted) {
            Ok(stored) => done.extend(stored.map(|stored| (*slot, stored))),
            Err(StoreError::Refused(reason)) => {
                conn.prepare_cached("ROLLBACK TO schedule")?.execute([])?;
                conn.prepare_cached("RELEASE schedule")?.execute([])?;
                reject(conn, schedule, &Bad::new("kind", reason), fired)?;
                return Ok(0);
            }
            Err(error) => return Err(error),
        }
    }
    conn.prepare_cached("RELEASE schedule")?.execute([])?;
    for (key, id, run_at) in inserted {
        state.inserted(key, id, None, run_at, now);
    }
    fired.slots.extend(done.iter().map(|(slot, stored)| FiredSlot {
        schedule: schedule.name.clone(),
        slot: *slot,
        task: stored.task,
        new: stored.new,
    }));
    // What the turn has no room for is next.
    let next_at = due.slots.get(slots).copied().or(due.next_at);
    set_next(conn, schedule.id, next_at)?;
    if next_at.is_none() {
        reject(conn, schedule, &schedule.over(), fired)?;
    }
    Ok(due.slots.len().min(slots))
}

/// `None` when the slot was fired before.
fn fire_slot(
    conn: &Connection,
    judge: &Judge,
    schedule: &Schedule,
    due: &Due,
    slot: UnixMillis,
    now: Now,
    inserted: &mut Vec<(QueueKey, i64, Option<UnixMillis>)>,
) -> Result<Option<Stored>, StoreError> {
    let known = "SELECT 1 FROM schedule_slots WHERE schedule = ?1 AND slot = ?2";
    if conn.prepare_cached(known)?.query_row(params![schedule.id, slot.0], |_| Ok(())).optional()?.is_some() {
        return Ok(None);
    }
    let tasks = std::slice::from_ref(&due.task);
    let stored =
        insert_judged(conn, judge, tasks, vec![due.key.clone()], now, |key, id, at| inserted.push((key, id, at)))?;
    let stored = stored[0];
    let sql = "INSERT INTO schedule_slots (schedule, slot, task, new, fired_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let row = params![schedule.id, slot.0, sql_id(stored.task), stored.new, now.wall.0];
    conn.prepare_cached(sql)?.execute(row)?;
    let sql = "UPDATE schedules SET last_at = ?2, last_task = ?3 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![schedule.id, slot.0, sql_id(stored.task)])?;
    let sql = "DELETE FROM schedule_slots WHERE schedule = ?1 AND slot < \
               (SELECT slot FROM schedule_slots WHERE schedule = ?1 ORDER BY slot DESC LIMIT 1 OFFSET ?2)";
    conn.prepare_cached(sql)?.execute(params![schedule.id, i64::try_from(SLOTS_KEPT - 1).unwrap_or(i64::MAX)])?;
    Ok(Some(stored))
}

fn set_next(conn: &Connection, id: i64, next_at: Option<UnixMillis>) -> Result<(), StoreError> {
    let sql = "UPDATE schedules SET next_at = ?2 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute(params![id, next_at.map(|at| at.0)])?;
    Ok(())
}

fn reject(conn: &Connection, schedule: &Schedule, bad: &Bad, fired: &mut Fired) -> Result<(), StoreError> {
    let error = clipped(&bad.reason, TEXT_BYTES_MAX);
    conn.prepare_cached("UPDATE schedules SET error = ?2 WHERE id = ?1")?.execute(params![schedule.id, error])?;
    fired.wrong.push((schedule.name.clone(), error.to_owned()));
    Ok(())
}

// ----------------------------------------------------------------------------------------------------------- the wire

/// Changes schedules, all or none, and gives those that were changed or asked for.
pub(super) fn ask(conn: &Connection, judge: &Judge, asked: &Schedules, now: Now) -> Result<OpResult, StoreError> {
    if !asked.is_change() {
        return answer(conn, judge, asked, now);
    }
    // What a trigger of an app refuses costs this question and nothing else.
    conn.prepare_cached("SAVEPOINT schedules")?.execute([])?;
    let answered = match answer(conn, judge, asked, now) {
        Err(StoreError::Refused(reason)) => {
            conn.prepare_cached("ROLLBACK TO schedules")?.execute([])?;
            OpResult::Refused { index: 0, field: "name", reason }
        }
        answered => answered?,
    };
    conn.prepare_cached("RELEASE schedules")?.execute([])?;
    Ok(answered)
}

fn answer(conn: &Connection, judge: &Judge, asked: &Schedules, now: Now) -> Result<OpResult, StoreError> {
    let mut found = ScheduleRows::default();
    if let Some(new) = &asked.put {
        let known = shown(conn, &new.name, false)?.is_some();
        let judged = if !known && count(conn)? >= SCHEDULES_MAX { Err(too_many()) } else { judge_new(new, judge, now) };
        if let Err(Bad { field, reason }) = judged {
            return Ok(OpResult::Refused { index: 0, field, reason });
        }
        put(conn, new, now)?;
        found.schedules.extend(shown(conn, &new.name, false)?);
    }
    for (names, paused) in [(&asked.pause, true), (&asked.resume, false)] {
        for name in names {
            let sql = "UPDATE schedules SET paused = ?2 WHERE name = ?1";
            conn.prepare_cached(sql)?.execute(params![name, paused])?;
            match shown(conn, name, false)? {
                Some(row) => found.schedules.push(row),
                None => found.not_found.push(name.clone()),
            }
        }
    }
    for name in &asked.remove {
        if conn.prepare_cached("DELETE FROM schedules WHERE name = ?1")?.execute([name])? == 0 {
            found.not_found.push(name.clone());
        }
    }
    match &asked.name {
        _ if asked.is_change() => {}
        Some(name) => match shown(conn, name, true)? {
            Some(row) => found.schedules.push(row),
            None => found.not_found.push(name.clone()),
        },
        None => {
            let sql = format!("SELECT {SHOWN}, NULL FROM schedules WHERE name > ?1 ORDER BY name LIMIT ?2");
            let page = params![asked.after.as_deref().unwrap_or(""), i64::try_from(PAGE_ROWS).unwrap_or(i64::MAX)];
            let rows = conn.prepare_cached(&sql)?.query_map(page, show)?.collect::<Result<Vec<_>, _>>()?;
            found.next = (rows.len() == PAGE_ROWS).then(|| rows[PAGE_ROWS - 1].name.clone());
            found.schedules = rows;
        }
    }
    Ok(OpResult::Schedules(found))
}

fn put(conn: &Connection, new: &NewSchedule, now: Now) -> Result<(), StoreError> {
    let sql = "INSERT INTO schedules (name, cron, time_zone, kind, lane, unique_key, max_attempts, timeout_ms, catch_up, \
               catch_up_max, payload, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
               ON CONFLICT (name) DO UPDATE SET cron = excluded.cron, time_zone = excluded.time_zone, kind = excluded.kind, \
               lane = excluded.lane, unique_key = excluded.unique_key, max_attempts = excluded.max_attempts, \
               timeout_ms = excluded.timeout_ms, catch_up = excluded.catch_up, catch_up_max = excluded.catch_up_max, \
               payload = excluded.payload";
    conn.prepare_cached(sql)?.execute(params![
        new.name,
        new.cron,
        new.time_zone.as_deref().unwrap_or("UTC"),
        new.kind.as_str(),
        new.lane.as_ref().map(LaneName::as_str),
        new.unique_key,
        new.max_attempts,
        new.timeout_ms.map(sql_u64),
        new.catch_up.unwrap_or(CatchUp::One).as_str(),
        new.catch_up_max,
        SqlPayload(new.payload.as_ref()),
        now.wall.0,
    ])?;
    Ok(())
}

fn count(conn: &Connection) -> Result<usize, StoreError> {
    let n: i64 = conn.prepare_cached("SELECT count(*) FROM schedules")?.query_row([], |row| row.get(0))?;
    Ok(usize::try_from(n).unwrap_or(usize::MAX))
}

fn shown(conn: &Connection, name: &str, payload: bool) -> Result<Option<ScheduleRow>, StoreError> {
    let sql = format!("SELECT {SHOWN}, CASE WHEN ?2 THEN payload END FROM schedules WHERE name = ?1");
    Ok(conn.prepare_cached(&sql)?.query_row(params![name, payload], show).optional()?)
}

/// The columns of `show`, in its order, but for the payload behind them.
const SHOWN: &str = "name, cron, time_zone, kind, lane, unique_key, max_attempts, timeout_ms, catch_up, catch_up_max, \
                     paused, created_at, next_at, last_at, last_task, error";

fn show(row: &Row<'_>) -> rusqlite::Result<ScheduleRow> {
    let text = |column| row.get_ref(column).map(row::text);
    let small = |column| Ok::<_, rusqlite::Error>(row::int(row.get_ref(column)?).and_then(|n| u32::try_from(n).ok()));
    Ok(ScheduleRow {
        name: text(0)?.unwrap_or_default(),
        cron: text(1)?.unwrap_or_default(),
        time_zone: text(2)?.unwrap_or_else(|| "UTC".into()),
        kind: text(3)?.unwrap_or_default(),
        lane: text(4)?,
        unique_key: text(5)?,
        max_attempts: small(6)?,
        timeout_ms: row::unsigned(row.get_ref(7)?),
        catch_up: text(8)?.unwrap_or_else(|| "one".into()),
        catch_up_max: small(9)?,
        paused: row::requested(row.get_ref(10)?),
        created_at: row::int(row.get_ref(11)?).unwrap_or(0),
        next_at: row::int(row.get_ref(12)?),
        last_at: row::int(row.get_ref(13)?),
        last_task: row::task_id(row, 14)?,
        error: text(15)?,
        payload: row::payload(row.get_ref(16)?),
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<Schedule> {
    let text = |column| row.get_ref(column).map(row::text);
    Ok(Schedule {
        id: row.get(0)?,
        name: text(1)?.unwrap_or_default(),
        cron: text(2)?.unwrap_or_default(),
        time_zone: text(3)?,
        kind: text(4)?.unwrap_or_default(),
        lane: text(5)?,
        unique_key: text(6)?,
        max_attempts: row::int(row.get_ref(7)?),
        timeout_ms: row::int(row.get_ref(8)?),
        catch_up: text(9)?,
        catch_up_max: row::int(row.get_ref(10)?),
        payload: row::payload(row.get_ref(11)?),
        next_at: row::millis(row.get_ref(12)?),
        last_at: row::millis(row.get_ref(13)?),
    })
}

mod const_sql {
    //! Statements that are long or looked at by tests.

    /// The condition of the index `schedules_next`, word for word.
    pub(super) const HEAD: &str = "SELECT id, next_at FROM schedules INDEXED BY schedules_next \
        WHERE paused = 0 AND error IS NULL ORDER BY next_at LIMIT 1";
    /// The columns of `read`, in its order.
    pub(super) const ROW: &str = "SELECT id, name, cron, time_zone, kind, lane, unique_key, max_attempts, timeout_ms, \
        catch_up, catch_up_max, payload, next_at, last_at FROM schedules WHERE id = ?1";
}

//! New rows by the store's own hand: submits, said once or twice, and the tasks that an outcome spawns.

use laneway_core::{Now, OpResult, QueueKey, UnixMillis};
use laneway_protocol::message::{Held, NewGroup, NewTask, OnConflict, Stored};
use laneway_protocol::{FairKey, RequestId, TaskId};
use rusqlite::{Connection, OptionalExtension, params};

use super::State;
use super::dependencies::{Rings, depend, is_awaited, missing_among};
use super::group::{end_unborn, group_of, is_cancelled, is_to_end, new_group, waiting_last};
use super::insert::Inserts;
use super::row::{sql_id, sql_u64};
use super::unique::{keep_for, queue_of, replace, twin};
use crate::store::StoreError;
use crate::store::dependencies::{
    cancelled_group, is_plain, judge_list, last_has_twin, missing_group, missing_parents, numbers_before,
    ring_of_stored,
};
use crate::store::validate::{Bad, Judge};

/// A submit said again within this time gets the same ids.
const REQUEST_KEPT_MS: i64 = 10 * 60 * 1000;
/// Old requests are forgotten this often, more of them than came in meanwhile, so that the table shrinks.
const FORGET_EVERY_MS: i64 = 1000;
const FORGOTTEN_MIN: i64 = 1000;
const FORGOTTEN_PER_SUBMIT: i64 = 2;

/// When old requests are to be forgotten.
#[derive(Debug, Default)]
pub(super) struct Forgetting {
    next_at: i64,
    submits: i64,
}

pub(super) fn submit(
    conn: &Connection,
    state: &mut State,
    request: RequestId,
    list: NewList<'_>,
    now: Now,
) -> Result<OpResult, StoreError> {
    if let Some((stored, group)) = said_before(conn, request, now)? {
        tell_again(conn, state, list.secured)?;
        return Ok(submitted(stored, group));
    }
    // What a trigger of an app refuses costs this submit and nothing else.
    match in_savepoint(conn, || insert_list(conn, &state.judge, list, now)) {
        Ok(Ok(inserted)) => {
            let (stored, group) = state.take_inserted(inserted, now);
            remember(conn, request, &stored, group, now)?;
            forget(conn, &mut state.forgetting, now)?;
            Ok(submitted(stored, group))
        }
        Ok(Err((index, Bad { field, reason }))) => Ok(OpResult::Refused { index, field, reason }),
        Err(StoreError::Refused(reason)) => Ok(OpResult::Refused { index: 0, field: "kind", reason }),
        Err(error) => Err(error),
    }
}

/// What the first saying has replaced was kept from being read ahead for this one too: its queues are told again.
fn tell_again(conn: &Connection, state: &mut State, secured: &[Held]) -> Result<(), StoreError> {
    for Held(task, _) in secured {
        if let Some((key, fair_key)) = queue_of(conn, &state.judge, sql_id(*task))? {
            state.look_at(key, fair_key, None);
        }
    }
    Ok(())
}

fn submitted(stored: Vec<Stored>, group: Option<u64>) -> OpResult {
    match group {
        Some(group) => OpResult::SubmittedGroup(stored, group),
        None => OpResult::Submitted(stored),
    }
}

/// Tasks to be, with what they are to each other.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NewList<'a> {
    pub(super) tasks: &'a [NewTask],
    pub(super) group: Option<&'a NewGroup>,
    /// The task that spawns them.
    pub(super) spawned_by: Option<i64>,
    /// Queued tasks that may be replaced, for nobody can start them meanwhile; with the marks for their rows.
    pub(super) secured: &'a [Held],
}

/// Its queue, its id, its fair key, and when it is due.
type NewRow = (QueueKey, i64, Option<FairKey>, Option<UnixMillis>);

/// What was inserted, for the state to hear of once nothing can undo it.
#[derive(Debug, Default)]
pub(super) struct Inserted {
    pub(super) stored: Vec<Stored>,
    queued: Vec<NewRow>,
    waiting: Vec<i64>,
    /// Rows that stand for tasks of the list and have become those.
    replaced: Vec<NewRow>,
    group: Option<u64>,
}

pub(crate) type Judged<T> = Result<T, (usize, Bad)>;

/// Does it whole or not at all: what fails, or is found bad on the way, leaves nothing.
pub(super) fn in_savepoint<T>(
    conn: &Connection,
    step: impl FnOnce() -> Result<Judged<T>, StoreError>,
) -> Result<Judged<T>, StoreError> {
    conn.prepare_cached("SAVEPOINT list")?.execute([])?;
    let done = step();
    if !matches!(done, Ok(Ok(_))) {
        conn.prepare_cached("ROLLBACK TO list")?.execute([])?;
    }
    conn.prepare_cached("RELEASE list")?.execute([])?;
    done
}

/// Judges and inserts, all or none, for the offline commands; the caller undoes what was refused.
pub(crate) fn insert_all(
    conn: &Connection,
    judge: &Judge,
    tasks: &[NewTask],
    group: Option<&NewGroup>,
    now: Now,
) -> Result<Judged<Said>, StoreError> {
    let list = NewList { tasks, group, ..NewList::default() };
    Ok(insert_list(conn, judge, list, now)?.map(|inserted| (inserted.stored, inserted.group)))
}

/// Judges and inserts. When it is refused, some may have been inserted.
pub(super) fn insert_list(
    conn: &Connection,
    judge: &Judge,
    list: NewList<'_>,
    now: Now,
) -> Result<Judged<Inserted>, StoreError> {
    let mut keys = Vec::with_capacity(list.tasks.len());
    for (index, task) in list.tasks.iter().enumerate() {
        match judge.task(task) {
            Ok(key) => keys.push(key),
            Err(bad) => return Ok(Err((index, bad))),
        }
    }
    if list.spawned_by.is_some()
        && let Some(bad) = Bad::replacing(list.tasks)
    {
        return Ok(Err(bad));
    }
    let mut inserted = Inserted { stored: Vec::with_capacity(list.tasks.len()), ..Inserted::default() };
    if is_plain(list.tasks, list.group) {
        return Ok(insert_plain(conn, judge, list, keys, now, &mut inserted)?.map(|()| inserted));
    }
    if let Err(bad) = judge_list(list.tasks, list.group, list.spawned_by.is_some()) {
        return Ok(Err(bad));
    }
    Ok(insert_related(conn, judge, list, keys, now, &mut inserted)?.map(|()| inserted))
}

/// Inserts tasks that were judged to be good and say nothing of others, telling `tell` of each new row.
pub(super) fn insert_judged(
    conn: &Connection,
    judge: &Judge,
    tasks: &[NewTask],
    keys: Vec<QueueKey>,
    now: Now,
    mut tell: impl FnMut(QueueKey, i64, Option<UnixMillis>),
) -> Result<Vec<Stored>, StoreError> {
    let mut inserted = Inserted::default();
    let list = NewList { tasks, ..NewList::default() };
    if let Err((_, Bad { reason, .. })) = insert_plain(conn, judge, list, keys, now, &mut inserted)? {
        return Err(StoreError::Refused(reason));
    }
    inserted.queued.into_iter().for_each(|(key, id, _, run_at)| tell(key, id, run_at));
    Ok(inserted.stored)
}

/// Tasks that say nothing of others.
fn insert_plain(
    conn: &Connection,
    judge: &Judge,
    list: NewList<'_>,
    keys: Vec<QueueKey>,
    now: Now,
    inserted: &mut Inserted,
) -> Result<Judged<()>, StoreError> {
    let mut inserts = Inserts::of(conn, list.tasks.len(), now)?;
    let mut keys = keys.into_iter();
    let mut at = 0;
    while at < list.tasks.len() {
        let task = &list.tasks[at];
        let several = inserts.rows(&list.tasks[at..])?;
        if several.is_none()
            && let Some(twin) = twin(conn, task, now)?
        {
            if let Err(bad) = meet(conn, judge, list, at, twin, inserted)? {
                return Ok(Err(bad));
            }
            keys.next();
            at += 1;
            continue;
        }
        let (first, n) = match several {
            Some(rows) => rows,
            None => (inserts.row(task, "queued", None)?, 1),
        };
        for ((id, task), key) in (first..).zip(&list.tasks[at..at + n]).zip(&mut keys) {
            inserted.queued.push((key, id, task.fair_key.clone(), task.run_at.map(UnixMillis)));
            inserted.stored.push(Stored::new(given_out(id)?));
        }
        at += n;
    }
    Ok(Ok(()))
}

/// A task of the list is not inserted, for another stands for it: that one is kept, or replaced, or the list is refused.
fn meet(
    conn: &Connection,
    judge: &Judge,
    list: NewList<'_>,
    at: usize,
    twin: i64,
    inserted: &mut Inserted,
) -> Result<Judged<()>, StoreError> {
    let task = &list.tasks[at];
    let own = inserted.stored.iter().position(|stored| stored.new && sql_id(stored.task) == twin);
    if task.on_conflict == OnConflict::Replace
        && let Some(number) = own
    {
        return Ok(Err((at, Bad::replacing_own(task, number))));
    }
    if task.on_conflict == OnConflict::Reject {
        let by =
            own.map_or_else(|| format!("task {twin}"), |number| format!("task number {number} of the same message"));
        return Ok(Err((at, Bad::taken(task, &by))));
    }
    let mut stored = Stored::met(given_out(twin)?);
    if task.on_conflict == OnConflict::Replace
        && let Some(Held(_, mark)) = list.secured.iter().find(|held| held.0 == stored.task)
        && let Some((key, fair_key)) = replace(conn, judge, twin, task, *mark)?
    {
        stored.replaced = true;
        inserted.replaced.push((key, twin, fair_key, task.run_at.map(UnixMillis)));
    }
    keep_for(conn, twin, task)?;
    inserted.stored.push(stored);
    Ok(Ok(()))
}

/// Tasks that wait for others or belong to a group.
fn insert_related(
    conn: &Connection,
    judge: &Judge,
    list: NewList<'_>,
    keys: Vec<QueueKey>,
    now: Now,
    inserted: &mut Inserted,
) -> Result<Judged<()>, StoreError> {
    let own_group = list.group.map(|group| new_group(conn, group, now)).transpose()?;
    let spawner_group = match list.spawned_by {
        Some(id) if list.tasks.iter().any(|task| task.join) => group_of(conn, id)?,
        _ => None,
    };
    let too_late = match list.spawned_by {
        Some(id) if spawner_group.is_some() => is_to_end(conn, id)?,
        _ => false,
    };
    let mut inserts = Inserts::one_by_one(conn, now)?;
    let final_at = list.group.and_then(|group| group.last).map(|number| number as usize);
    let mut joined = Vec::new();
    for (at, (task, key)) in list.tasks.iter().zip(keys).enumerate() {
        if let Some(twin) = twin(conn, task, now)? {
            if final_at == Some(at) {
                return Ok(Err((at, last_has_twin(twin))));
            }
            match meet(conn, judge, list, at, twin, inserted)? {
                Ok(()) => continue,
                Err(bad) => return Ok(Err(bad)),
            }
        }
        let missing = missing_among(conn, task.after.iter().filter_map(|after| after.task).map(sql_id))?;
        if !missing.is_empty() {
            return Ok(Err((at, missing_parents(&missing))));
        }
        let group = task.group.map(sql_u64).or(own_group).or(spawner_group.filter(|_| task.join));
        let cancelled = match group.filter(|_| own_group.is_none()) {
            Some(group) => is_cancelled(conn, group)?,
            None => None,
        };
        match (task.group, cancelled) {
            (Some(named), None) => return Ok(Err((at, missing_group(named)))),
            (Some(named), Some(true)) if list.spawned_by.is_none() => return Ok(Err((at, cancelled_group(named)))),
            _ => {}
        }
        if cancelled == Some(true) || (too_late && task.join && group == spawner_group) {
            let id = inserts.row(task, "waiting", group)?;
            end_unborn(conn, id, now)?;
            inserted.waiting.push(id);
            inserted.stored.push(Stored::new(given_out(id)?));
            continue;
        }
        let waits = !(task.after.is_empty() && (final_at != Some(at) || list.tasks.len() == 1));
        let state = if waits { "waiting" } else { "queued" };
        let id = inserts.row(task, state, group)?;
        if waits {
            inserted.waiting.push(id);
        } else {
            inserted.queued.push((key, id, task.fair_key.clone(), task.run_at.map(UnixMillis)));
        }
        joined.extend(group.filter(|_| own_group.is_none()).map(|group| (at, id, group)));
        inserted.stored.push(Stored::new(given_out(id)?));
    }
    inserted.group = own_group.map(i64::unsigned_abs);
    if let Err(bad) = ring_of_stored(list.tasks, list.group, &inserted.stored) {
        return Ok(Err(bad));
    }
    let new = || inserted.stored.iter().filter(|stored| stored.new).map(|stored| sql_id(stored.task));
    let awaited = match (new().min(), new().max()) {
        (Some(oldest), Some(newest)) => is_awaited(conn, oldest, newest)?,
        _ => false,
    };
    insert_edges(conn, list, &inserted.stored)?;
    if let (Some(group), Some(at)) = (own_group, final_at) {
        let sql = "UPDATE task_groups SET last_task = ?2 WHERE id = ?1";
        conn.prepare_cached(sql)?.execute(params![group, sql_id(inserted.stored[at].task)])?;
    }
    if let Err(bad) = join(conn, &joined, list.tasks)? {
        return Ok(Err(bad));
    }
    // An app has said in SQL that some row waits for an id that nobody had yet.
    let mut rings = Rings::default();
    for (at, stored) in inserted.stored.iter().enumerate().filter(|(_, stored)| awaited && stored.new) {
        if let Some(bad) = rings.find(conn, sql_id(stored.task))? {
            return Ok(Err((at, bad)));
        }
    }
    Ok(Ok(()))
}

/// The edges of new tasks. Those that were met instead of made wait for what they waited for.
fn insert_edges(conn: &Connection, list: NewList<'_>, stored: &[Stored]) -> Result<(), StoreError> {
    for (at, (task, own)) in list.tasks.iter().zip(stored).enumerate().filter(|(_, (_, own))| own.new) {
        for after in &task.after {
            if let Some(parent) = after.task {
                depend(conn, sql_id(own.task), sql_id(parent), after.anyway)?;
            }
        }
        for (number, anyway) in numbers_before(list.tasks, list.group, at) {
            depend(conn, sql_id(own.task), sql_id(stored[number].task), anyway)?;
        }
    }
    Ok(())
}

/// Lets the last task of a group that was there already wait for those that join it, unless it has gone.
fn join(conn: &Connection, joined: &[(usize, i64, i64)], tasks: &[NewTask]) -> Result<Judged<()>, StoreError> {
    for (_, id, group) in joined {
        if let Some((last, anyway)) = waiting_last(conn, *group)? {
            depend(conn, last, *id, anyway)?;
        }
    }
    // A task that waits for the last one of its own group, perhaps through others, would wait for itself.
    let mut rings = Rings::default();
    for (at, id, _) in joined.iter().filter(|(at, ..)| !tasks[*at].after.is_empty()) {
        if let Some(bad) = rings.find(conn, *id)? {
            return Ok(Err((*at, bad)));
        }
    }
    Ok(Ok(()))
}

impl State {
    /// Takes in what was inserted, now that nothing but the turn's end can undo it.
    pub(super) fn take_inserted(&mut self, inserted: Inserted, now: Now) -> (Vec<Stored>, Option<u64>) {
        // In order of ids, each behind the watermark proves that no app's row lies between.
        let mut waiting = inserted.waiting.into_iter().peekable();
        for (key, id, fair_key, run_at) in inserted.queued {
            while let Some(id) = waiting.next_if(|waits| *waits < id) {
                self.inserted_waiting(id);
            }
            self.inserted(key, id, fair_key, run_at, now);
        }
        waiting.for_each(|id| self.inserted_waiting(id));
        for (key, id, fair_key, run_at) in inserted.replaced {
            // Out of the queue and into it again: at once, or at another time.
            self.unqueued(key.clone(), id);
            self.queued(key, id, fair_key, run_at, now);
        }
        (inserted.stored, inserted.group)
    }
}

fn given_out(id: i64) -> Result<TaskId, StoreError> {
    let task = u64::try_from(id).ok().and_then(TaskId::new);
    task.ok_or_else(|| StoreError::Broken(format!("the table gave out id {id}, which no task can have")))
}

/// Set in the number of a task that the request met instead of making it, and that it replaced: ids have 53 bits.
const MET: u64 = 1 << 63;
const REPLACED: u64 = 1 << 62;

/// What a list is answered with: its tasks, and their group if they are one.
pub(crate) type Said = (Vec<Stored>, Option<u64>);

fn said_before(conn: &Connection, request: RequestId, now: Now) -> Result<Option<Said>, StoreError> {
    let sql = "SELECT tasks, group_id FROM laneway_requests WHERE request = ?1 AND at > ?2";
    let oldest = now.wall.0 - REQUEST_KEPT_MS;
    let said: Option<(Vec<u8>, Option<i64>)> = conn
        .prepare_cached(sql)?
        .query_row(params![request.0, oldest], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let stored = |bytes: &[u8; 8]| {
        let number = u64::from_be_bytes(*bytes);
        let task = TaskId::new(number & !(MET | REPLACED))?;
        Some(Stored { task, new: number & MET == 0, replaced: number & REPLACED != 0 })
    };
    Ok(said
        .map(|(tasks, group)| (tasks.as_chunks().0.iter().filter_map(stored).collect(), group.map(i64::unsigned_abs))))
}

fn remember(
    conn: &Connection,
    request: RequestId,
    stored: &[Stored],
    group: Option<u64>,
    now: Now,
) -> Result<(), StoreError> {
    let number = |stored: &Stored| {
        stored.task.value() | if stored.new { 0 } else { MET } | if stored.replaced { REPLACED } else { 0 }
    };
    let ids: Vec<u8> = stored.iter().flat_map(|stored| number(stored).to_be_bytes()).collect();
    // One too old to count may still be there.
    let sql = "INSERT OR REPLACE INTO laneway_requests (request, at, tasks, group_id) VALUES (?1, ?2, ?3, ?4)";
    conn.prepare_cached(sql)?.execute(params![request.0, now.wall.0, ids, group.map(sql_u64)])?;
    Ok(())
}

fn forget(conn: &Connection, forgetting: &mut Forgetting, now: Now) -> Result<(), StoreError> {
    forgetting.submits += 1;
    // A clock that went back does not stop it for long.
    if (forgetting.next_at - FORGET_EVERY_MS..forgetting.next_at).contains(&now.wall.0) {
        return Ok(());
    }
    let limit = FORGOTTEN_MIN + FORGOTTEN_PER_SUBMIT * forgetting.submits;
    *forgetting = Forgetting { next_at: now.wall.0 + FORGET_EVERY_MS, submits: 0 };
    // Rows are in order of time but for steps of the clock, which only make one stay longer.
    let sql = "DELETE FROM laneway_requests \
               WHERE id IN (SELECT id FROM laneway_requests ORDER BY id LIMIT ?1) AND at <= ?2";
    conn.prepare_cached(sql)?.execute(params![limit, now.wall.0 - REQUEST_KEPT_MS])?;
    Ok(())
}

//! Answers from lists of any length: as much as fits one message, and the rest told as left, so that the peer asks again.

use std::collections::BTreeSet;

use laneway_protocol::TaskId;
use laneway_protocol::codec::Room;
use laneway_protocol::limits::{BODY_BYTES_MAX, TEXT_BYTES_MAX, UNIQUE_KEY_BYTES_MAX};
use laneway_protocol::message::{Final, ProgressEvent, ScheduleRows, StatusRows, TaskRow};

use crate::limits::{ANSWER_LIST_BYTES, FINALS_BYTES_MAX};
use crate::outcome::{cut, cut_to};

/// Leaves out what finds no room: of a `listed` page its end, which comes with the next one; else rows to be asked for again.
pub(crate) fn rows(mut found: StatusRows, listed: bool) -> StatusRows {
    let mut room = Room::with_reserved(ANSWER_LIST_BYTES);
    found.rows.iter_mut().for_each(shorten);
    let n_rows = (0..found.rows.len()).find(|&n| !room.take_row(&mut found.rows[n])).unwrap_or(found.rows.len());
    // Even a row that is alone too large, its payloads say, would not be answered better by asking again.
    let left = found.rows.split_off(n_rows.max(1).min(found.rows.len()));
    if !listed {
        found.left.extend(left.iter().map(|row| row.id));
    } else if !left.is_empty() {
        found.next = found.rows.last().map(|row| row.id);
    }
    found
}

/// The end of a page without room comes with the next one; texts that apps have written at any length are cut.
pub(crate) fn schedules(mut found: ScheduleRows) -> ScheduleRows {
    let mut room = Room::with_reserved(ANSWER_LIST_BYTES);
    for row in &mut found.schedules {
        let names = [Some(&mut row.name), Some(&mut row.cron), Some(&mut row.time_zone), Some(&mut row.kind)];
        let names = names.into_iter().chain([row.lane.as_mut(), row.unique_key.as_mut(), Some(&mut row.catch_up)]);
        names.flatten().for_each(|name| cut_to(name, UNIQUE_KEY_BYTES_MAX));
        row.error.iter_mut().for_each(|error| cut_to(error, TEXT_BYTES_MAX));
    }
    if let Some(n_rows) = found.schedules.iter_mut().position(|row| !room.take_schedule(row)) {
        found.schedules.truncate(n_rows.max(1));
        found.next = found.schedules.last().map(|row| row.name.clone());
    }
    found
}

/// Cuts what an app or a handler may have written at any length, so that each row fits an answer of its own.
fn shorten(row: &mut TaskRow) {
    let names = [Some(&mut row.kind), row.lane.as_mut(), row.unique_key.as_mut(), row.worker.as_mut()];
    names.into_iter().chain([row.trace.as_mut()]).flatten().for_each(|name| cut_to(name, UNIQUE_KEY_BYTES_MAX));
    let texts = [row.error.as_mut(), row.progress_note.as_mut(), row.explain.as_mut()];
    texts.into_iter().flatten().for_each(|text| cut_to(text, TEXT_BYTES_MAX));
    row.failures.iter_mut().for_each(|failure| cut_to(&mut failure.error, TEXT_BYTES_MAX));
    // The newest say more than the oldest.
    while !Room::with_reserved(ANSWER_LIST_BYTES).take_row(row) && !row.failures.is_empty() {
        row.failures.remove(0);
    }
}

/// What of an answer to those who wait finds room.
pub(crate) struct Told {
    pub(crate) finals: Vec<Final>,
    /// Events in order, and whether some were left out at the end.
    pub(crate) events: Vec<ProgressEvent>,
    pub(crate) cut_short: bool,
}

/// As many events as fit in two thirds of the room, in order, then ends. An end without room is pending again, and so is one of
/// a task of which an event was left out: whoever hears the end asks no more.
pub(crate) fn told<'a>(
    finals: Vec<Final>,
    mut events: impl Iterator<Item = &'a ProgressEvent>,
    pending: &mut BTreeSet<TaskId>,
) -> Told {
    let mut room = Room::with_reserved(ANSWER_LIST_BYTES);
    let (events_told, left) = with_room(&mut room, &mut events);
    let left_out: BTreeSet<TaskId> = left.into_iter().chain(events).map(|event| event.task).collect();
    let mut told = Told { finals: Vec::with_capacity(finals.len()), events: events_told, cut_short: left.is_some() };
    let mut bytes = 0;
    for mut ended in finals {
        if left_out.contains(&ended.task) || !has_room(&told, &mut room, &mut bytes, &mut ended) {
            pending.insert(ended.task);
        } else {
            told.finals.push(ended);
        }
    }
    told
}

/// The same of a group, with the end of its last task when the group has ended. Whoever hears that nothing is pending asks no more,
/// so while an event was left out, or the end, something is.
pub(crate) fn told_of_group<'a>(
    last: Option<Final>,
    mut events: impl Iterator<Item = &'a ProgressEvent>,
    pending: &mut BTreeSet<TaskId>,
) -> Told {
    let mut room = Room::with_reserved(ANSWER_LIST_BYTES);
    let (events, left) = with_room(&mut room, &mut events);
    let mut told = Told { finals: Vec::new(), events, cut_short: left.is_some() };
    match (left, last) {
        (Some(event), _) if pending.is_empty() => _ = pending.insert(event.task),
        (None, Some(mut ended)) if pending.is_empty() => {
            if has_room(&told, &mut room, &mut 0, &mut ended) {
                told.finals.push(ended);
            } else {
                pending.insert(ended.task);
            }
        }
        _ => {}
    }
    told
}

/// The events that fit, and the first that does not. Nothing behind that is looked at.
fn with_room<'a>(
    room: &mut Room,
    events: &mut impl Iterator<Item = &'a ProgressEvent>,
) -> (Vec<ProgressEvent>, Option<&'a ProgressEvent>) {
    let mut for_events = Room::with_reserved(ANSWER_LIST_BYTES + BODY_BYTES_MAX / 4);
    let mut told = Vec::new();
    for event in events {
        let mut copy = event.clone();
        if !(for_events.take_event(&mut copy) && room.take_event(&mut copy)) {
            return (told, Some(event));
        }
        told.push(copy);
    }
    (told, None)
}

/// Whether an end fits beside what is told; `bytes` are those of the results until then. What is too large for any answer is told
/// alone.
fn has_room(told: &Told, room: &mut Room, bytes: &mut usize, ended: &mut Final) -> bool {
    *bytes += ended.result.as_ref().map_or(0, |result| result.bytes.len());
    ended.error = ended.error.take().map(cut);
    let fits = *bytes <= FINALS_BYTES_MAX && room.take_final(ended);
    fits || (told.finals.is_empty() && told.events.is_empty())
}

//! Answers from lists of any length: as much as fits one message, and the rest told as left, so that the peer asks again.

use std::collections::BTreeSet;

use laneway_protocol::TaskId;
use laneway_protocol::codec::Room;
use laneway_protocol::limits::{TEXT_BYTES_MAX, UNIQUE_KEY_BYTES_MAX};
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
    names.into_iter().flatten().for_each(|name| cut_to(name, UNIQUE_KEY_BYTES_MAX));
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

/// Ends first: those without room are pending again. Then as many events as fit behind them.
pub(crate) fn told(finals: Vec<Final>, events: Vec<ProgressEvent>, pending: &mut BTreeSet<TaskId>) -> Told {
    let mut room = Room::with_reserved(ANSWER_LIST_BYTES);
    let mut told = Told { finals: Vec::with_capacity(finals.len()), events: Vec::new(), cut_short: false };
    let mut bytes = 0;
    for mut ended in finals {
        bytes += ended.result.as_ref().map_or(0, |result| result.bytes.len());
        ended.error = ended.error.map(cut);
        if (bytes <= FINALS_BYTES_MAX && room.take_final(&mut ended)) || told.finals.is_empty() {
            told.finals.push(ended);
        } else {
            pending.insert(ended.task);
        }
    }
    for mut event in events {
        if !room.take_event(&mut event) {
            told.cut_short = true;
            break;
        }
        told.events.push(event);
    }
    told
}

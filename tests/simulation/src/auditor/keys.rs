//! Unique keys, as they are asked for: a submit is answered with the one task that has its key, or had it within its window; it is
//! refused only for one; equal payloads have one key, others have another.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{Op, OpId, OpResult};
use laneway_protocol::TaskState;
use laneway_protocol::message::{NewTask, OnConflict, Stored, Submit, Submitted};

use super::{Auditor, id};
use crate::row::Row;

type Request = [u8; 16];

#[derive(Debug, Default)]
pub(super) struct Keys {
    /// What was ever asked to be stored.
    asked: BTreeMap<Request, Submit>,
    /// On its way to the store.
    on_way: BTreeMap<OpId, Request>,
    /// What the turn that is being looked at says of submits.
    said: Vec<(Request, OpResult)>,
    /// The same said again is about rows of long ago.
    said_before: BTreeSet<Request>,
    /// What the store said of each: once, unless the clock has jumped over the time for which it knows a request.
    stored: BTreeMap<Request, Vec<Vec<Stored>>>,
    /// Of each, the tasks that had ended before it came.
    ended: BTreeMap<Request, BTreeSet<i64>>,
    /// The keys of payloads.
    derived: BTreeMap<Option<Vec<u8>>, String>,
}

impl Auditor {
    pub(super) fn keys_on_start(&mut self) {
        self.keys.on_way.clear();
    }

    /// What is left may know more of these requests, or less.
    pub(super) fn keys_on_power_loss(&mut self) {
        self.keys.said_before.extend(self.keys.asked.keys());
    }

    pub(super) fn on_submit_asked(&mut self, submit: &Submit) {
        self.keys.asked.insert(submit.request.0, submit.clone());
    }

    /// Who waits is told of a result from before it came, unless something stood in the way for all the time.
    pub(super) fn check_submitted(&mut self, submit: &Submit, told: &Submitted) {
        let stored = self.keys.stored.get(&submit.request.0);
        if !stored.is_some_and(|stored| stored.contains(&told.tasks)) {
            self.fail(format!("{submit:?} is answered with {:?}, and became {stored:?}", told.tasks));
        }
        let wrong = told.finals.iter().find(|end| {
            let task = id(end.task);
            let result = end.result.as_ref().map(|result| String::from_utf8_lossy(&result.bytes).into_owned());
            let is_it = |row: &Row| row.state == TaskState::Done && row.result == result;
            let is_right = end.state != TaskState::Done || self.rows.get(&task).is_some_and(is_it);
            let is_asked = told.tasks.iter().any(|stored| stored.task == end.task);
            !(is_asked && (is_right || self.is_gone(task) || self.requeued.contains(&task)))
        });
        if let Some(end) = wrong {
            self.fail(format!("{submit:?} is answered with {end:?}, its row is {:?}", self.rows.get(&id(end.task))));
        }
        let is_told = |task: &i64| {
            let is_stored = told.tasks.iter().any(|stored| id(stored.task) == *task);
            !is_stored || told.finals.iter().any(|end| id(end.task) == *task)
        };
        let ended = self.keys.ended.get(&submit.request.0).into_iter().flatten();
        let untold =
            ended.copied().find(|task| !is_told(task) && !self.is_gone(*task) && !self.requeued.contains(task));
        let is_excused = submit.wait_ms == 0 || self.disturbed + submit.wait_ms > self.now;
        if let Some(task) = untold.filter(|_| !is_excused) {
            self.fail(format!("{submit:?} waits and is not told how task {task} has ended: {told:?}"));
        }
    }

    pub(super) fn keys_on_op(&mut self, number: Option<OpId>, op: &Op) {
        if let (Some(number), Op::Submit { request, .. }) = (number, op) {
            self.keys.on_way.insert(number, request.0);
        }
    }

    pub(super) fn keys_on_report(&mut self, number: OpId, result: &OpResult) {
        if let Some(request) = self.keys.on_way.remove(&number) {
            self.keys.said.push((request, result.clone()));
        }
    }

    /// What a turn has stored and met. Gives the tasks that it says were replaced, each with the last that took its place.
    pub(super) fn check_keys(&mut self, before: &BTreeMap<i64, Row>) -> BTreeMap<i64, NewTask> {
        let mut replacing: BTreeMap<i64, NewTask> = BTreeMap::new();
        for (request, result) in std::mem::take(&mut self.keys.said) {
            let Some(submit) = self.keys.asked.get(&request).cloned() else { continue };
            let stored = match result {
                OpResult::Submitted(stored) | OpResult::SubmittedGroup(stored, _) => stored,
                OpResult::Refused { index, field: "on_conflict", .. } => {
                    self.check_refused(before, &submit, index);
                    continue;
                }
                OpResult::Refused { index, field: "group", .. } => {
                    self.check_group_refused(submit.tasks[index].group);
                    continue;
                }
                _ => continue,
            };
            self.keys.stored.entry(request).or_default().push(stored.clone());
            let again = !self.keys.said_before.insert(request);
            for (task, stored) in submit.tasks.iter().zip(stored) {
                let at = id(stored.task);
                if self.touched.contains(&at) {
                    continue;
                }
                if again {
                    // The row that has taught the key of its payload may be gone with the first saying.
                    let shown = self.rows.get(&at).and_then(|row| row.unique_key.clone());
                    self.key_of(task, shown.as_deref());
                    // A power cut may have taken it back, so that it is done once more.
                    let is_done = |old: &Row| {
                        let waits = |row: &&Row| row.state == TaskState::Queued && row.runs == old.runs;
                        let row = self.rows.get(&at).filter(waits).filter(|_| waits(&old));
                        row.is_some_and(|row| row != old && row.payload == payload_of(task))
                    };
                    if stored.replaced && before.get(&at).is_some_and(is_done) {
                        replacing.insert(at, task.clone());
                    }
                    continue;
                }
                if let Some(wrong) = self.wrong_stored(before, task, stored) {
                    let (old, row) = (before.get(&at), self.rows.get(&at));
                    self.fail(format!("{task:?} is answered with {stored:?}, {wrong}: {old:?} became {row:?}"));
                }
                let is_over = |rows: &BTreeMap<i64, Row>| rows.get(&at).is_some_and(|row| row.state.is_final());
                if is_over(before) && is_over(&self.rows) {
                    self.keys.ended.entry(request).or_default().insert(at);
                }
                if stored.replaced {
                    replacing.insert(at, task.clone());
                }
            }
        }
        replacing
    }

    /// What is not as it should be with a task that stands for one to be.
    fn wrong_stored(&mut self, before: &BTreeMap<i64, Row>, task: &NewTask, stored: Stored) -> Option<&'static str> {
        let at = id(stored.task);
        let (old, new) = (before.get(&at), self.rows.get(&at).cloned());
        let row = new.clone().or_else(|| old.cloned())?;
        if row.kind != task.kind.as_str() {
            return Some("which has another kind");
        }
        let key = self.key_of(task, row.unique_key.as_deref());
        if key != row.unique_key {
            return Some("which has another key");
        }
        let window = self.window_of(task);
        let twin = self.newest_with(&row, at).filter(|(twin, _)| before.contains_key(twin));
        if stored.new {
            let stands = |row: &Row| row.state == TaskState::Done && row.ended_at > window;
            return if old.is_some() {
                Some("which was there")
            } else if row.payload != payload_of(task) {
                Some("with another payload")
            } else if twin.is_some_and(|(twin, row)| stands(row) && !self.touched.contains(&twin)) {
                Some("and a finished one stands within its window")
            } else {
                None
            };
        }
        let is_live = |row: Option<&Row>| row.is_some_and(|row| !row.state.is_final());
        let lives = old.is_none() || is_live(old) || is_live(new.as_ref());
        let in_window = row.state == TaskState::Done && row.ended_at > window && twin.is_none_or(|(twin, _)| twin < at);
        if lives {
            self.tally.met += 1;
        } else {
            self.tally.met_done += 1;
        }
        if task.on_conflict == OnConflict::Reject {
            Some("and would not meet any")
        } else if stored.replaced && task.on_conflict != OnConflict::Replace {
            Some("and replaces nothing")
        } else {
            (!lives && !in_window).then_some("which has ended, and not within the window")
        }
    }

    /// A submit was refused because a key was taken.
    fn check_refused(&mut self, before: &BTreeMap<i64, Row>, submit: &Submit, index: usize) {
        self.tally.rejected += 1;
        let task = &submit.tasks[index];
        let (key, window) = (self.key_of(task, None), self.window_of(task));
        let has_key = |row: &Row| key.is_some() && row.kind == task.kind.as_str() && row.unique_key == key;
        let stands = |row: &Row| !row.state.is_final() || (row.state == TaskState::Done && row.ended_at > window);
        // One that came in this turn may have ended in it.
        let mut stood = before.values().any(|row| has_key(row) && stands(row));
        stood |= self.rows.iter().any(|(task, row)| has_key(row) && (stands(row) || !before.contains_key(task)));
        let word = |task: &NewTask| {
            let by_payload = task.unique_by_payload.then(|| task.payload.clone());
            (task.kind.clone(), task.unique_key.clone(), by_payload)
        };
        let own = submit.tasks[..index].iter().any(|other| word(other) == word(task));
        if task.on_conflict != OnConflict::Reject || !(own || stood) {
            self.fail(format!("{task:?} is refused for a key that nobody has"));
        }
    }

    /// As it was asked for. The key of a payload is learnt from the first row that has it.
    fn key_of(&mut self, task: &NewTask, shown: Option<&str>) -> Option<String> {
        if !task.unique_by_payload {
            return task.unique_key.clone();
        }
        let payload = task.payload.as_ref().map(|payload| payload.bytes.clone());
        if let Some(known) = self.keys.derived.get(&payload) {
            return Some(known.clone());
        }
        let shown = shown.filter(|shown| !self.keys.derived.values().any(|other| other == shown))?;
        self.keys.derived.insert(payload, shown.to_owned());
        Some(shown.to_owned())
    }

    /// What was done after this stands for a task to be.
    fn window_of(&self, task: &NewTask) -> i64 {
        let ms = task.unique_for_ms.and_then(|ms| i64::try_from(ms).ok());
        ms.map_or(i64::MAX, |ms| self.waiting.begun.0 - ms)
    }

    /// The newest of the other rows with the key of this one.
    fn newest_with(&self, row: &Row, but: i64) -> Option<(i64, &Row)> {
        let same =
            |other: &Row| row.unique_key.is_some() && (&other.kind, &other.unique_key) == (&row.kind, &row.unique_key);
        self.rows.iter().rev().find(|(task, other)| **task != but && same(other)).map(|(task, row)| (*task, row))
    }
}

/// As its row is to have it.
pub(super) fn payload_of(task: &NewTask) -> Option<String> {
    task.payload.as_ref().map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned())
}

//! The model's schedules: rows and slots in maps, and what the triggers of the schema do.

use std::sync::Arc;

use laneway_core::{Now, OpResult, UnixMillis};
use laneway_protocol::message::{NewSchedule, ScheduleRow, ScheduleRows, Schedules, Stored};
use rusqlite::types::Value;

use super::cells::{int, payload, sql, sql_payload, task_id, text};
use super::{Apps, Cells, Step};
use crate::schedule;
use crate::store::Bad;
use crate::store::schedules::{
    Due, Fired, FiredSlot, PAGE_ROWS, ROWS_PER_TURN, SCHEDULES_MAX, SLOTS_KEPT, Schedule, Verdict, WRONG_PER_TURN,
    judge_new, too_many,
};

/// The columns of `schedules`, but for the id, with their defaults.
pub(crate) const SCHEDULE_COLUMNS: [(&str, Value); 17] = [
    ("name", Value::Null),
    ("cron", Value::Null),
    ("time_zone", Value::Null),
    ("kind", Value::Null),
    ("lane", Value::Null),
    ("unique_key", Value::Null),
    ("max_attempts", Value::Null),
    ("timeout_ms", Value::Null),
    ("catch_up", Value::Null),
    ("catch_up_max", Value::Null),
    ("paused", Value::Integer(0)),
    ("created_at", Value::Integer(0)),
    ("next_at", Value::Null),
    ("last_at", Value::Null),
    ("last_task", Value::Null),
    ("error", Value::Null),
    ("payload", Value::Null),
];

/// What the trigger looks at.
const OF_APPS: [&str; 11] = [
    "cron",
    "time_zone",
    "kind",
    "lane",
    "unique_key",
    "max_attempts",
    "timeout_ms",
    "catch_up",
    "catch_up_max",
    "paused",
    "payload",
];

impl Apps {
    pub(crate) fn insert_schedule(&self, cells: &[(&'static str, Value)]) -> i64 {
        let mut db = self.db();
        db.newest_schedule += 1;
        let id = db.newest_schedule;
        let mut row: Cells = SCHEDULE_COLUMNS.into_iter().collect();
        row.insert("time_zone", Value::Text("UTC".into()));
        row.insert("catch_up", Value::Text("one".into()));
        row.extend(cells.iter().cloned());
        db.schedules.insert(id, Arc::new(row));
        id
    }

    pub(crate) fn update_schedule(&self, id: i64, cells: &[(&'static str, Value)]) {
        if let Some(row) = self.db().schedules.get_mut(&id).map(Arc::make_mut) {
            change(row, cells);
        }
    }

    pub(crate) fn delete_schedule(&self, id: i64) {
        let mut db = self.db();
        db.schedules.remove(&id);
        db.slots.retain(|(schedule, _), _| *schedule != id);
    }

    /// Without a commit.
    pub(crate) fn schedules(&self) -> std::collections::BTreeMap<i64, Cells> {
        let db = self.0.lock().unwrap();
        db.schedules.iter().map(|(id, row)| (*id, Cells::clone(row))).collect()
    }

    /// Schedule, slot, task, and whether that was new.
    pub(crate) fn slots(&self) -> Vec<(i64, i64, i64, bool)> {
        let db = self.0.lock().unwrap();
        db.slots.iter().map(|((schedule, slot), (task, new))| (*schedule, *slot, *task, *new)).collect()
    }
}

/// An UPDATE with its trigger.
pub(super) fn change(row: &mut Cells, cells: &[(&'static str, Value)]) {
    let old = row.clone();
    row.extend(cells.iter().cloned());
    if !cells.iter().any(|(column, _)| OF_APPS.contains(column)) {
        return;
    }
    row.insert("error", Value::Null);
    let resumed = int(&old, "paused") > int(row, "paused");
    if old["cron"] != row["cron"] || old["time_zone"] != row["time_zone"] || resumed {
        row.insert("next_at", Value::Null);
    }
}

impl Step<'_> {
    pub(super) fn look_at_errors_anew(&mut self) {
        for row in self.db.schedules.values_mut() {
            Arc::make_mut(row).insert("error", Value::Null);
        }
    }

    pub(super) fn fire(&mut self, slots: usize, now: Now) -> Fired {
        let (mut fired, mut left) = (Fired::default(), slots);
        self.mend(now);
        for _ in 0..ROWS_PER_TURN {
            match self.first() {
                None => break,
                Some((Some(at), _)) if at > now.wall.0 || left == 0 => break,
                Some(_) if fired.wrong.len() >= WRONG_PER_TURN => break,
                Some((_, id)) => left -= self.one(id, left, now, &mut fired),
            }
        }
        let first = self.first();
        fired.more = first.is_some_and(|(next_at, _)| next_at.is_none());
        fired.next_at = first.and_then(|(next_at, _)| next_at).map(UnixMillis);
        fired
    }

    /// The one that comes first, none before all numbers.
    fn first(&self) -> Option<(Option<i64>, i64)> {
        let live = |row: &&Cells| int(row, "paused") == Some(0) && row["error"] == Value::Null;
        let rows = self.db.schedules.iter().map(|(id, row)| (id, &**row));
        rows.filter(|(_, row)| live(row)).map(|(id, row)| (int(row, "next_at"), *id)).min()
    }

    fn mend(&mut self, now: Now) {
        for row in self.db.schedules.values_mut() {
            let last = int(row, "last_at").map(UnixMillis);
            if last.is_some_and(|last| schedule::is_absurd(last, now.wall)) && int(row, "next_at") > last.map(|at| at.0)
            {
                Arc::make_mut(row).insert("next_at", Value::Null);
            }
        }
    }

    fn one(&mut self, id: i64, slots: usize, now: Now, fired: &mut Fired) -> usize {
        let schedule = read(id, &self.db.schedules[&id]);
        match schedule.verdict(self.judge, now) {
            Ok(Verdict::Planned(at)) => {
                self.set(id, "next_at", Value::Integer(at.0));
                0
            }
            Ok(Verdict::Due(due)) => self.fire_due(&schedule, &due, slots, now, fired),
            Err(bad) => {
                self.wrong(&schedule, &bad, fired);
                0
            }
        }
    }

    fn fire_due(&mut self, schedule: &Schedule, due: &Due, slots: usize, now: Now, fired: &mut Fired) -> usize {
        for slot in due.slots.iter().take(slots) {
            if self.db.slots.contains_key(&(schedule.id, slot.0)) {
                continue;
            }
            let stored = match self.standing(&due.task, now) {
                Some(twin) => Stored::met(task_id(twin)),
                None => self.insert(&due.task, false, None, now),
            };
            self.db.slots.insert((schedule.id, slot.0), (sql(stored.task), stored.new));
            self.set(schedule.id, "last_at", Value::Integer(slot.0));
            self.set(schedule.id, "last_task", Value::Integer(sql(stored.task)));
            let (task, new) = (stored.task, stored.new);
            fired.slots.push(FiredSlot { schedule: schedule.name.clone(), slot: *slot, task, new });
            let own: Vec<i64> = self.db.slots.keys().filter(|key| key.0 == schedule.id).map(|key| key.1).collect();
            for old in own.iter().take(own.len().saturating_sub(SLOTS_KEPT)) {
                self.db.slots.remove(&(schedule.id, *old));
            }
        }
        let next = due.slots.get(slots).copied().or(due.next_at);
        self.set(schedule.id, "next_at", next.map_or(Value::Null, |at| Value::Integer(at.0)));
        if next.is_none() {
            self.wrong(schedule, &schedule.over(), fired);
        }
        due.slots.len().min(slots)
    }

    pub(super) fn ask_schedules(&mut self, asked: &Schedules, now: Now) -> OpResult {
        let mut found = ScheduleRows::default();
        if let Some(new) = &asked.put {
            let full = self.id_of(&new.name).is_none() && self.db.schedules.len() >= SCHEDULES_MAX;
            let judged = if full { Err(too_many()) } else { judge_new(new, self.judge, now) };
            if let Err(Bad { field, reason }) = judged {
                return OpResult::Refused { index: 0, field, reason };
            }
            self.put_schedule(new, now);
            found.schedules.extend(self.shown(&new.name, false));
        }
        for (names, paused) in [(&asked.pause, 1), (&asked.resume, 0)] {
            for name in names {
                if let Some(id) = self.id_of(name) {
                    let row = self.db.schedules.get_mut(&id).map(Arc::make_mut).unwrap();
                    change(row, &[("paused", Value::Integer(paused))]);
                }
                match self.shown(name, false) {
                    Some(row) => found.schedules.push(row),
                    None => found.not_found.push(name.clone()),
                }
            }
        }
        for name in &asked.remove {
            match self.id_of(name) {
                Some(id) => {
                    self.db.schedules.remove(&id);
                    self.db.slots.retain(|(schedule, _), _| *schedule != id);
                }
                None => found.not_found.push(name.clone()),
            }
        }
        match &asked.name {
            _ if asked.is_change() => {}
            Some(name) => match self.shown(name, true) {
                Some(row) => found.schedules.push(row),
                None => found.not_found.push(name.clone()),
            },
            None => {
                let mut names: Vec<&str> = self.db.schedules.values().filter_map(|row| text(row, "name")).collect();
                names.sort_unstable();
                names.retain(|name| asked.after.as_deref().is_none_or(|after| *name > after));
                names.truncate(PAGE_ROWS);
                found.next = (names.len() == PAGE_ROWS).then(|| names[PAGE_ROWS - 1].to_owned());
                found.schedules = names.iter().filter_map(|name| self.shown(name, false)).collect();
            }
        }
        OpResult::Schedules(found)
    }

    fn put_schedule(&mut self, new: &NewSchedule, now: Now) {
        let text = |text: &str| Value::Text(text.to_owned());
        let maybe = |value: Option<i64>| value.map_or(Value::Null, Value::Integer);
        let cells = [
            ("cron", text(&new.cron)),
            ("time_zone", text(new.time_zone.as_deref().unwrap_or("UTC"))),
            ("kind", text(new.kind.as_str())),
            ("lane", new.lane.as_ref().map_or(Value::Null, |lane| text(lane.as_str()))),
            ("unique_key", new.unique_key.as_deref().map_or(Value::Null, text)),
            ("max_attempts", maybe(new.max_attempts.map(i64::from))),
            ("timeout_ms", maybe(new.timeout_ms.map(|ms| i64::try_from(ms).unwrap()))),
            ("catch_up", text(new.catch_up.unwrap_or(laneway_protocol::message::CatchUp::One).as_str())),
            ("catch_up_max", maybe(new.catch_up_max.map(i64::from))),
            ("payload", sql_payload(new.payload.as_ref())),
        ];
        if let Some(id) = self.id_of(&new.name) {
            return change(self.db.schedules.get_mut(&id).map(Arc::make_mut).unwrap(), &cells);
        }
        self.db.newest_schedule += 1;
        let mut row: Cells = SCHEDULE_COLUMNS.into_iter().collect();
        row.extend(cells);
        row.extend([("name", text(&new.name)), ("created_at", Value::Integer(now.wall.0))]);
        self.db.schedules.insert(self.db.newest_schedule, Arc::new(row));
    }

    fn id_of(&self, name: &str) -> Option<i64> {
        self.db.schedules.iter().find(|(_, row)| text(row, "name") == Some(name)).map(|(id, _)| *id)
    }

    fn shown(&self, name: &str, detail: bool) -> Option<ScheduleRow> {
        let row = &self.db.schedules[&self.id_of(name)?];
        let owned = |column| text(row, column).map(str::to_owned);
        let small = |column| int(row, column).and_then(|n| u32::try_from(n).ok());
        Some(ScheduleRow {
            name: name.to_owned(),
            cron: owned("cron")?,
            time_zone: owned("time_zone").unwrap_or_else(|| "UTC".into()),
            kind: owned("kind")?,
            lane: owned("lane"),
            unique_key: owned("unique_key"),
            max_attempts: small("max_attempts"),
            timeout_ms: int(row, "timeout_ms").map(i64::unsigned_abs),
            catch_up: owned("catch_up").unwrap_or_else(|| "one".into()),
            catch_up_max: small("catch_up_max"),
            paused: int(row, "paused") == Some(1),
            created_at: int(row, "created_at").unwrap_or(0),
            next_at: int(row, "next_at"),
            last_at: int(row, "last_at"),
            last_task: int(row, "last_task").map(task_id),
            error: owned("error"),
            payload: payload(&row["payload"]).filter(|_| detail),
        })
    }

    fn wrong(&mut self, schedule: &Schedule, bad: &Bad, fired: &mut Fired) {
        self.set(schedule.id, "error", Value::Text(bad.reason.clone()));
        fired.wrong.push((schedule.name.clone(), bad.reason.clone()));
    }

    fn set(&mut self, id: i64, column: &'static str, value: Value) {
        self.db.schedules.get_mut(&id).map(Arc::make_mut).unwrap().insert(column, value);
    }
}

pub(super) fn read(id: i64, row: &Cells) -> Schedule {
    let owned = |column| text(row, column).map(str::to_owned);
    Schedule {
        id,
        name: owned("name").unwrap(),
        cron: owned("cron").unwrap(),
        time_zone: owned("time_zone"),
        kind: owned("kind").unwrap(),
        lane: owned("lane"),
        unique_key: owned("unique_key"),
        max_attempts: int(row, "max_attempts"),
        timeout_ms: int(row, "timeout_ms"),
        catch_up: owned("catch_up"),
        catch_up_max: int(row, "catch_up_max"),
        payload: payload(&row["payload"]),
        next_at: int(row, "next_at").map(UnixMillis),
        last_at: int(row, "last_at").map(UnixMillis),
    }
}

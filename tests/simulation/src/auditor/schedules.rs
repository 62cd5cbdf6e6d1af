//! Slots of schedules: each is fired once for ever and makes a task that stays, none is left out but by the policy of its
//! schedule, and whatever is due is fired in the turn that sees it.

use std::collections::{BTreeMap, BTreeSet};

use laneway_broker::internals::{Table, Value};

use super::Auditor;
use crate::schedules::seconds_of;

type Cells = BTreeMap<&'static str, Value>;

#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Every slot ever fired, of schedules that are there: the task, and whether it was new.
    fired: BTreeMap<(i64, i64), (i64, bool)>,
    /// The last slot of each schedule that no app has changed since.
    last: BTreeMap<i64, i64>,
    going: BTreeSet<i64>,
}

impl Auditor {
    pub(crate) fn on_schedule_changed(&mut self, id: i64) {
        self.cron_on_app(id);
        self.forget_last_slot(id);
    }

    pub(crate) fn on_schedule_deleted(&mut self, id: i64) {
        self.cron_on_app(id);
        self.forget_slots(id);
    }

    /// Somebody wants it deleted: a power cut may have done it, though nobody was told.
    pub(super) fn may_go(&mut self, id: i64) {
        self.slots.going.insert(id);
    }

    pub(super) fn forget_last_slot(&mut self, id: i64) {
        self.slots.last.remove(&id);
    }

    pub(super) fn forget_slots(&mut self, id: i64) {
        self.slots.last.remove(&id);
        self.slots.fired.retain(|(schedule, _), _| *schedule != id);
    }

    pub(super) fn slots_on_commit(&mut self, table: &Table, synced: bool) {
        let (now, schedules) = (self.waiting.begun.0, table.schedules());
        let shown: BTreeMap<(i64, i64), (i64, bool)> =
            table.slots().into_iter().map(|(schedule, slot, task, new)| ((schedule, slot), (task, new))).collect();
        self.no_slot_changes(&shown);
        let mut fresh: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for ((schedule, slot), made) in &shown {
            if self.slots.fired.contains_key(&(*schedule, *slot)) {
                continue;
            }
            fresh.entry(*schedule).or_default().push(*slot);
            self.tally.slots += 1;
            self.task_of_slot(*slot, *made, schedules.get(schedule));
        }
        if !fresh.is_empty() && !synced {
            self.fail(format!("slots were fired without a sync: {fresh:?}"));
        }
        for (id, slots) in fresh {
            match schedules.get(&id) {
                Some(schedule) => self.batch(id, schedule, &slots, now),
                None => self.fail(format!("slots {slots:?} of schedule {id}, which is not there")),
            }
        }
        self.slots.fired = shown;
        self.check_cron(table);
    }

    /// What the disk has kept is the truth from here on; commits of apps may be gone.
    pub(super) fn slots_on_power_loss(&mut self, table: &Table) {
        let left = table.slots().into_iter().map(|(schedule, slot, task, new)| ((schedule, slot), (task, new)));
        let left: BTreeMap<_, _> = left.collect();
        let there = table.schedules();
        for id in std::mem::take(&mut self.slots.going).into_iter().filter(|id| !there.contains_key(id)) {
            self.forget_slots(id);
        }
        self.no_slot_changes(&left);
        self.slots = Slots { fired: left, ..Slots::default() };
        self.check_cron(table);
    }

    fn no_slot_changes(&mut self, shown: &BTreeMap<(i64, i64), (i64, bool)>) {
        for (slot, made) in &self.slots.fired {
            if shown.get(slot) != Some(made) {
                let found = format!("slot {slot:?} had made {made:?} and now says {:?}", shown.get(slot));
                self.found.get_or_insert(found);
            }
        }
    }

    fn task_of_slot(&mut self, slot: i64, (task, new): (i64, bool), schedule: Option<&Cells>) {
        let key = schedule.and_then(|schedule| text(schedule, "unique_key"));
        let Some(row) = self.rows.get(&task) else { return self.fail(format!("slot {slot} made task {task}: no row")) };
        let found = if new {
            let other = self.slots.fired.iter().find(|(_, (other, new))| *new && *other == task);
            other.map(|other| format!("slot {slot} made task {task}, and so did {other:?}"))
        } else {
            let met = row.unique_key == key && key.is_some();
            (!met).then(|| format!("slot {slot} with the key {key:?} met {task}: {row:?}"))
        };
        if new {
            self.promises.stored.insert(task);
        }
        if let Some(found) = found {
            self.fail(found);
        }
    }

    /// The slots of one schedule that one turn has fired.
    fn batch(&mut self, id: i64, schedule: &Cells, slots: &[i64], now: i64) {
        let Some(ms) = text(schedule, "cron").and_then(|cron| seconds_of(&cron)).map(|seconds| seconds * 1_000) else {
            return self.fail(format!("schedule {id} fires and makes no sense: {schedule:?}"));
        };
        let newest = now - now.rem_euclid(ms);
        if slots.last() != Some(&newest) || slots.iter().any(|slot| slot % ms != 0) {
            self.fail(format!("schedule {id} fires {slots:?} at {now}, every {ms} ms"));
        }
        if int(schedule, "paused") != Some(0) {
            self.fail(format!("schedule {id} is paused and fires {slots:?}"));
        }
        let max = match text(schedule, "catch_up").as_deref() {
            Some("all") => int(schedule, "catch_up_max").unwrap_or(0),
            _ => 1,
        };
        let n_slots = i64::try_from(slots.len()).expect("they are few");
        let behind = self.slots.last.insert(id, newest).map_or(slots[0], |last| last + ms);
        // A gap before them is the policy's doing only when they are as many as it allows; between them there is none.
        if n_slots > max || (behind < slots[0] && n_slots < max) || slots.windows(2).any(|two| two[1] - two[0] != ms) {
            self.fail(format!("schedule {id} makes up for {slots:?}, at most {max}, the last was before {behind}"));
        }
    }

    /// The turn has looked at everything.
    pub(crate) fn schedules_when_whole(&mut self, table: &Table) {
        let now = self.waiting.begun.0;
        for (id, schedule) in table.schedules() {
            let live = int(&schedule, "paused") == Some(0) && text(&schedule, "error").is_none();
            if live && int(&schedule, "next_at").is_none_or(|at| at <= now) {
                self.fail(format!("schedule {id} was not looked at by {now}: {schedule:?}"));
            }
            if live && text(&schedule, "cron").and_then(|cron| seconds_of(&cron)).is_none() {
                self.fail(format!("schedule {id} makes no sense and says nothing: {schedule:?}"));
            }
        }
    }
}

fn text(cells: &Cells, column: &str) -> Option<String> {
    match &cells[column] {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn int(cells: &Cells, column: &str) -> Option<i64> {
    match cells[column] {
        Value::Integer(n) => Some(n),
        _ => None,
    }
}

//! Schedules that people change over the wire: what was answered is in the table, and stays there through a power cut, until somebody
//! changes it again.

use std::collections::BTreeMap;

use laneway_broker::internals::{Table, Value};
use laneway_core::{Event, Op, OpId, OpResult, ReplyTo};
use laneway_protocol::message::{NewSchedule, ScheduleRow, ScheduleRows, Schedules};

use super::Auditor;

type Cells = BTreeMap<&'static str, Value>;

#[derive(Debug, Default)]
pub(super) struct Cron {
    asking: Option<ReplyTo>,
    orders: BTreeMap<OpId, (ReplyTo, Schedules)>,
    /// Orders that are committed, by who waits for the answer.
    done: BTreeMap<ReplyTo, Vec<(String, Told)>>,
    /// By name. Nobody has changed it since, or is about to.
    told: BTreeMap<String, Told>,
    /// Ids of the names, when the turn began.
    ids: BTreeMap<String, i64>,
    /// All that the table has ever said of each.
    ever: BTreeMap<String, Vec<Cells>>,
}

/// What somebody relies on.
#[derive(Debug, Clone)]
enum Told {
    Put(Box<NewSchedule>),
    Paused(bool),
    Removed,
}

impl Told {
    fn holds(&self, row: Option<&Cells>) -> bool {
        let text = |text: &str| Value::Text(text.to_owned());
        let Some(row) = row else { return matches!(self, Told::Removed) };
        match self {
            Told::Removed => false,
            Told::Paused(paused) => row["paused"] == Value::Integer(i64::from(*paused)),
            Told::Put(new) => {
                row["cron"] == text(&new.cron)
                    && row["kind"] == text(new.kind.as_str())
                    && row["lane"] == new.lane.as_ref().map_or(Value::Null, |lane| text(lane.as_str()))
                    && row["unique_key"] == new.unique_key.as_deref().map_or(Value::Null, text)
                    && new.catch_up.is_none_or(|policy| row["catch_up"] == text(policy.as_str()))
                    && new.catch_up_max.is_none_or(|max| row["catch_up_max"] == Value::Integer(max.into()))
            }
        }
    }
}

impl Cron {
    fn see(&mut self, table: &Table) {
        for cells in table.schedules().into_values() {
            let Value::Text(name) = &cells["name"] else { continue };
            let ever = self.ever.entry(name.clone()).or_default();
            if !ever.contains(&cells) {
                ever.push(cells);
            }
        }
    }

    /// The question that the core deals with at this moment, if it is one.
    pub(super) fn asking(&self) -> Option<ReplyTo> {
        self.asking
    }

    /// What was said of it so far does not count any more.
    fn forget(&mut self, name: &String) {
        self.told.remove(name);
        self.done.values_mut().for_each(|changes| changes.retain(|(of, _)| of != name));
    }
}

impl Auditor {
    pub(super) fn cron_on_start(&mut self) {
        let Cron { told, ids, ever, .. } = std::mem::take(&mut self.cron);
        self.cron = Cron { told, ids, ever, ..Cron::default() };
    }

    pub(super) fn cron_on_asked(&mut self, reply: ReplyTo) {
        self.cron.asking = Some(reply);
    }

    pub(super) fn cron_on_turn(&mut self, table: &Table) {
        self.cron.ids = ids(table);
        self.cron.see(table);
    }

    /// What is shown of a schedule, and made into a task by who wants to run it now, is what the table has said of it.
    pub(super) fn check_schedules_shown(&mut self, rows: &ScheduleRows) {
        let wrong = rows.schedules.iter().find(|row| {
            let ever = self.cron.ever.get(&row.name).map_or(&[][..], Vec::as_slice);
            !ever.iter().any(|cells| is_shown(cells, row))
        });
        if let Some(row) = wrong {
            self.fail(format!(
                "{row:?} is shown, and the table has never said so: {:?}",
                self.cron.ever.get(&row.name)
            ));
        }
    }

    /// An app has changed or deleted a schedule, or is about to.
    pub(super) fn cron_on_app(&mut self, id: i64) {
        let name = self.cron.ids.iter().find(|(_, of)| **of == id).map(|(name, _)| name.clone());
        if let Some(name) = name {
            self.cron.forget(&name);
        }
    }

    pub(super) fn cron_on_op(&mut self, number: Option<OpId>, op: &Op) {
        let (Op::Schedules(asked), Some(number), Some(reply)) = (op, number, self.cron.asking) else { return };
        for (name, told) in changes(asked) {
            self.cron.told.remove(&name);
            if let (Told::Removed, Some(id)) = (told, self.cron.ids.get(&name).copied()) {
                self.may_go(id);
            }
        }
        self.cron.orders.insert(number, (reply, Schedules::clone(asked)));
    }

    /// A turn is committed and tells this, before it is looked at which slots it has fired.
    pub(super) fn cron_on_reports(&mut self, events: &[Event]) {
        let results = events.iter().filter_map(|event| match event {
            Event::Committed(results) => Some(results),
            _ => None,
        });
        for (number, result) in results.flatten() {
            let Some((reply, asked)) = self.cron.orders.remove(number) else { continue };
            let OpResult::Schedules(rows) = result else { continue };
            let mut changes = changes(&asked);
            changes.retain(|(name, _)| !rows.not_found.contains(name));
            for (name, told) in &changes {
                self.cron.forget(name);
                let Some(id) = self.cron.ids.get(name).copied() else { continue };
                if matches!(told, Told::Removed) {
                    self.forget_slots(id);
                } else {
                    self.forget_last_slot(id);
                }
            }
            self.cron.done.insert(reply, changes);
        }
    }

    pub(super) fn cron_on_answer(&mut self, reply: ReplyTo) {
        for (name, told) in self.cron.done.remove(&reply).unwrap_or_default() {
            // Whoever has changed it in between has asked after this one.
            let later = self.cron.orders.values().any(|(_, asked)| changes(asked).iter().any(|(of, _)| *of == name));
            if !later {
                self.tally.schedules_told += 1;
                self.cron.told.insert(name, told);
            }
        }
    }

    /// The table as it is, after a commit or a power cut.
    pub(super) fn check_cron(&mut self, table: &Table) {
        let schedules = table.schedules();
        self.cron.ids = ids(table);
        self.cron.see(table);
        let row = |name: &String| self.cron.ids.get(name).and_then(|id| schedules.get(id));
        let wrong = self.cron.told.iter().find(|(name, told)| !told.holds(row(name)));
        if let Some((name, told)) = wrong {
            self.found.get_or_insert(format!("schedule {name} is {:?}, and told was {told:?}", row(name)));
        }
    }
}

/// When it fires next is worked out behind what is shown, in the same turn.
fn is_shown(cells: &Cells, row: &ScheduleRow) -> bool {
    let text = |text: Option<&str>| text.map_or(Value::Null, |text| Value::Text(text.to_owned()));
    let payload = row.payload.as_ref().map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned());
    cells["cron"] == text(Some(&row.cron))
        && cells["kind"] == text(Some(&row.kind))
        && cells["lane"] == text(row.lane.as_deref())
        && cells["unique_key"] == text(row.unique_key.as_deref())
        && (payload.is_none() || cells["payload"] == text(payload.as_deref()))
        && cells["paused"] == Value::Integer(i64::from(row.paused))
}

/// Of each name the last word; of one that is put and then paused only that it is paused.
fn changes(asked: &Schedules) -> Vec<(String, Told)> {
    let put = asked.put.iter().map(|new| (new.name.clone(), Told::Put(new.clone())));
    let all = |names: &[String], told: Told| names.iter().map(|name| (name.clone(), told.clone())).collect::<Vec<_>>();
    let paused = all(&asked.pause, Told::Paused(true)).into_iter().chain(all(&asked.resume, Told::Paused(false)));
    put.chain(paused).chain(all(&asked.remove, Told::Removed)).collect()
}

fn ids(table: &Table) -> BTreeMap<String, i64> {
    let name = |cells: &Cells| if let Value::Text(name) = &cells["name"] { Some(name.clone()) } else { None };
    table.schedules().iter().filter_map(|(id, cells)| Some((name(cells)?, *id))).collect()
}

//! Schedules, as apps make, change and delete them while everything else goes wrong. Their slots are a second or a few apart,
//! so that a run sees many.

use laneway_broker::internals::Value;

use crate::plan::{KINDS, LANES};
use crate::world::World;

/// Seconds between two slots; each divides a minute, so that a slot is a multiple of it.
const SECONDS: [i64; 4] = [1, 2, 3, 5];
const SLOTS_MAX: [i64; 3] = [2, 5, 20];

/// Whether a slot belongs to the rhythm of an expression that [`World::work_on_schedules`] has written.
pub(crate) fn seconds_of(cron: &str) -> Option<i64> {
    cron.strip_prefix("*/")?.strip_suffix(" * * * * *")?.parse().ok()
}

impl World {
    /// What an app does to the schedules in its turn.
    pub(crate) fn work_on_schedules(&mut self) {
        if self.calm || self.plan.schedules == 0 {
            return;
        }
        let ids: Vec<i64> = self.table.schedules().keys().copied().collect();
        if ids.len() < self.plan.schedules && self.cron_random.chance(30) {
            return self.add_schedule();
        }
        if ids.is_empty() || !self.cron_random.chance(10) {
            return;
        }
        let id = *self.cron_random.pick(&ids);
        let cell = match self.cron_random.below(6) {
            0 => ("paused", Value::Integer(1)),
            1 | 2 => ("paused", Value::Integer(0)),
            3 => ("cron", self.cron()),
            4 => ("cron", Value::Text("61 * * * *".into())),
            _ => {
                self.note(format_args!("an app deletes schedule {id}"));
                self.table.delete_schedule(id);
                return self.auditor.on_schedule_deleted(id);
            }
        };
        self.note(format_args!("an app sets {cell:?} of schedule {id}"));
        self.table.update_schedule(id, &[cell]);
        self.auditor.on_schedule_changed(id);
    }

    fn add_schedule(&mut self) {
        let text = |text: &str| Value::Text(text.to_owned());
        self.schedules_made += 1;
        let random = &mut self.cron_random;
        let mut cells = vec![
            ("name", Value::Text(format!("s{}", self.schedules_made))),
            ("kind", text(random.pick::<&str>(&KINDS))),
            ("catch_up", text(random.pick::<&str>(&["skip", "one", "all", "all"]))),
            ("catch_up_max", Value::Integer(*random.pick(&SLOTS_MAX))),
        ];
        cells.extend(random.chance(40).then(|| ("lane", text(random.pick::<&str>(&LANES)))));
        cells.extend(random.chance(40).then(|| ("unique_key", text("slot"))));
        cells.push(("cron", self.cron()));
        let id = self.table.insert_schedule(&cells);
        self.note(format_args!("an app adds schedule {id} {cells:?}"));
    }

    fn cron(&mut self) -> Value {
        Value::Text(format!("*/{} * * * * *", self.cron_random.pick(&SECONDS)))
    }

    /// No more slots, so that everything comes to its end.
    pub(crate) fn pause_schedules(&mut self) {
        for id in self.table.schedules().into_keys() {
            self.table.update_schedule(id, &[("paused", Value::Integer(1))]);
            self.auditor.on_schedule_changed(id);
        }
    }
}

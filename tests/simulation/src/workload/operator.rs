//! Somebody who looks after the whole table: changes many tasks at once by what their rows say, and looks at what comes of it.

use laneway_broker::internals::Value;
use laneway_protocol::message::{
    AboutGroup, Bulk, BulkFilter, CatchUp, Change, Filter, KindValues, Kinds, NewSchedule, NewTask, Request,
    ScheduleRows, Schedules, SetKind, Status, Submit,
};
use laneway_protocol::{RequestId, TaskId};

use crate::plan::{FAIR_KEYS, KINDS, LANES, kind, lane};
use crate::random::Random;
use crate::row::Row;
use crate::world::{Peer, World};

impl World {
    pub(super) fn next_operation(&mut self, at: usize) -> Option<(Request, u64)> {
        if self.calm {
            return None;
        }
        if self.clients[at].rests_until > self.now {
            let ms = self.clients[at].rests_until - self.now;
            self.drive_in(ms, Peer::Client(at));
            return None;
        }
        if self.plan.fair && self.plan.crowd > 0 && self.now > self.plan.chaos_ms / 4 {
            self.let_crowd_in();
        }
        self.clients[at].rests_until = self.now + self.operator_random.between(30, 400);
        if let Some(number) = self.clients[at].batch.filter(|_| self.operator_random.chance(40)) {
            let stop = self.operator_random.chance(10);
            return Some((Request::Bulk(Bulk { batch: Some(number), stop, ..Bulk::default() }), 0));
        }
        let request = match self.operator_random.below(100) {
            ..25 => self.look_at_tasks(),
            25..40 => self.ask_of_group(),
            40..50 => self.set_counts(),
            50..60 => self.set_defaults(),
            60..75 if self.plan.schedules > 0 => self.change_schedules(),
            _ => self.change_many(),
        };
        Some((request, 0))
    }

    /// How many ended tasks of a kind are kept.
    fn set_counts(&mut self) -> Request {
        let random = &mut self.operator_random;
        let kind = kind(random.pick::<&str>(&KINDS));
        let mut count = || random.chance(60).then(|| random.below(4));
        let (done_count_max, cancelled_count_max, dead_count_max) = (count(), count(), count());
        let values = KindValues { done_count_max, cancelled_count_max, dead_count_max, ..KindValues::default() };
        Request::Kinds(Kinds { set: vec![SetKind { kind, values }], ..Kinds::default() })
    }

    /// What holds for those of a kind whose rows do not say.
    fn set_defaults(&mut self) -> Request {
        let random = &mut self.operator_random;
        let kind = kind(random.pick::<&str>(&KINDS));
        let values = KindValues {
            max_attempts: random.chance(50).then(|| *random.pick(&[1, 2, 4])),
            timeout_ms: random.chance(50).then(|| *random.pick(&[100, 400, 2_500])),
            backoff_base_ms: random.chance(50).then(|| *random.pick(&[0, 30, 200])),
            backoff_max_ms: random.chance(50).then(|| *random.pick(&[20, 100, 1_000])),
            ..KindValues::default()
        };
        Request::Kinds(Kinds { set: vec![SetKind { kind, values }], ..Kinds::default() })
    }

    /// Adds, changes, pauses, resumes or removes one of its own, or one of an app; or looks at them.
    fn change_schedules(&mut self) -> Request {
        let random = &mut self.operator_random;
        let name = (*random.pick(&["w1", "w2", "w3", "s1", "s2"])).to_owned();
        let mut asked = Schedules::default();
        match random.below(10) {
            ..5 if name.starts_with('w') => {
                let cron = format!("*/{} * * * * *", random.pick(&[1, 2, 3, 5]));
                let mut new = NewSchedule::new(name, cron, kind(random.pick::<&str>(&KINDS)), None);
                new.lane = random.chance(40).then(|| lane(random.pick::<&str>(&LANES)));
                new.unique_key = random.chance(40).then(|| "slot".to_owned());
                new.catch_up = Some(*random.pick(&[CatchUp::Skip, CatchUp::One, CatchUp::All]));
                new.catch_up_max = Some(*random.pick(&[2, 5, 20]));
                asked.put = Some(Box::new(new));
            }
            ..6 => asked.resume.push(name),
            6 => asked.pause.push(name),
            7 if random.chance(50) => asked.remove.push(name),
            _ => asked.name = random.chance(80).then_some(name),
        }
        Request::Schedules(asked)
    }

    /// A schedule that was looked at by its name is run beside its slots, as the dashboard does it: a task is made of what was told.
    pub(super) fn run_now(&mut self, rows: &ScheduleRows) -> Option<Request> {
        let [row] = &rows.schedules[..] else { return None };
        if !self.operator_random.chance(60) || row.error.is_some() {
            return None;
        }
        self.auditor.tally.run_now += 1;
        let mut task = NewTask::new(kind(&row.kind), row.payload.clone());
        task.lane = row.lane.as_deref().map(lane);
        task.unique_key.clone_from(&row.unique_key);
        let request = RequestId(self.operator_random.bytes());
        Some(Request::Submit(Submit { request, tasks: vec![task], wait_ms: 0, abandon: false, group: None }))
    }

    fn ask_of_group(&mut self) -> Request {
        let mut groups: Vec<i64> = self.auditor.rows.values().filter_map(|row| row.group).collect();
        groups.dedup();
        let random = &mut self.operator_random;
        if groups.is_empty() {
            return Request::Stats;
        }
        let group = random.pick(&groups).unsigned_abs();
        Request::Group(AboutGroup { group, cancel: random.chance(30) })
    }

    /// Once: more than the slots take at a time, so that keys have to take turns.
    fn let_crowd_in(&mut self) {
        let random = &mut self.operator_random;
        let text = |text: &str| Value::Text(text.to_owned());
        let (kind, lane) = (text(random.pick::<&str>(&KINDS)), text(random.pick::<&str>(&LANES)));
        for _ in 0..std::mem::take(&mut self.plan.crowd) {
            let key = text(self.operator_random.pick::<&str>(&FAIR_KEYS));
            let created_at = Value::Integer(self.clocks().wall.0);
            let cells = [("kind", kind.clone()), ("lane", lane.clone()), ("fair_key", key), ("created_at", created_at)];
            let id = self.table.insert(&cells);
            self.note(format_args!("one of a crowd: {id:?} {cells:?}"));
        }
        self.auditor.on_table(&self.table);
        self.scheduler_soon(1);
    }

    /// By their ids, some of which nobody has, or a page of those that are like a row.
    fn look_at_tasks(&mut self) -> Request {
        let rows: Vec<(i64, Row)> = self.auditor.rows.iter().map(|(id, row)| (*id, row.clone())).collect();
        let random = &mut self.operator_random;
        if rows.is_empty() || random.chance(50) {
            let newest = rows.last().map_or(0, |(id, _)| id.unsigned_abs());
            let tasks = (0..random.between(1, 16)).filter_map(|_| TaskId::new(random.between(1, newest + 1))).collect();
            return Request::Status(Status { tasks, filter: None, detail: random.chance(60) });
        }
        let (_, row) = random.pick(&rows);
        let filter = Filter {
            state: random.chance(50).then_some(row.state),
            kind: random.chance(30).then(|| row.kind.clone()),
            lane: row.rank.filter(|_| random.chance(30)).map(|rank| LANES[rank].to_owned()),
            group: row.group.filter(|_| random.chance(30)).and_then(|group| u64::try_from(group).ok()),
            before: random.chance(40).then(|| TaskId::new(random.pick(&rows).0.unsigned_abs())).flatten(),
            limit: *random.pick(&[0, 1, 3, 20]),
        };
        Request::Status(Status { tasks: Vec::new(), filter: Some(filter), detail: false })
    }

    /// Of what is like a row that is there.
    fn change_many(&mut self) -> Request {
        let rows: Vec<Row> = self.auditor.rows.values().cloned().collect();
        if rows.is_empty() {
            return Request::Ping;
        }
        let random = &mut self.operator_random;
        let filter = described(&rows[random.index(rows.len())], random);
        let change = *random.pick(&Change::ALL);
        let lane = (change == Change::Move).then(|| lane(random.pick::<&str>(&LANES)));
        let dry_run = random.chance(40);
        let bulk = Bulk { change: Some(change), lane, filter: Some(Box::new(filter)), dry_run, ..Bulk::default() };
        self.auditor.on_bulk(&bulk);
        Request::Bulk(bulk)
    }
}

/// What a row may be found by: some of what it says.
fn described(row: &Row, random: &mut Random) -> BulkFilter {
    let attempts = u32::try_from(row.attempts).expect("attempts are few");
    let mut filter = BulkFilter::default();
    for _ in 0..random.between(1, 3) {
        match random.below(11) {
            0 => filter.state = Some(row.state),
            1 => filter.kind = Some(row.kind.clone()),
            2 => filter.lane = row.rank.map(|rank| LANES[rank].to_owned()),
            3 => filter.older_ms = Some(random.below(1_500)),
            4 => filter.error = row.error.as_ref().and_then(|error| Some(error.split(' ').next_back()?.to_owned())),
            5 => filter.error_line = Some(row.error.clone().unwrap_or_default()),
            6 => filter.unique_key.clone_from(&row.unique_key),
            7 => filter.fair_key.clone_from(&row.fair_key),
            8 => filter.group = row.group.and_then(|group| u64::try_from(group).ok()),
            9 => filter.workers.extend(row.worker.as_ref().map(|name| name[..name.len() - random.index(3)].to_owned())),
            _ if random.chance(50) => filter.attempts_min = Some(attempts),
            _ => filter.attempts_max = Some(attempts),
        }
    }
    filter.all = filter.is_open();
    filter
}

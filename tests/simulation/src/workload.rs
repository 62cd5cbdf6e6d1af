//! What people do with it meanwhile: clients on the wire, apps in SQL, and apps that are rough with rows.

mod asks;
mod operator;

use std::collections::BTreeMap;

use laneway_broker::internals::Value;
use laneway_protocol::message::{
    AboutGroup, After, Answer, Bulk, BulkFilter, Change, Drain, FairKeyValues, FairKeys, KindValues, Kinds, LaneValues,
    Lanes, NewGroup, NewTask, OnConflict, Payload, Request, SetFairKey, SetKind, SetLane, Status, Submit, Tasks,
    WaitFor,
};
use laneway_protocol::{RequestId, TaskId, TaskState};

use crate::plan::{FAIR_KEYS, Fault, KINDS, LANES, fair_key, kind, lane, rate};
use crate::world::{Due, Peer, Tag, World};

pub(crate) use asks::Asks;

const KEYS: [&str; 3] = ["a", "b", "c"];
/// On top of what the broker may take; then the answer was lost, and the same is asked again.
const SLACK_MS: u64 = 1_500;

/// A client with one question at a time, which it says until it is answered.
#[derive(Debug, Default)]
pub(crate) struct Client {
    conn: Option<u64>,
    asking: Option<Asking>,
    tokens: u64,
    known: Vec<TaskId>,
    groups: Vec<u64>,
    /// What it asks next, the first one last.
    then: Vec<Request>,
    /// The number of the last batch that it began.
    batch: Option<u64>,
    /// Until then it asks nothing.
    rests_until: u64,
}

#[derive(Debug)]
struct Asking {
    token: u64,
    request: Request,
    wait_ms: u64,
    sent: bool,
}

impl Client {
    pub(crate) fn is_waiting(&self) -> bool {
        self.asking.is_some()
    }
}

impl World {
    pub(crate) fn drive_client(&mut self, at: usize) {
        if self.clients[at].asking.is_none() {
            let Some((request, wait_ms)) = self.next_question(at) else { return };
            self.clients[at].asking = Some(Asking { token: 0, request, wait_ms, sent: false });
        }
        let Some(asking) = self.clients[at].asking.as_ref().filter(|asking| !asking.sent) else { return };
        let (request, wait_ms) = (asking.request.clone(), asking.wait_ms);
        let peer = Peer::Client(at);
        let Some(conn) = self.connect(peer, self.clients[at].conn) else {
            let ms = self.net.between(20, 80);
            return self.drive_in(ms, peer);
        };
        let client = &mut self.clients[at];
        client.conn = Some(conn);
        client.tokens += 1;
        let tag = Tag::Token(client.tokens);
        client.asking = Some(Asking { token: client.tokens, request: request.clone(), wait_ms, sent: true });
        self.due_in(wait_ms + SLACK_MS, Due::Late(peer, tag));
        self.send(conn, tag, request);
    }

    fn next_question(&mut self, at: usize) -> Option<(Request, u64)> {
        if at + 1 == self.clients.len()
            && let Some(request) = self.loosen.pop()
        {
            return Some((request, 0));
        }
        if let Some(request) = self.clients[at].then.pop() {
            if let Request::Requeue(tasks) = &request {
                self.auditor.on_requeue(&tasks.tasks);
            }
            return Some((request, 0));
        }
        if self.plan.operator && at == self.plan.clients {
            return self.next_operation(at);
        }
        let groups = self.clients[at].groups.clone();
        if self.tasks_left == 0 && self.calm {
            // To its end, or until it is known to be over.
            let waits = self.plan.groups && !groups.is_empty();
            return waits.then(|| (self.wait_for_group(&groups, 6_000), 6_000));
        }
        if self.plan.limits && !self.calm && self.chance.chance(12) {
            return Some((self.limit(), 0));
        }
        let known = self.clients[at].known.clone();
        let some = |world: &mut Self| -> Vec<TaskId> {
            (0..world.chance.between(1, 3)).map(|_| *world.chance.pick(&known)).collect()
        };
        let wait_ms = 1_000;
        let dice = self.chance.below(100);
        if known.is_empty() || (dice < 50 && self.tasks_left > 0) {
            let n = self.chance.between(1, 3).min(self.tasks_left);
            if n == 0 {
                return Some((Request::Ping, 0));
            }
            self.tasks_left -= n;
            let groups = self.clients[at].groups.clone();
            let submit = self.new_list(n, &known, &groups);
            let wait_ms = submit.wait_ms;
            return Some((Request::Submit(submit), wait_ms));
        }
        if let Some(number) = self.clients[at].batch.filter(|_| self.chance.chance(20)) {
            return Some((Request::Bulk(self.look_at_batch(number)), 0));
        }
        if self.plan.groups && !groups.is_empty() && self.chance.chance(80) {
            let wait_ms = *self.chance.pick(&[0, 1_000, 6_000]);
            return Some((self.wait_for_group(&groups, wait_ms), wait_ms));
        }
        Some(match dice {
            ..70 => {
                // Of many at once, too, whose words find no room in one answer.
                let all = self.chance.chance(60);
                let (tasks, abandon) = (if all { known.clone() } else { some(self) }, self.chance.chance(40));
                let wait = WaitFor { tasks, kind: None, unique_key: None, cursor: None, wait_ms, abandon, group: None };
                (Request::WaitFor(self.by_key(wait)), wait_ms)
            }
            70..80 => (Request::Cancel(Tasks { tasks: some(self) }), 0),
            80..87 => {
                let tasks = some(self);
                self.auditor.on_requeue(&tasks);
                (Request::Requeue(Tasks { tasks }), 0)
            }
            87..94 => {
                let moves = self.chance.chance(40);
                let change = if moves { Change::Move } else { *self.chance.pick(&Change::ALL) };
                let lane = (change == Change::Move).then(|| lane(self.chance.pick::<&str>(&LANES)));
                let tasks = some(self);
                let bulk = self.some_bulk(at, Bulk { change: Some(change), lane, tasks, ..Bulk::default() });
                self.auditor.on_bulk(&bulk);
                (Request::Bulk(bulk), 0)
            }
            94 | 95 => {
                let worker = self.chance.index(self.workers.len());
                let worker = Some(self.workers[worker].name.to_string());
                let (release, off) = (self.chance.chance(30), self.chance.chance(50));
                // At the end there may be no other worker for what is left.
                (Request::Drain(Drain { release, off: off || self.calm, worker }), 0)
            }
            96 => (Request::Status(Status { tasks: some(self), filter: None, detail: true }), 0),
            97..99 if !groups.is_empty() => {
                if self.chance.chance(60) {
                    return Some((self.wait_for_group(&groups, wait_ms), wait_ms));
                }
                let group = *self.chance.pick(&groups);
                (Request::Group(AboutGroup { group, cancel: self.chance.chance(30) }), 0)
            }
            _ => (Request::Stats, 0),
        })
    }

    fn wait_for_group(&mut self, groups: &[u64], wait_ms: u64) -> Request {
        let group = Some(*self.chance.pick(groups));
        let (kind, unique_key, cursor) = (None, None, None);
        Request::WaitFor(WaitFor { tasks: Vec::new(), kind, unique_key, cursor, wait_ms, abandon: false, group })
    }

    /// Somebody bounds, pauses or frees a kind or a lane.
    fn limit(&mut self) -> Request {
        if self.plan.fair && self.fair_random.chance(40) {
            return self.limit_fair_key();
        }
        let name = kind(self.chance.pick::<&str>(&KINDS));
        let own = lane(self.chance.pick::<&str>(&LANES));
        let cap = self.chance.chance(60).then(|| u32::try_from(self.chance.below(4)).expect("a small number"));
        let bound = self.chance.chance(50).then(|| rate(self.chance.pick::<&str>(&["none", "2/s", "10/s", "200/m"])));
        let rate_burst = Some(u32::try_from(self.chance.between(1, 3)).expect("a small number"));
        match self.chance.below(10) {
            0 | 1 => Request::Kinds(Kinds { pause: vec![name], ..Kinds::default() }),
            2 | 3 => Request::Kinds(Kinds { resume: vec![name], ..Kinds::default() }),
            4 => Request::Kinds(Kinds { reset: vec![name], ..Kinds::default() }),
            5 => Request::Lanes(Lanes { pause: vec![own], ..Lanes::default() }),
            6 => Request::Lanes(Lanes { resume: LANES.map(lane).into(), reset: vec![own], ..Lanes::default() }),
            7 => {
                // More than there is may come of several; that is refused.
                let share = self.chance.chance(40).then(|| *self.chance.pick(&[0, 10, 33, 60]));
                let values = LaneValues { cap, rate: bound, rate_burst, share };
                Request::Lanes(Lanes { set: vec![SetLane { lane: own, values }], ..Lanes::default() })
            }
            _ => {
                let own = self.chance.chance(20).then_some(own);
                // Of all ends alike, longer or shorter than the settings say.
                let age = self.chance.chance(60).then(|| *self.chance.pick(&[0, 100, 1_000, 60_000]));
                let (done_age_ms, cancelled_age_ms, dead_age_ms) = (age, age, age);
                let kept = KindValues { done_age_ms, cancelled_age_ms, dead_age_ms, ..KindValues::default() };
                let values = KindValues { cap, rate: bound, rate_burst, lane: own, ..kept };
                Request::Kinds(Kinds { set: vec![SetKind { kind: name, values }], ..Kinds::default() })
            }
        }
    }

    fn limit_fair_key(&mut self) -> Request {
        let name = if self.fair_random.chance(20) { "*" } else { self.fair_random.pick::<&str>(&FAIR_KEYS) };
        if self.fair_random.chance(15) {
            return Request::FairKeys(FairKeys { reset: vec![fair_key(name)], ..FairKeys::default() });
        }
        let values = FairKeyValues {
            weight: self
                .fair_random
                .chance(30)
                .then(|| u32::try_from(self.fair_random.between(1, 9)).expect("a small number")),
            cap: self.fair_random.chance(60).then(|| u32::try_from(self.fair_random.below(4)).expect("a small number")),
            rate: self
                .fair_random
                .chance(30)
                .then(|| rate(self.fair_random.pick::<&str>(&["none", "2/s", "10/s", "200/m"]))),
            rate_burst: Some(u32::try_from(self.fair_random.between(1, 3)).expect("a small number")),
        };
        let set = vec![SetFairKey { fair_key: fair_key(name), values }];
        Request::FairKeys(FairKeys { set, ..FairKeys::default() })
    }

    /// What the settings say holds again, for whatever was kept back must come to its end.
    pub(crate) fn loosen(&mut self) {
        if self.plan.limits {
            let (kinds, lanes) = (Vec::from(KINDS.map(kind)), Vec::from(LANES.map(lane)));
            let kinds = Kinds { resume: kinds.clone(), reset: kinds, ..Kinds::default() };
            let lanes = Lanes { resume: lanes.clone(), reset: lanes, ..Lanes::default() };
            let reset = FAIR_KEYS.iter().chain(&["*"]).map(|name| fair_key(name)).collect();
            let keys = FairKeys { reset, ..FairKeys::default() };
            self.loosen = vec![Request::Kinds(kinds), Request::Lanes(lanes), Request::FairKeys(keys)];
            for at in 0..self.clients.len() {
                let bounds = |asking: &Asking| {
                    matches!(asking.request, Request::Kinds(_) | Request::Lanes(_) | Request::FairKeys(_))
                };
                if self.clients[at].asking.as_ref().is_some_and(bounds) {
                    self.clients[at].asking = None;
                    self.drive_in(10, Peer::Client(at));
                }
            }
            // By somebody who waits for nothing else, when no word from before is on its way.
            self.clients.push(Client::default());
            self.drive_in(3_000, Peer::Client(self.clients.len() - 1));
        }
    }

    /// Tasks that may wait for each other, in any order, or for known ones; some are a group.
    fn new_list(&mut self, n: u64, known: &[TaskId], groups: &[u64]) -> Submit {
        let mut tasks: Vec<NewTask> = (0..n).map(|_| self.new_wire_task()).collect();
        for (at, task) in tasks.iter_mut().enumerate() {
            if at > 0 && self.chance.chance(30) {
                let number = u32::try_from(self.chance.index(at)).ok();
                task.after.push(After { number, anyway: self.chance.chance(40), ..After::default() });
            }
            if !known.is_empty() && self.chance.chance(15) {
                let parent = Some(*self.chance.pick(known));
                task.after.push(After { task: parent, anyway: self.chance.chance(40), ..After::default() });
            }
        }
        if self.chance.chance(50) {
            tasks.reverse();
            for after in tasks.iter_mut().flat_map(|task| &mut task.after) {
                after.number = after.number.map(|number| u32::try_from(n).expect("it is short") - 1 - number);
            }
        }
        let group = (n > 1 && self.chance.chance(if self.plan.groups { 95 } else { 30 })).then(|| {
            // Nobody waits for the last one.
            let waited: Vec<u32> = tasks.iter().flat_map(|task| &task.after).filter_map(|after| after.number).collect();
            let free = (0..u32::try_from(n).expect("it is short")).find(|at| !waited.contains(at));
            let free = free.filter(|at| {
                let task = &tasks[*at as usize];
                task.unique_key.is_none() && !task.unique_by_payload
            });
            NewGroup { name: None, last: free, anyway: self.chance.chance(50) }
        });
        if group.is_none() && !groups.is_empty() && self.operator_random.chance(30) {
            // Those of the latest, mostly: others are over.
            let group = groups[groups.len() - 1 - self.operator_random.index(groups.len().min(2))];
            tasks.iter_mut().filter(|_| self.operator_random.chance(60)).for_each(|task| task.group = Some(group));
        }
        let abandon = group.is_none() && self.chance.chance(20);
        let wait_ms = if self.chance.chance(20) { 1_000 } else { 0 };
        Submit { request: RequestId(self.chance.bytes()), tasks, wait_ms, abandon, group }
    }

    /// As it is, or for all that meet a filter, or a look at the last batch of this client.
    fn some_bulk(&mut self, at: usize, bulk: Bulk) -> Bulk {
        match (self.chance.below(100), self.clients[at].batch) {
            (..25, _) => {
                let kind = self.chance.chance(60).then(|| (*self.chance.pick(&KINDS)).to_owned());
                let lane = self.chance.chance(30).then(|| (*self.chance.pick(&LANES)).to_owned());
                let states = [None, Some(TaskState::Queued), Some(TaskState::Running), Some(TaskState::Dead)];
                let state = *self.chance.pick(&states);
                let older_ms = self.chance.chance(20).then(|| self.chance.below(500));
                let filter = BulkFilter { all: true, state, kind, lane, older_ms, ..BulkFilter::default() };
                let dry_run = self.chance.chance(30);
                Bulk { tasks: Vec::new(), filter: Some(filter.into()), dry_run, ..bulk }
            }
            (25..50, Some(number)) => self.look_at_batch(number),
            _ => bulk,
        }
    }

    fn look_at_batch(&mut self, number: u64) -> Bulk {
        Bulk { batch: Some(number), stop: self.chance.chance(30), ..Bulk::default() }
    }

    fn new_task(&mut self) -> NewTask {
        let wall = self.clocks().wall.0;
        let payload = Payload::json(self.chance.below(10).to_string());
        let mut task = NewTask::new(kind(self.chance.pick::<&str>(&KINDS)), Some(payload));
        task.lane = self.chance.chance(60).then(|| lane(self.chance.pick::<&str>(&LANES)));
        task.unique_key = self.chance.chance(30).then(|| (*self.chance.pick(&KEYS)).to_owned());
        task.run_at =
            self.chance.chance(20).then(|| wall + i64::try_from(self.chance.below(800)).expect("it is short"));
        task.max_attempts = self.chance.chance(20).then_some(1);
        task.expires_at = self.chance.chance(5).then_some(wall + 1_000);
        task.fair_key = (self.plan.fair && self.fair_random.chance(70))
            .then(|| fair_key(self.fair_random.pick::<&str>(&FAIR_KEYS)));
        task
    }

    /// A task for the wire, which can ask for more than a row.
    fn new_wire_task(&mut self) -> NewTask {
        let mut task = self.new_task();
        task.unique_by_payload = task.unique_key.is_none() && self.chance.chance(5);
        if task.unique_key.is_some() || task.unique_by_payload {
            let wishes = [OnConflict::Keep, OnConflict::Replace, OnConflict::Replace, OnConflict::Reject];
            task.on_conflict = *self.chance.pick(&wishes);
            task.unique_for_ms = self.chance.chance(20).then(|| self.chance.between(1, 2_000));
        }
        self.coalesce(&mut task);
        task
    }

    pub(crate) fn client_hears(&mut self, at: usize, tag: Tag, answer: &Answer) {
        let Tag::Token(token) = tag else { return };
        if self.clients[at].asking.as_ref().is_none_or(|asking| asking.token != token) {
            return;
        }
        let again = match answer {
            Answer::Submit(stored) => {
                let known = &mut self.clients[at].known;
                known.extend(stored.tasks.iter().map(|stored| stored.task));
                self.clients[at].groups.extend(stored.group);
                let then = self.after_replacing(stored);
                self.clients[at].then.extend(then);
                false
            }
            Answer::Schedules(rows) => {
                let then = self.run_now(rows);
                self.clients[at].then.extend(then);
                false
            }
            Answer::Bulk(bulked) => {
                let begun = bulked.batch.as_ref().map(|batch| batch.number);
                self.clients[at].batch = begun.or(self.clients[at].batch);
                false
            }
            // Some leave before the end; the others go on behind what they have heard.
            Answer::WaitFor(waited) => {
                let asking = self.clients[at].asking.as_mut().expect("just looked at");
                if let Request::WaitFor(question) = &mut asking.request {
                    question.cursor = Some(waited.cursor);
                    if let Some(row) = &waited.group {
                        // Some ask again and again.
                        let is_over = waited.pending.is_empty() && (self.calm || self.chance.chance(70));
                        self.clients[at].groups.retain(|group| !is_over || *group != row.group);
                    } else {
                        (question.tasks, question.kind, question.unique_key) = (waited.pending.clone(), None, None);
                    }
                }
                !waited.pending.is_empty() && !self.chance.chance(15)
            }
            Answer::Error(error) => {
                let asking = self.clients[at].asking.as_ref().expect("just looked at");
                if let (Request::WaitFor(WaitFor { group: Some(gone), .. }), false) = (&asking.request, error.retry) {
                    let gone = *gone;
                    self.clients[at].groups.retain(|group| *group != gone);
                }
                error.retry
            }
            _ => false,
        };
        // Who has more to ask loses no time.
        let rests_ms = if self.clients[at].then.is_empty() { 100 } else { 5 };
        let ms = if again { self.net.between(20, 200) } else { self.net.between(1, rests_ms) };
        let client = &mut self.clients[at];
        if again {
            let asking = client.asking.as_mut().expect("just looked at");
            (asking.sent, asking.token) = (false, 0);
        } else {
            client.asking = None;
        }
        self.drive_in(ms, Peer::Client(at));
    }

    pub(crate) fn client_lost(&mut self, at: usize, conn: u64) {
        if self.clients[at].conn == Some(conn) {
            self.clients[at].conn = None;
            self.ask_again(at);
        }
    }

    pub(crate) fn client_late(&mut self, at: usize, token: u64) {
        if self.clients[at].asking.as_ref().is_some_and(|asking| asking.token == token) {
            if let Some(conn) = self.clients[at].conn.take() {
                self.cut(conn, true);
            }
            self.ask_again(at);
        }
    }

    fn ask_again(&mut self, at: usize) {
        if let Some(asking) = &mut self.clients[at].asking {
            (asking.sent, asking.token) = (false, 0);
            let ms = self.net.between(5, 50);
            self.drive_in(ms, Peer::Client(at));
        }
    }

    /// The turn of an app that speaks SQL.
    pub(crate) fn app(&mut self) {
        for _ in 0..self.chance.between(1, 4).min(self.tasks_left) {
            self.tasks_left -= 1;
            let mut cells = self.new_row();
            let parents = self.some_parents();
            let id = if parents.is_empty() {
                self.table.insert(&cells)
            } else {
                cells.push(("state", Value::Text("waiting".into())));
                self.table.insert_waiting(&cells, &parents)
            };
            self.note(format_args!("an app inserts {id:?} {cells:?} after {parents:?}"));
        }
        if !self.calm && self.plan.has(Fault::RoughApps) && self.chance.chance(40) {
            self.be_rough();
        }
        if !self.calm && self.plan.has(Fault::RoughApps) && self.plan.operator && self.operator_random.chance(25) {
            self.clear_away();
        }
        self.work_on_schedules();
        self.auditor.on_table(&self.table);
        let ms = self.net.below(5);
        self.scheduler_soon(ms);
        if !self.calm || self.tasks_left > 0 {
            let ms = self.chance.between(5, 250);
            self.due_in(ms, Due::App);
        }
    }

    /// What a new row waits for: mostly nothing, else a few of the newest.
    fn some_parents(&mut self) -> Vec<(i64, bool)> {
        let ids: Vec<i64> = self.auditor.rows.keys().rev().take(8).copied().collect();
        if ids.is_empty() || !self.chance.chance(35) {
            return Vec::new();
        }
        let mut parents = BTreeMap::new();
        for _ in 0..self.chance.between(1, 4) {
            parents.insert(*self.chance.pick(&ids), self.chance.chance(40));
        }
        parents.into_iter().collect()
    }

    fn new_row(&mut self) -> Vec<(&'static str, Value)> {
        let task = self.new_task();
        let text = |text: &str| Value::Text(text.to_owned());
        let mut cells = vec![("kind", text(task.kind.as_str())), ("created_at", Value::Integer(self.clocks().wall.0))];
        cells.extend(task.lane.map(|lane| ("lane", text(lane.as_str()))));
        cells.extend(task.unique_key.map(|key| ("unique_key", Value::Text(key))));
        cells.extend(task.fair_key.map(|key| ("fair_key", text(key.as_str()))));
        cells.extend(task.run_at.map(|at| ("run_at", Value::Integer(at))));
        cells.extend(task.max_attempts.map(|n| ("max_attempts", Value::Integer(n.into()))));
        cells.extend(task.expires_at.map(|at| ("expires_at", Value::Integer(at))));
        let payload = task.payload.map(|payload| String::from_utf8(payload.bytes).expect("it is a number"));
        cells.extend(payload.map(|payload| ("payload", Value::Text(payload))));
        cells
    }

    /// An app deletes tasks of one kind that have ended, perhaps between the broker's count of them and what it deletes by that.
    fn clear_away(&mut self) {
        let kind = *self.operator_random.pick(&KINDS);
        let ended = self.auditor.rows.iter().filter(|(_, row)| row.state.is_final() && row.kind == kind);
        let ended: Vec<i64> = ended.map(|(task, _)| *task).collect();
        for _ in 0..self.operator_random.index(3).min(ended.len()) {
            let id = *self.operator_random.pick(&ended);
            self.note(format_args!("an app has done with {id}"));
            self.auditor.on_touched(id);
            self.table.delete(id);
        }
    }

    /// Something that an app should not do, or may, to a row that exists.
    fn be_rough(&mut self) {
        let ids: Vec<i64> = self.auditor.rows.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = *self.chance.pick(&ids);
        let cell = match self.chance.below(6) {
            5 => {
                // Closes a ring, perhaps, or makes a row that has gone wait in vain.
                let parent = *self.chance.pick(&ids);
                self.note(format_args!("an app lets {id} wait for {parent}"));
                self.auditor.on_touched(id);
                return self.table.depend(id, parent, false);
            }
            0 => ("cancel_requested", Value::Integer(1)),
            1 => ("state", Value::Text("done".into())),
            2 => ("lane", Value::Text((*self.chance.pick::<&str>(&LANES)).into())),
            3 => ("lane", Value::Text("nowhere".into())),
            _ => {
                self.note(format_args!("an app deletes {id}"));
                self.auditor.on_touched(id);
                return self.table.delete(id);
            }
        };
        if self.auditor.rows[&id].state.is_final() {
            return;
        }
        self.note(format_args!("an app sets {cell:?} of {id}"));
        self.auditor.on_touched(id);
        self.table.update(id, &[cell]);
    }
}

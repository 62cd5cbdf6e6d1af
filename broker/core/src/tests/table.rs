//! The table and its store, as simply as can be: what a real store promises, without a file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use laneway_protocol::message::{
    FairKeyValues, Final, GroupRow, Held, KindValues, LaneValues, NewTask, OnConflict, ScheduleRows, StatusRows,
    Stored, TaskRow, Verdict,
};
use laneway_protocol::{FairKey, Kind, LaneName, Lease, Payload, SessionName, TaskId, TaskState};

use crate::action::{
    BulkSlice, BulkSliced, Count, Counts, Edit, Ended, EndedAs, Ending, FoundGroup, Next, NotedAs, Op, OpResult,
    Started,
};
use crate::event::{FoundTask, Loaded, OpId, QueueKey, QueuedTask};
use crate::time::{Now, UnixMillis};
use crate::{FairRules, MARK_MAX};

/// A row of the table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) lane: LaneName,
    pub(super) fair_key: Option<FairKey>,
    pub(super) state: TaskState,
    pub(super) lease: Option<Lease>,
    pub(super) runs: u32,
    pub(super) attempts: u32,
    pub(super) losses: u32,
    pub(super) releases: u32,
    pub(super) max_attempts: Option<u32>,
    pub(super) timeout_ms: Option<u64>,
    pub(super) expires_at: Option<UnixMillis>,
    pub(super) due: UnixMillis,
    pub(super) created_at: UnixMillis,
    pub(super) started_at: Option<UnixMillis>,
    pub(super) worker: Option<String>,
    pub(super) cancel_requested: bool,
    pub(super) unique_key: Option<String>,
    pub(super) payload: Option<Payload>,
    pub(super) checkpoint: Option<Payload>,
    pub(super) trace: Option<String>,
    pub(super) result: Option<Payload>,
    pub(super) error: Option<String>,
    pub(super) progress: (Option<u64>, Option<u64>, Option<String>),
    /// What the store says of its place in its lane.
    pub(super) ahead: Option<u32>,
    /// The last look at the queues before it became queued.
    pub(super) queued_in: u64,
}

/// The table, and what the store has in memory about it. Survives a restart of the core, but for that memory.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: BTreeMap<TaskId, Row>,
    pub(super) sessions: BTreeMap<SessionName, bool>,
    pub(super) paused: BTreeSet<LaneName>,
    pub(super) kinds: BTreeMap<Kind, (bool, KindValues)>,
    pub(super) lanes: BTreeMap<LaneName, LaneValues>,
    pub(super) fair_keys: BTreeMap<FairKey, FairKeyValues>,
    /// Told to have been given out once, but deleted.
    pub(super) pruned: BTreeSet<TaskId>,
    next: u64,
    pub(super) demands: BTreeMap<QueueKey, (usize, bool, Arc<FairRules>, BTreeSet<FairKey>)>,
    /// The key that was read last of each queue, and what it may still give in this round.
    cursors: BTreeMap<QueueKey, (Option<FairKey>, u32)>,
    /// Rows that have come into a queue since the last look.
    news: BTreeSet<TaskId>,
    pub(super) out: BTreeSet<TaskId>,
    pub(super) watched: BTreeSet<TaskId>,
    /// Looks at the queues, and when the last one began.
    pub(super) turn: u64,
    pub(super) turn_at: UnixMillis,
    pub(super) inbox: VecDeque<(Option<OpId>, Op)>,
    /// What the store has counted.
    pub(super) counts: Counts,
    /// Which tasks are in which group, and which came before which.
    pub(super) groups: BTreeMap<u64, Vec<TaskId>>,
    /// The last tasks of groups.
    pub(super) lasts: BTreeMap<u64, TaskId>,
    pub(super) parents: BTreeMap<TaskId, Vec<TaskId>>,
    pub(super) schedules: ScheduleRows,
}

impl Table {
    /// What the store has in memory is gone.
    pub(super) fn forget(&mut self) {
        self.demands.clear();
        self.cursors.clear();
        self.news.clear();
        self.out.clear();
        self.watched.clear();
        self.inbox.clear();
    }

    /// A new row with these changes.
    pub(super) fn insert(&mut self, kind: Kind, lane: LaneName, now: Now, change: impl FnOnce(&mut Row)) -> TaskId {
        let mut row = Row {
            kind,
            lane,
            fair_key: None,
            state: TaskState::Queued,
            lease: None,
            runs: 0,
            attempts: 0,
            losses: 0,
            releases: 0,
            max_attempts: None,
            timeout_ms: None,
            expires_at: None,
            due: now.wall,
            created_at: now.wall,
            started_at: None,
            worker: None,
            cancel_requested: false,
            unique_key: None,
            payload: None,
            checkpoint: None,
            trace: None,
            result: None,
            error: None,
            progress: (None, None, None),
            ahead: None,
            queued_in: self.turn,
        };
        change(&mut row);
        self.next += 1;
        let id = TaskId::new(self.next).unwrap();
        self.rows.insert(id, row);
        self.news.insert(id);
        id
    }

    fn group(&self, group: u64, live: usize) -> Option<FoundGroup> {
        let rows: Vec<(TaskId, TaskState)> =
            self.groups.get(&group)?.iter().map(|id| (*id, self.rows[id].state)).collect();
        let count = |wanted| rows.iter().filter(|(_, state)| *state == wanted).count() as u64;
        let row = GroupRow {
            group,
            last: self.lasts.get(&group).copied(),
            queued: count(TaskState::Queued),
            running: count(TaskState::Running),
            done: count(TaskState::Done),
            dead: count(TaskState::Dead),
            cancelled: count(TaskState::Cancelled),
            ..GroupRow::default()
        };
        let of_state = |wanted| rows.iter().filter(move |(_, state)| *state == wanted).map(|(id, _)| *id);
        let states = [TaskState::Running, TaskState::Queued, TaskState::Waiting];
        let ids: Vec<TaskId> = states.into_iter().flat_map(of_state).take(live).collect();
        let last = row.last.filter(|_| live > 0 && ids.is_empty()).map(|last| self.ending(last));
        let last = if let Some(Ending::Final(end)) = last { Some(end) } else { None };
        Some(FoundGroup { row, live: ids, last })
    }

    /// As the real one: rows are marked, and ended by the next look at them.
    fn cancel_group(&mut self, group: u64) {
        for id in &self.groups[&group] {
            self.rows.get_mut(id).unwrap().cancel_requested = true;
        }
    }

    fn parents(&self, task: TaskId, after: u64) -> Vec<(TaskId, Ending)> {
        let parents = self.parents.get(&task).into_iter().flatten().filter(|id| id.value() > after);
        parents.map(|id| (*id, self.ending(*id))).collect()
    }

    pub(super) fn apply(&mut self, op: Op, now: Now) -> Option<OpResult> {
        match op {
            Op::Started(started) => self.started(&started),
            Op::Ended(ended) => return Some(OpResult::Ended(self.ended(ended))),
            Op::Noted(noted) => {
                let Some(row) = self.rows.get_mut(&noted.task).filter(|row| row.lease == Some(noted.lease)) else {
                    return Some(OpResult::Noted(NotedAs::Overtaken));
                };
                row.progress = (noted.done, noted.total, noted.note);
                row.checkpoint = noted.checkpoint.or(row.checkpoint.take());
                return Some(OpResult::Noted(NotedAs::Written));
            }
            Op::Submit { tasks, group, secured, .. } => {
                return Some(match (self.submit(tasks, &secured, now), group) {
                    (OpResult::Submitted(stored), Some(_)) => OpResult::SubmittedGroup(stored, 1),
                    (result, _) => result,
                });
            }
            Op::Cancel(tasks) => {
                return Some(OpResult::Verdicts(tasks.into_iter().map(|task| self.cancel(task)).collect()));
            }
            Op::Requeue(tasks) => {
                return Some(OpResult::Verdicts(tasks.into_iter().map(|task| self.requeue(task)).collect()));
            }
            Op::Edit { edit, tasks } => {
                let verdicts = tasks.into_iter().map(|task| self.edit(&edit, task, now));
                return Some(OpResult::Verdicts(verdicts.collect()));
            }
            Op::Bulk(slice) => return Some(OpResult::Bulk(self.bulk(&slice, now))),
            Op::Find(tasks) => {
                return Some(OpResult::Found(tasks.into_iter().filter_map(|task| self.find(task)).collect()));
            }
            Op::FindKey { kind, unique_key } => {
                let has_key = |row: &Row| row.kind == kind && row.unique_key.as_ref() == Some(&unique_key);
                let newest = self.rows.iter().rev().find(|(_, row)| has_key(row)).map(|(&id, _)| id);
                return Some(OpResult::Found(newest.and_then(|id| self.find(id)).into_iter().collect()));
            }
            Op::FindTwins(keys) => {
                let live = |(id, row): (&TaskId, &Row)| {
                    let has = keys.iter().any(|(kind, key)| row.kind == *kind && row.unique_key.as_ref() == Some(key));
                    (has && !row.state.is_final()).then_some(*id)
                };
                return Some(OpResult::Found(
                    self.rows.iter().filter_map(live).filter_map(|id| self.find(id)).collect(),
                ));
            }
            Op::Endings(tasks) => {
                return Some(OpResult::Endings(tasks.into_iter().map(|task| (task, self.ending(task))).collect()));
            }
            Op::List(_) => return Some(OpResult::Rows(StatusRows::default())),
            Op::Show { tasks, .. } => return Some(OpResult::Rows(self.show(&tasks))),
            Op::Counts => return Some(OpResult::Counts(self.counts.clone())),
            Op::Group { group, live } => return Some(OpResult::Group(self.group(group, live))),
            Op::CancelGroup { group, .. } => {
                self.cancel_group(group);
                return Some(OpResult::GroupCancelled { more: false });
            }
            Op::Parents { task, after, .. } => {
                return Some(OpResult::Parents { endings: self.parents(task, after), more: false });
            }
            Op::Schedules(asked) if asked.put.as_ref().is_some_and(|put| put.cron.is_empty()) => {
                return Some(OpResult::Refused { index: 0, field: "cron", reason: "cron is empty".into() });
            }
            Op::Schedules(_) => return Some(OpResult::Schedules(self.schedules.clone())),
            Op::SessionUp { session, plain, .. } => {
                self.sessions.insert(session, plain);
            }
            Op::SessionGone { session } => {
                self.sessions.remove(&session);
            }
            Op::SetKind { kind, paused, values } => {
                self.kinds.insert(kind, (paused, values));
                return Some(OpResult::Set);
            }
            Op::SetLane { lane, values } => {
                self.lanes.insert(lane, values);
                return Some(OpResult::Set);
            }
            Op::SetFairKey { fair_key, values } => {
                self.fair_keys.insert(fair_key, values);
                return Some(OpResult::Set);
            }
            Op::PauseLane { lane, paused } => {
                if paused {
                    self.paused.insert(lane)
                } else {
                    self.paused.remove(&lane)
                };
                return Some(OpResult::Paused);
            }
        }
        None
    }

    fn started(&mut self, started: &Started) {
        let Some(row) = self.rows.get_mut(&started.task) else { return };
        if row.state != TaskState::Queued || row.runs + 1 != started.run {
            return;
        }
        row.state = TaskState::Running;
        (row.lease, row.runs) = (Some(started.lease), started.run);
        (row.worker, row.started_at) = (Some(started.worker.to_string()), Some(started.at));
    }

    fn ended(&mut self, ended: Ended) -> EndedAs {
        self.out.remove(&ended.task);
        let Some(row) = self.rows.get_mut(&ended.task) else { return EndedAs::Overtaken };
        if row.state.is_final() && row.lease == Some(ended.lease) {
            return EndedAs::Recorded(row.state);
        }
        if row.state != TaskState::Running || row.lease != Some(ended.lease) {
            return EndedAs::Overtaken;
        }
        match ended.count {
            Count::Attempt => row.attempts += 1,
            Count::Loss => row.losses += 1,
            Count::Release => row.releases += 1,
            Count::Nothing => {}
        }
        row.state = match ended.next {
            Next::Done(result) => {
                row.result = result;
                TaskState::Done
            }
            Next::Already => return EndedAs::Overtaken,
            _ if row.cancel_requested => TaskState::Cancelled,
            Next::Queued { run_at } => {
                row.due = run_at.unwrap_or(row.due);
                row.queued_in = self.turn;
                self.news.insert(ended.task);
                row.lease = None;
                TaskState::Queued
            }
            Next::Dead => TaskState::Dead,
            Next::Cancelled => TaskState::Cancelled,
        };
        row.error = ended.error;
        EndedAs::Written(row.state)
    }

    fn submit(&mut self, tasks: Vec<NewTask>, secured: &[Held], now: Now) -> OpResult {
        // To be read again, replaced or not.
        for Held(task, _) in secured {
            self.out.remove(task);
        }

        if let Some(index) = tasks.iter().position(|task| task.max_attempts == Some(0)) {
            return OpResult::Refused { index, field: "max_attempts", reason: "0 is not at least 1".into() };
        }
        let mut stored = Vec::new();
        for task in tasks {
            let live = |row: &Row| row.kind == task.kind && !row.state.is_final() && row.unique_key == task.unique_key;
            let twin = task.unique_key.as_ref().and(self.rows.iter().find(|(_, row)| live(row)).map(|(&id, _)| id));
            if let Some(id) = twin {
                let row = self.rows.get_mut(&id).expect("just found");
                let mark = secured.iter().find(|held| held.0 == id).map(|held| held.1);
                let replaced =
                    task.on_conflict == OnConflict::Replace && mark.is_some() && row.state == TaskState::Queued;
                if replaced {
                    row.payload.clone_from(&task.payload);
                    row.lease = mark;
                    row.queued_in = self.turn;
                }
                stored.push(Stored { replaced, ..Stored::met(id) });
                continue;
            }
            let lane = task.lane.unwrap_or_else(|| LaneName::new("normal").unwrap());
            let id = self.insert(task.kind, lane, now, |row| {
                (row.max_attempts, row.timeout_ms) = (task.max_attempts, task.timeout_ms);
                row.fair_key = task.fair_key;
                (row.unique_key, row.payload) = (task.unique_key, task.payload);
            });
            stored.push(Stored::new(id));
        }
        OpResult::Submitted(stored)
    }

    fn cancel(&mut self, task: TaskId) -> Verdict {
        let Some(row) = self.rows.get_mut(&task) else { return Verdict::NotFound };
        if row.state.is_final() {
            return Verdict::Unchanged;
        }
        row.cancel_requested = true;
        if row.state == TaskState::Queued {
            row.state = TaskState::Cancelled;
            self.out.remove(&task);
            return Verdict::Cancelled;
        }
        Verdict::Requested
    }

    fn requeue(&mut self, task: TaskId) -> Verdict {
        let Some(row) = self.rows.get_mut(&task) else { return Verdict::NotFound };
        if !matches!(row.state, TaskState::Dead | TaskState::Cancelled) {
            return Verdict::Unchanged;
        }
        row.lease = row.lease.filter(|lease| (1..=MARK_MAX).contains(&lease.value()));
        (row.state, row.cancel_requested) = (TaskState::Queued, false);
        (row.attempts, row.losses, row.queued_in) = (0, 0, self.turn);
        self.news.insert(task);
        Verdict::Requeued
    }

    fn bulk(&mut self, slice: &BulkSlice, now: Now) -> BulkSliced {
        let until = slice.until.or_else(|| TaskId::new(self.next));
        let meets = |id: &TaskId, row: &Row| {
            slice.after.is_none_or(|after| *id > after)
                && Some(*id) <= until
                && slice.filter.state.is_none_or(|state| row.state == state)
                && slice.filter.lane.as_ref().is_none_or(|lane| row.lane.as_str() == lane)
                && slice.filter.attempts_min.is_none_or(|min| row.attempts >= min)
        };
        let mut met: Vec<TaskId> = self.rows.iter().filter(|(id, row)| meets(id, row)).map(|(&id, _)| id).collect();
        let over = met.len() < slice.rows;
        met.truncate(slice.rows);
        let at = met.last().copied().or(slice.after);
        let verdict = |id: TaskId| (id, if slice.dry_run { Verdict::Due } else { self.edit(&slice.edit, id, now) });
        BulkSliced { verdicts: met.into_iter().map(verdict).collect(), at, until, over }
    }

    fn edit(&mut self, edit: &Edit, task: TaskId, now: Now) -> Verdict {
        let state = self.rows.get(&task).map(|row| row.state);
        match (edit, state) {
            (_, None) => Verdict::NotFound,
            (Edit::Requeue, _) => self.requeue(task),
            (Edit::Cancel | Edit::Abandon, _) => self.cancel(task),
            (Edit::Purge, Some(state)) if state.is_final() => {
                self.rows.remove(&task);
                self.pruned.insert(task);
                Verdict::Purged
            }
            (Edit::Move(lane), Some(TaskState::Queued)) if self.rows[&task].lane != *lane => {
                let row = self.rows.get_mut(&task).unwrap();
                (row.lane, row.queued_in) = (lane.clone(), self.turn);
                self.out.remove(&task);
                Verdict::Moved
            }
            (Edit::RunNow, Some(TaskState::Queued)) if self.rows[&task].due > now.wall => {
                let row = self.rows.get_mut(&task).unwrap();
                (row.due, row.queued_in) = (row.created_at, self.turn);
                Verdict::Due
            }
            _ => Verdict::Unchanged,
        }
    }

    pub(super) fn find(&self, id: TaskId) -> Option<FoundTask> {
        let row = self.rows.get(&id)?;
        Some(FoundTask {
            id,
            kind: row.kind.clone(),
            lane: row.lane.clone(),
            fair_key: row.fair_key.clone(),
            group: group_of(&self.groups, id),
            state: row.state,
            lease: row.lease,
            runs: row.runs,
            attempts: row.attempts,
            losses: row.losses,
            max_attempts: row.max_attempts,
            timeout_ms: row.timeout_ms,
            due: row.due,
            created_at: row.created_at,
            started_at: row.started_at,
            worker: row.worker.clone(),
            cancel_requested: row.cancel_requested,
        })
    }

    fn ending(&self, task: TaskId) -> Ending {
        let Some(row) = self.rows.get(&task) else {
            return if self.pruned.contains(&task) { Ending::Pruned } else { Ending::NotFound };
        };
        if row.state.is_final() {
            let Row { state, result, error, .. } = row.clone();
            return Ending::Final(Final { task, state, result, error });
        }
        let (done, total, note) = row.progress.clone();
        Ending::Live { done, total, note }
    }

    pub(super) fn show(&self, tasks: &[TaskId]) -> StatusRows {
        let row = |&id: &TaskId| {
            let row = self.rows.get(&id)?;
            Some(TaskRow {
                id,
                kind: row.kind.to_string(),
                lane: Some(row.lane.to_string()),
                state: row.state,
                run_at: Some(row.due.0),
                unique_key: None,
                max_attempts: None,
                timeout_ms: None,
                expires_at: None,
                fair_key: row.fair_key.as_ref().map(ToString::to_string),
                trace: row.trace.clone(),
                runs: row.runs,
                attempts: row.attempts,
                losses: row.losses,
                releases: row.releases,
                worker: row.worker.clone(),
                created_at: 0,
                started_at: None,
                finished_at: None,
                progress_done: None,
                progress_total: None,
                progress_note: None,
                cancel_requested: row.cancel_requested,
                error: row.error.clone(),
                payload: None,
                result: None,
                failures: Vec::new(),
                explain: None,
                ahead: row.ahead,
                twin: None,
                group: None,
                waits_for: Vec::new(),
                waits_for_n: 0,
            })
        };
        StatusRows { rows: tasks.iter().filter_map(row).collect(), ..StatusRows::default() }
    }

    pub(super) fn load(&mut self, now: Now) -> Vec<Loaded> {
        let mut loads = Vec::new();
        self.turn += 1;
        self.turn_at = now.wall;
        for (key, (rows, fresh, fair, told)) in &mut self.demands {
            let mut due: Vec<(UnixMillis, TaskId)> = self
                .rows
                .iter()
                .filter(|(id, row)| {
                    row.state == TaskState::Queued
                        && row.lane == key.lane
                        && row.kind == key.kind
                        && !self.out.contains(id)
                })
                .filter(|(_, row)| row.due <= now.wall && row.expires_at.is_none_or(|at| row.runs > 0 || at > now.wall))
                .map(|(&id, row)| (row.due, id))
                .collect();
            due.sort_unstable();
            let key_of = |id: &TaskId| self.rows[id].fair_key.as_ref();
            let of_queue = |row: &&Row| row.state == TaskState::Queued && row.lane == key.lane && row.kind == key.kind;
            let turns = self.rows.values().filter(of_queue).any(|row| row.fair_key.is_some());
            let (more, left, passed);
            if turns {
                let cursor = self.cursors.entry(key.clone()).or_default();
                (due, more, left, passed) = by_turns(due, key_of, cursor, *rows, fair);
            } else {
                self.cursors.remove(key);
                (more, left, passed) = (due.len() > *rows, Vec::new(), Vec::new());
                due.truncate(*rows);
            }
            let news = passed.iter().filter(|key| told.insert(FairKey::clone(key))).count();
            if news == 0 && due.is_empty() && !*fresh {
                continue;
            }
            *fresh = false;
            *rows = if more { 0 } else { *rows - due.len() };
            let task =
                |(due, id): &(UnixMillis, TaskId)| queued(*id, &self.rows[id], *due, group_of(&self.groups, *id));
            let tasks = due.iter().map(task).collect();
            self.out.extend(due.iter().map(|&(_, id)| id));
            loads.push(Loaded { key: key.clone(), tasks, more, left, passed });
        }
        self.demands.retain(|_, (rows, ..)| *rows > 0);
        loads
    }

    /// Rows that have come into queues by turns, or have become due there, since the last time.
    pub(super) fn appeared(&mut self, now: Now) -> Vec<(QueueKey, Option<FairKey>)> {
        let due: Vec<TaskId> =
            self.news.iter().filter(|id| self.rows.get(id).is_none_or(|row| row.due <= now.wall)).copied().collect();
        let mut appeared = BTreeSet::new();
        for id in due {
            self.news.remove(&id);
            let Some(row) = self.rows.get(&id).filter(|row| row.state == TaskState::Queued) else { continue };
            let key = QueueKey { lane: row.lane.clone(), kind: row.kind.clone() };
            if row.fair_key.is_some() || self.cursors.contains_key(&key) {
                appeared.insert((key, row.fair_key.clone()));
            }
        }
        appeared.into_iter().collect()
    }
}

type ByTurns = (Vec<(UnixMillis, TaskId)>, bool, Vec<Option<FairKey>>, Vec<FairKey>);

/// Of due rows in their order, those that a demand gets by turns: behind the key that was read last.
fn by_turns<'a>(
    due: Vec<(UnixMillis, TaskId)>,
    key_of: impl Fn(&TaskId) -> Option<&'a FairKey>,
    cursor: &mut (Option<FairKey>, u32),
    rows: usize,
    fair: &FairRules,
) -> ByTurns {
    let mut lines: BTreeMap<Option<FairKey>, VecDeque<(UnixMillis, TaskId)>> = BTreeMap::new();
    for (at, id) in due {
        lines.entry(key_of(&id).cloned()).or_default().push_back((at, id));
    }
    let (closed, mut open): (BTreeMap<_, _>, BTreeMap<_, _>) =
        lines.into_iter().partition(|(key, _)| key.as_ref().is_some_and(|key| fair.closed.contains(key)));
    let mut taken = Vec::new();
    let mut touched = BTreeSet::new();
    while taken.len() < rows && open.values().any(|line| !line.is_empty()) {
        if cursor.1 == 0 || open.get(&cursor.0).is_none_or(VecDeque::is_empty) {
            let keys: Vec<_> = open.iter().filter(|(_, line)| !line.is_empty()).map(|(key, _)| key.clone()).collect();
            let next = keys.iter().find(|key| **key > cursor.0).unwrap_or(&keys[0]).clone();
            *cursor = (next.clone(), fair.weight_of(next.as_ref()));
        }
        taken.push(open.get_mut(&cursor.0).unwrap().pop_front().unwrap());
        touched.insert(cursor.0.clone());
        cursor.1 -= 1;
    }
    let more = open.values().any(|line| !line.is_empty());
    let left = touched.into_iter().filter(|key| !open[key].is_empty()).collect();
    (taken, more, left, closed.into_keys().flatten().collect())
}

fn group_of(groups: &BTreeMap<u64, Vec<TaskId>>, id: TaskId) -> Option<u64> {
    groups.iter().find(|(_, tasks)| tasks.contains(&id)).map(|(group, _)| *group)
}

fn queued(id: TaskId, row: &Row, due: UnixMillis, group: Option<u64>) -> QueuedTask {
    QueuedTask {
        id,
        due,
        created_at: row.created_at,
        runs: row.runs,
        attempts: row.attempts,
        losses: row.losses,
        max_attempts: row.max_attempts,
        timeout_ms: row.timeout_ms,
        expires_at: row.expires_at,
        payload: row.payload.clone(),
        checkpoint: row.checkpoint.clone(),
        trace: row.trace.clone(),
        fair_key: row.fair_key.clone(),
        group,
    }
}

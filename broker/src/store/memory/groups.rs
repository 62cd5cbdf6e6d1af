//! The model's lists of tasks that say something of each other, and its groups.

use laneway_core::{Ending, FoundGroup, Now, OpResult};
use laneway_protocol::message::{GroupRow, Held, NewGroup, NewTask, Stored};
use laneway_protocol::{TaskId, TaskState};
use rusqlite::types::Value;
use std::sync::Arc;

use super::cells::{int, sql, state, task_id};
use super::dependencies::Edge;
use super::{Group, Step};
use crate::store::cancel::CancelCause;
use crate::store::dependencies::{
    JOINED_TOO_LATE, LIVE_STATES, cancelled_group, group_name, judge_list, last_has_twin, missing_group,
    missing_parents, numbers_before, ring_of_stored,
};
use crate::store::validate::Bad;

#[derive(Clone, Copy, Default)]
pub(super) struct NewList<'a> {
    pub(super) tasks: &'a [NewTask],
    pub(super) group: Option<&'a NewGroup>,
    pub(super) spawned_by: Option<i64>,
    pub(super) secured: &'a [Held],
}

impl Step<'_> {
    /// When it is refused, whoever calls goes back to what was before.
    pub(super) fn insert_list(
        &mut self,
        list: NewList<'_>,
        now: Now,
    ) -> Result<(Vec<Stored>, Option<u64>), (usize, Bad)> {
        for (at, task) in list.tasks.iter().enumerate() {
            self.judge.task(task).map_err(|bad| (at, bad))?;
        }
        if list.spawned_by.is_some()
            && let Some(bad) = Bad::replacing(list.tasks)
        {
            return Err(bad);
        }
        judge_list(list.tasks, list.group, list.spawned_by.is_some())?;
        let own = list.group.map(|group| self.new_group(group, now));
        let spawner = list.spawned_by.and_then(|id| int(self.db.rows.get(&id)?, "group_id"));
        let too_late = list
            .spawned_by
            .is_some_and(|id| self.db.rows.get(&id).is_some_and(|row| row["cancel_requested"] != Value::Integer(0)));
        let final_at = list.group.and_then(|group| group.last).map(|number| number as usize);
        let (mut stored, mut joined) = (Vec::new(), Vec::new());
        for (at, task) in list.tasks.iter().enumerate() {
            if let Some(twin) = self.standing(task, now) {
                if final_at == Some(at) {
                    return Err((at, last_has_twin(twin)));
                }
                let met = self.meet(task, twin, &stored, list.secured, now).map_err(|bad| (at, bad))?;
                stored.push(met);
                continue;
            }
            let parents = task.after.iter().filter_map(|after| after.task).map(sql);
            let missing: Vec<i64> = parents.filter(|parent| !self.db.rows.contains_key(parent)).collect();
            if !missing.is_empty() {
                return Err((at, missing_parents(&missing)));
            }
            if let Some(group) = task.group.filter(|group| !self.db.groups.contains_key(&group.cast_signed())) {
                return Err((at, missing_group(group)));
            }
            let group = task.group.map(u64::cast_signed).or(own).or(spawner.filter(|_| task.join));
            let cancelled = group.and_then(|group| self.db.groups.get(&group)).is_some_and(|group| group.cancelled);
            if let Some(named) = task.group.filter(|_| cancelled && list.spawned_by.is_none()) {
                return Err((at, cancelled_group(named)));
            }
            if cancelled || (too_late && task.join && spawner.is_some() && group == spawner) {
                let new = self.insert(task, true, group, now);
                let row = self.db.rows.get_mut(&sql(new.task)).map(Arc::make_mut).expect("just inserted");
                row.insert("state", Value::Text("cancelled".into()));
                row.insert("finished_at", Value::Integer(now.wall.0));
                row.insert("error", Value::Text(JOINED_TOO_LATE.into()));
                stored.push(new);
                continue;
            }
            let waits = !task.after.is_empty() || (final_at == Some(at) && list.tasks.len() > 1);
            let new = self.insert(task, waits, group, now);
            joined.extend(group.filter(|_| own.is_none()).map(|group| (at, sql(new.task), group)));
            stored.push(new);
        }
        ring_of_stored(list.tasks, list.group, &stored)?;
        let is_new = |id: i64| stored.iter().any(|stored| stored.new && sql(stored.task) == id);
        let awaited = self.db.edges.iter().any(|edge| edge.open && is_new(edge.parent));
        for (at, (task, new)) in list.tasks.iter().zip(&stored).enumerate().filter(|(_, (_, new))| new.new) {
            let named = task.after.iter().filter_map(|after| Some((sql(after.task?), after.anyway)));
            let numbered = numbers_before(list.tasks, list.group, at).into_iter();
            let parents: Vec<(i64, bool)> =
                named.chain(numbered.map(|(number, anyway)| (sql(stored[number].task), anyway))).collect();
            for (parent, anyway) in parents {
                self.depend(sql(new.task), parent, anyway);
            }
        }
        if let (Some(own), Some(at)) = (own, final_at) {
            self.db.groups.get_mut(&own).expect("just made").last = Some(sql(stored[at].task));
        }
        self.join(&joined, list.tasks)?;
        for (at, stored) in stored.iter().enumerate().filter(|(_, stored)| awaited && stored.new) {
            self.walk(sql(stored.task)).map_or(Ok(()), |bad| Err((at, bad)))?;
        }
        Ok((stored, own.map(i64::unsigned_abs)))
    }

    fn join(&mut self, joined: &[(usize, i64, i64)], tasks: &[NewTask]) -> Result<(), (usize, Bad)> {
        for (_, id, group) in joined {
            let Some(group) = self.db.groups.get(group) else { continue };
            let (last, anyway) = (group.last, group.anyway);
            if let Some(last) = last.filter(|last| self.state_of(*last) == Some(TaskState::Waiting)) {
                self.depend(last, *id, anyway);
            }
        }
        for (at, id, _) in joined.iter().filter(|(at, ..)| !tasks[*at].after.is_empty()) {
            self.walk(*id).map_or(Ok(()), |bad| Err((*at, bad)))?;
        }
        Ok(())
    }

    fn depend(&mut self, task: i64, parent: i64, anyway: bool) {
        if !self.db.edges.iter().any(|edge| (edge.task, edge.parent) == (task, parent)) {
            self.db.edges.push(Edge { task, parent, anyway, open: true });
        }
    }

    fn new_group(&mut self, group: &NewGroup, now: Now) -> i64 {
        self.db.newest_group += 1;
        let row = Group {
            name: group_name(group).map(str::to_owned),
            last: None,
            anyway: group.anyway,
            created_at: now.wall.0,
            cancelled: false,
        };
        self.db.groups.insert(self.db.newest_group, row);
        self.db.newest_group
    }

    pub(super) fn group(&self, group: u64, live: usize) -> Option<FoundGroup> {
        let of_group = |row: &&Arc<super::Cells>| int(row, "group_id") == Some(group.cast_signed());
        let count = |wanted| {
            let rows = self.db.rows.values().filter(of_group);
            rows.filter(|row| state(row) == wanted).count() as u64
        };
        let known = self.db.groups.get(&group.cast_signed());
        let row = GroupRow {
            group,
            name: known.and_then(|group| group.name.clone()),
            last: known.and_then(|group| group.last).map(task_id),
            created_at: known.map_or(0, |group| group.created_at),
            waiting: count(TaskState::Waiting),
            queued: count(TaskState::Queued),
            running: count(TaskState::Running),
            done: count(TaskState::Done),
            dead: count(TaskState::Dead),
            cancelled: count(TaskState::Cancelled),
        };
        if known.is_none() && row.total() == 0 {
            return None;
        }
        let of_state = |wanted| {
            let rows = self.db.rows.iter().filter(move |(_, row)| of_group(row) && state(row) == wanted);
            rows.map(|(id, _)| task_id(*id))
        };
        let ids = LIVE_STATES.into_iter().flat_map(of_state).take(live);
        let ids: Vec<TaskId> = ids.collect();
        let last = row.last.filter(|_| live > 0 && ids.is_empty());
        let ending = last.and_then(|last| self.endings(&[last]).pop());
        let last = if let Some((_, Ending::Final(end))) = ending { Some(end) } else { None };
        Some(FoundGroup { row, live: ids, last })
    }

    pub(super) fn cancel_group(&mut self, group: u64, rows: usize) -> bool {
        if let Some(row) = self.db.groups.get_mut(&group.cast_signed()) {
            row.cancelled = true;
        }
        let is_wanted = |row: &Arc<super::Cells>| {
            int(row, "group_id") == Some(group.cast_signed())
                && !state(row).is_final()
                && row["cancel_requested"] == Value::Integer(0)
        };
        let wanted: Vec<i64> =
            self.db.rows.iter().filter(|(_, row)| is_wanted(row)).map(|(id, _)| *id).take(rows).collect();
        for id in &wanted {
            let row = self.db.rows.get_mut(id).map(Arc::make_mut).expect("just read");
            row.insert("cancel_requested", Value::Integer(CancelCause::Group.requested()));
        }
        wanted.len() == rows
    }

    pub(super) fn parents(&self, task: i64, after: u64, rows: usize) -> OpResult {
        let edges = self.db.edges.iter().filter(|edge| edge.task == task && edge.parent > after.cast_signed());
        let mut parents: Vec<i64> = edges.map(|edge| edge.parent).collect();
        parents.sort_unstable();
        let more = parents.len() > rows;
        let told: Vec<TaskId> = parents.into_iter().take(rows).map(task_id).collect();
        OpResult::Parents { endings: self.endings(&told), more }
    }
}

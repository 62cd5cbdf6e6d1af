//! What STATUS says of a task is what the table said at some moment since the question came in, and a page leaves out no task that it
//! should have.

use std::collections::BTreeSet;

use laneway_core::ReplyTo;
use laneway_protocol::TaskId;
use laneway_protocol::message::{Filter, Payload, Status, StatusRows, TaskRow};

use super::looks::{Look, Rows};
use super::{Auditor, id};
use crate::plan::LANES;
use crate::row::Row;

impl Auditor {
    pub(super) fn check_status(&mut self, reply: ReplyTo, question: &Status, answer: &StatusRows) {
        let look = self.take_look(reply);
        let shows = |said: &&TaskRow, rows: &Rows| {
            let row = rows.get(&id(said.id));
            row.is_some_and(|row| {
                is_same(said, row) && (look.may_change(said.id) || self.is_said(said, row, question.detail))
            })
        };
        let wrong_row = answer.rows.iter().find(|said| !look.moments.iter().any(|rows| shows(said, rows)));
        self.tally.shown += answer.rows.iter().filter(|said| !look.may_change(said.id)).count() as u64;
        let wrong = match wrong_row {
            Some(said) => Some(format!("no moment has had {said:?}")),
            None => match &question.filter {
                None => named_wrong(&question.tasks, answer, &look),
                Some(filter) => self.page_wrong(filter, answer, &look),
            },
        };
        if let Some(wrong) = wrong {
            self.fail(format!("{question:?}: {wrong}"));
        }
    }

    /// What the table said of it, to the column.
    fn is_said(&self, said: &TaskRow, row: &Row, detail: bool) -> bool {
        let counts = [said.runs, said.attempts, said.losses, said.releases].map(i64::from);
        let in_lane = said.lane.as_deref() == row.rank.map(|rank| LANES[rank]);
        let text = |payload: &Option<Payload>| {
            payload.as_ref().map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned())
        };
        said.state == row.state
            && said.run_at.unwrap_or(said.created_at) == row.due
            && said.expires_at == row.expires_at
            && said.finished_at.unwrap_or(said.created_at) == row.ended_at
            && counts == [row.runs, row.attempts, row.losses, row.releases]
            && said.cancel_requested == row.cancel_requested
            && said.progress_done.and_then(|done| i64::try_from(done).ok()) == row.progress
            && (&said.unique_key, &said.fair_key) == (&row.unique_key, &row.fair_key)
            && (&said.error, &said.worker) == (&row.error, &row.worker)
            && (in_lane || row.rank.is_none() || !self.follows(row))
            && (!detail || (text(&said.payload), text(&said.result)) == (row.payload.clone(), row.result.clone()))
    }

    fn page_wrong(&self, filter: &Filter, answer: &StatusRows, look: &Look) -> Option<String> {
        let ids: Vec<i64> = answer.rows.iter().map(|row| id(row.id)).collect();
        let (before, next) = (filter.before.map_or(i64::MAX, id), answer.next.map_or(0, id));
        if !ids.is_sorted_by(|a, b| a > b) || ids.iter().any(|task| *task >= before || *task < next) {
            return Some(format!("{ids:?} are no page behind {before} and before {next}"));
        }
        if filter.limit > 0 && ids.len() > filter.limit as usize {
            return Some(format!("{} rows, more than were asked for", ids.len()));
        }
        let lane = |lane: &Option<String>| filter.lane.is_none() || filter.lane == *lane;
        let kind = |kind: &String| filter.kind.as_ref().is_none_or(|wanted| wanted == kind);
        let group = |group: Option<u64>| filter.group.is_none() || filter.group == group;
        let fits = |said: &TaskRow| {
            filter.state.is_none_or(|state| state == said.state) && lane(&said.lane) && group(said.group)
        };
        if let Some(said) = answer.rows.iter().find(|said| !fits(said) || !kind(&said.kind)) {
            return Some(format!("nobody has asked for {said:?}"));
        }
        let met = |row: &Row| {
            let lane = row.rank.map(|rank| LANES[rank].to_owned()).filter(|_| self.follows(row));
            let in_lane = filter.lane.is_none() || (lane.is_some() && filter.lane == lane);
            let in_group = group(row.group.and_then(|group| u64::try_from(group).ok()));
            filter.state.is_none_or(|state| state == row.state) && in_lane && in_group && kind(&row.kind)
        };
        let mut all = look.moments[0].keys().filter(|task| (next.max(1)..before).contains(*task));
        let left_out = all.find(|task| {
            let always = look.moments.iter().all(|rows| rows.get(task).is_some_and(met));
            always && !look.moved.contains(task) && !ids.contains(task)
        });
        left_out.map(|task| format!("task {task} is left out of {ids:?}: {:?}", look.moments[0].get(task)))
    }
}

fn is_same(said: &TaskRow, row: &Row) -> bool {
    let group = row.group.and_then(|group| u64::try_from(group).ok());
    said.kind == row.kind && said.created_at == row.created_at && said.group == group
}

fn named_wrong(tasks: &[TaskId], answer: &StatusRows, look: &Look) -> Option<String> {
    let shown: BTreeSet<TaskId> = answer.rows.iter().map(|row| row.id).collect();
    let is_answered =
        |task: &&TaskId| shown.contains(task) || answer.left.contains(task) || answer.not_found.contains(task);
    if let Some(task) = tasks.iter().find(|task| !is_answered(task)) {
        return Some(format!("nothing is said of task {task}"));
    }
    let is_there = |task: &&TaskId| look.moments.iter().all(|rows| rows.contains_key(&id(**task)));
    answer.not_found.iter().find(is_there).map(|task| format!("task {task} is there and not found"))
}

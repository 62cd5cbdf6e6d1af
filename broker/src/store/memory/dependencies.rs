//! The model's dependencies: the same rules over a plain list of edges.

use std::collections::BTreeSet;
use std::sync::Arc;

use laneway_core::Now;
use laneway_protocol::TaskState;
use rusqlite::types::Value;

use super::Step;
use super::cells::{cell, fair_key, state, task_id, values};
use crate::store::Unstarted;
use crate::store::dependencies::{
    PARENTS_MAX, WALK_MAX, missing_parents, never_waits, ring, too_many_parents, walks_too_far,
};
use crate::store::validate::Bad;

/// A row of `task_dependencies`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) task: i64,
    pub(crate) parent: i64,
    pub(crate) anyway: bool,
    pub(crate) open: bool,
}

impl Step<'_> {
    /// A row has ended. While no edge is known to be open nobody has to hear of it.
    pub(super) fn ended(&mut self, id: i64) {
        if self.news.live {
            self.news.ended.insert(id);
        }
    }

    /// A row waits and is to be looked at.
    pub(super) fn waits(&mut self, id: i64) {
        self.news.live = true;
        self.news.fresh.insert(id);
    }

    pub(super) fn any_open(&self) -> bool {
        self.db.edges.iter().any(|edge| edge.open)
    }

    pub(super) fn resolve(&mut self, now: Now) -> Vec<Unstarted> {
        let mut gone = Vec::new();
        if self.news.fresh.is_empty() && self.news.ended.is_empty() {
            return gone;
        }
        loop {
            if let Some(id) = self.news.ended.pop_first() {
                self.let_go(id, now, &mut gone);
            } else if let Some(id) = self.news.fresh.pop_first() {
                self.settle(id, now, &mut gone);
            } else {
                self.news.live = self.any_open();
                return gone;
            }
        }
    }

    pub(super) fn recheck(&mut self, now: Now) -> Vec<Unstarted> {
        let mut gone = Vec::new();
        if !self.news.live {
            return gone;
        }
        let tasks: BTreeSet<i64> = self.db.edges.iter().filter(|edge| edge.open).map(|edge| edge.task).collect();
        for task in tasks {
            self.settle(task, now, &mut gone);
        }
        self.news.live = !(self.news.fresh.is_empty() && self.news.ended.is_empty()) || self.any_open();
        gone
    }

    fn let_go(&mut self, id: i64, now: Now, gone: &mut Vec<Unstarted>) {
        let Some(ended) = self.state_of(id).filter(|state| state.is_final()) else { return };
        self.close_all(id);
        for at in 0..self.db.edges.len() {
            let edge = self.db.edges[at];
            if edge.parent != id || !edge.open {
                continue;
            }
            self.db.edges[at].open = false;
            if ended != TaskState::Done && !edge.anyway {
                self.fail_child(edge.task, now, gone);
            } else if !self.db.edges.iter().any(|other| other.task == edge.task && other.open) {
                self.promote(edge.task, now, gone);
            }
        }
    }

    fn settle(&mut self, id: i64, now: Now, gone: &mut Vec<Unstarted>) {
        if self.state_of(id) != Some(TaskState::Waiting) {
            return self.close_all(id);
        }
        let edges = self.open_edges(id);
        if edges.len() > PARENTS_MAX {
            return self.refuse(id, &too_many_parents(), now, gone);
        }
        if !self.db.edges.iter().any(|edge| edge.task == id) {
            return self.refuse(id, &never_waits(), now, gone);
        }
        let mut open = edges.len();
        for edge in edges {
            match self.state_of(edge.parent) {
                None => {
                    let parents = self.open_edges(id).into_iter().map(|edge| edge.parent);
                    let missing: Vec<i64> = parents.filter(|parent| self.state_of(*parent).is_none()).collect();
                    return self.refuse(id, &missing_parents(&missing), now, gone);
                }
                Some(ended) if ended == TaskState::Done || (ended.is_final() && edge.anyway) => {
                    let at = self.db.edges.iter().position(|other| *other == edge).expect("it was just read");
                    self.db.edges[at].open = false;
                    open -= 1;
                }
                Some(ended) if ended.is_final() => return self.fail_child(id, now, gone),
                Some(_) if edge.parent >= id => {
                    if let Some(bad) = self.walk(id) {
                        return self.refuse(id, &bad, now, gone);
                    }
                }
                Some(_) => {}
            }
        }
        if open == 0 {
            self.promote(id, now, gone);
        }
    }

    fn promote(&mut self, id: i64, now: Now, gone: &mut Vec<Unstarted>) {
        if self.state_of(id) != Some(TaskState::Waiting) {
            return;
        }
        let row = &self.db.rows[&id];
        let judged = self.judge.key(cell(row, "kind"), cell(row, "lane"));
        let (key, good) = match judged.and_then(|key| Ok((key, self.judge.values(&values(row))?))) {
            Ok(judged) => judged,
            Err(bad) => return self.refuse(id, &bad, now, gone),
        };
        let row = self.db.rows.get_mut(&id).map(Arc::make_mut).expect("it was just read");
        row.insert("state", Value::Text("queued".into()));
        let fair_key = fair_key(row);
        self.news.let_go.push((task_id(id), key.clone()));
        self.queued(key, fair_key, good.run_at, now);
    }

    fn fail_child(&mut self, id: i64, now: Now, gone: &mut Vec<Unstarted>) {
        if self.state_of(id) != Some(TaskState::Waiting) {
            return;
        }
        let parents = self.db.edges.iter().filter(|edge| edge.task == id && !edge.anyway).map(|edge| edge.parent);
        let failed = parents.filter_map(|parent| Some((parent, self.state_of(parent)?)));
        let failed =
            failed.filter(|(_, state)| matches!(state, TaskState::Dead | TaskState::Cancelled)).min_by_key(|f| f.0);
        let Some((parent, how)) = failed else { return };
        gone.push(self.cancelled(id, Some(&format!("task {parent}, which it depends on, is {how}")), now));
        self.close_all(id);
    }

    fn refuse(&mut self, id: i64, bad: &Bad, now: Now, gone: &mut Vec<Unstarted>) {
        gone.push(self.reject(id, bad, now));
        self.close_all(id);
    }

    pub(super) fn walk(&self, id: i64) -> Option<Bad> {
        let parents =
            |task: i64| -> Vec<i64> { self.open_edges(task).into_iter().rev().map(|edge| edge.parent).collect() };
        let (mut path, mut met, mut left) = (Vec::new(), BTreeSet::new(), WALK_MAX);
        let mut next = Some(id);
        while next.is_some() || !path.is_empty() {
            if let Some(at) = next.take() {
                let parents = parents(at);
                let (is_ring, n) = (parents.contains(&id), parents.len());
                path.push((at, parents));
                if is_ring {
                    let ids: Vec<i64> = path.iter().map(|(task, _)| *task).chain([id]).collect();
                    return Some(ring(&ids));
                }
                if n > left {
                    return Some(walks_too_far());
                }
                left -= n;
            }
            match path.last_mut().and_then(|(_, parents)| parents.pop()) {
                None => drop(path.pop()),
                Some(parent) => next = met.insert(parent).then_some(parent),
            }
        }
        None
    }

    pub(super) fn open_edges(&self, id: i64) -> Vec<Edge> {
        let mut edges: Vec<Edge> = self.db.edges.iter().filter(|edge| edge.task == id && edge.open).copied().collect();
        edges.sort_by_key(|edge| edge.parent);
        edges
    }

    fn close_all(&mut self, id: i64) {
        self.db.edges.iter_mut().filter(|edge| edge.task == id).for_each(|edge| edge.open = false);
    }

    pub(super) fn state_of(&self, id: i64) -> Option<TaskState> {
        self.db.rows.get(&id).map(|row| state(row))
    }
}

//! The moments of the table since a question came in: an answer that is read from it shows one of them.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::ReplyTo;
use laneway_protocol::TaskId;
use laneway_protocol::message::Request;

use super::{Auditor, id};
use crate::row::Row;

pub(super) type Rows = BTreeMap<i64, Row>;

#[derive(Debug, Default)]
pub(super) struct Looks(BTreeMap<ReplyTo, Look>);

/// What an open question may be answered with.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The oldest first.
    pub(super) moments: Vec<Rows>,
    /// Tasks that may have been something else in the middle of a turn.
    pub(super) moved: BTreeSet<i64>,
}

impl Look {
    /// Whether a task may have been something that no moment shows: it is new, or was changed more than once in a turn.
    pub(super) fn may_change(&self, task: TaskId) -> bool {
        let is_new = self.moments.first().is_none_or(|rows| !rows.contains_key(&id(task)));
        is_new || self.moved.contains(&id(task))
    }
}

impl Auditor {
    pub(super) fn looks_on_start(&mut self) {
        self.looks.0.clear();
    }

    pub(super) fn looks_on_asked(&mut self, reply: ReplyTo, request: &Request) {
        if matches!(request, Request::Status(_) | Request::Group(_)) {
            self.looks.0.insert(reply, Look { moments: vec![self.rows.clone()], moved: BTreeSet::new() });
        }
    }

    pub(super) fn take_look(&mut self, reply: ReplyTo) -> Look {
        self.looks.0.remove(&reply).unwrap_or_default()
    }

    /// The table may have become another one, or is about to.
    pub(super) fn looks_on_rows(&mut self) {
        if self.looks.0.is_empty() {
            return;
        }
        let moved = self.rows.iter().filter(|(task, row)| !self.stands_still(**task, row));
        let moved: Vec<i64> = moved.map(|(task, _)| *task).collect();
        for look in self.looks.0.values_mut() {
            look.moved.extend(&moved);
            if look.moments.last() != Some(&self.rows) {
                look.moments.push(self.rows.clone());
            }
        }
    }
}

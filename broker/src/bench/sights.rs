//! What there is to see in a table that has been in use for long, and who looks at what: groups, schedules and dead tasks beside
//! the finished and the queued ones; the tabs that stay open, and every page that somebody may open meanwhile.

use super::drain;
use super::stage::Stage;
use super::worker::NOOP;
use crate::error::Error;

/// Rows of one transaction.
const PAGE: u32 = 100_000;
const GROUPS: u32 = 200;
const SCHEDULES: u32 = 100;
/// One row in so many is in a group: most apps have none, and groups are no part of what is measured.
const GROUPED_EACH: u32 = 100;

/// How many rows of each sort, by id: dead ones, finished ones, queued ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sights {
    dead: u32,
    finished: u32,
    queued: u32,
}

impl Sights {
    /// As many finished rows as queued ones.
    pub(super) fn of(rows: u32, dead: u32) -> Self {
        Self { dead, finished: rows, queued: rows }
    }

    pub(super) fn tasks(&self) -> u32 {
        self.dead + self.finished + self.queued
    }

    /// Inserts all of it. The lane of the queued rows must be paused.
    pub(super) fn insert(&self, stage: &Stage<'_>) -> Result<(), Error> {
        stage.insert_dead(NOOP, self.dead)?;
        for from in (0..self.finished).step_by(PAGE as usize) {
            stage.insert_finished(NOOP, PAGE.min(self.finished - from))?;
        }
        for from in (0..self.queued).step_by(PAGE as usize) {
            stage.insert(NOOP, None, PAGE.min(self.queued - from), |_| drain::payload())?;
        }
        stage.group(GROUPS, GROUPED_EACH)?;
        stage.schedule(NOOP, SCHEDULES)
    }

    /// What this tab shows at first, and the page whose live parts it follows then. Each that looks at a task has its own, which is
    /// run while it is looked at.
    pub(super) fn tab(&self, n: u32, tabs: u32) -> (String, String) {
        let task = 1 + self.dead + self.finished + n * (self.queued / tabs.max(1) / 2);
        match n % 8 {
            0 => ("/".into(), "overview".into()),
            1 => ("/lanes".into(), "lanes".into()),
            2 => ("/workers".into(), "workers".into()),
            3 => ("/tasks".into(), "tasks?".into()),
            4 | 5 => (format!("/tasks/{task}"), format!("task:{task}")),
            6 => ("/groups/1".into(), "group:1".into()),
            _ => ("/dead".into(), "dead".into()),
        }
    }

    /// Every screen, and the looks into the table that have most to walk over.
    pub(super) fn pages(&self) -> Vec<String> {
        let (done, queued) = (1 + self.dead, 1 + self.dead + self.finished);
        let pages = [
            "/",
            "/lanes",
            "/workers",
            "/tasks",
            "/tasks?state=done",
            "/tasks?state=dead",
            "/tasks?state=queued&q=kind:noop",
            "/tasks?q=kind:no-such-kind",
            "/tasks?q=group:1",
            "/tasks?q=error:%22no%20route%22",
            // The first task is dead.
            "/tasks/1",
            &format!("/tasks/{done}"),
            &format!("/tasks/{queued}"),
            &format!("/tasks?q=id:{done}"),
            "/dead",
            "/groups",
            "/groups/1",
            "/schedules",
            "/about",
            "/api/v1/tasks?state=done&q=kind:noop",
            "/api/v1/groups/1",
        ];
        pages.map(Into::into).into()
    }
}

//! Tasks that go with those who wait: one is cancelled without anybody's word only when it is at stake and nobody has waited for it
//! for the grace, and then it is.

use std::collections::{BTreeMap, BTreeSet};

use laneway_core::{Edit, Event, Op, OpId, OpResult, ReplyTo};
use laneway_protocol::message::{Answer, Request};
use laneway_protocol::{RequestId, TaskId};

use super::by_key::has_key;
use super::{Auditor, Open, id};
use crate::plan::{ABANDON_GRACE_MS, RESUME_GRACE_MS};

/// Of a task that was given up before it had started.
pub(super) const GIVEN_UP: &str = "its last waiter left";
/// A turn of the router behind the deadline.
const SLACK_MS: u64 = 300;

/// What this broker has heard of it.
#[derive(Debug, Default)]
pub(super) struct Stakes {
    tasks: BTreeMap<i64, Stake>,
    /// Submits on their way to the store.
    submits: BTreeMap<OpId, RequestId>,
    /// Keys that are looked up for somebody who waits, and the tasks that were found.
    keys: BTreeMap<OpId, ReplyTo>,
    found: BTreeMap<ReplyTo, i64>,
    /// Asked to be cancelled.
    given_up: BTreeSet<i64>,
    /// Ended by it in this turn.
    pub(super) ended: BTreeSet<i64>,
    /// Of the last start or stall.
    away: u64,
}

#[derive(Debug, Default)]
struct Stake {
    /// The broker has surely taken it in.
    sure: bool,
    /// Since when nobody waits.
    alone: Option<u64>,
    /// The submit that made it counts as one who waits while it is open.
    submit: Option<RequestId>,
}

impl Auditor {
    pub(super) fn stakes_on_start(&mut self, now: u64) {
        self.stakes = Stakes { away: now, ..Stakes::default() };
    }

    pub(super) fn stakes_on_stall(&mut self, now: u64) {
        self.stakes.away = now;
    }

    /// Somebody asks: from then on the tasks may be at stake.
    pub(super) fn stakes_on_asked(&mut self, request: &Request) {
        if let Request::WaitFor(wait) = request
            && wait.abandon
        {
            for task in &wait.tasks {
                self.stakes.tasks.entry(id(*task)).or_default();
            }
        }
    }

    pub(super) fn stakes_on_answer(&mut self, request: &Request, answer: &Answer) {
        if let (Request::WaitFor(wait), Answer::WaitFor(_)) = (request, answer)
            && wait.abandon
        {
            for task in &wait.tasks {
                self.stakes.tasks.entry(id(*task)).or_default().sure = true;
            }
        }
    }

    /// What the core is told: a submit is on disk, or the task with a key is known.
    pub(crate) fn stakes_on_event(&mut self, event: &Event) {
        let Event::Committed(results) = event else { return };
        for (op, result) in results {
            if let (Some(reply), OpResult::Found(found)) = (self.stakes.keys.remove(op), result)
                && let (Some(row), Some(Open { request: Request::WaitFor(wait), gone: false, .. })) =
                    (found.first(), self.open.get(&reply))
            {
                self.stakes.found.insert(reply, id(row.id));
                if wait.abandon {
                    self.stakes.tasks.entry(id(row.id)).or_default();
                }
            }
            let Some(request) = self.stakes.submits.remove(op) else { continue };
            let OpResult::Submitted(stored) = result else { continue };
            for stored in stored.iter().filter(|stored| stored.new) {
                let stake = self.stakes.tasks.entry(id(stored.task)).or_default();
                (stake.sure, stake.submit) = (true, Some(request));
            }
        }
    }

    /// The core gives tasks up: nobody waits for them.
    pub(super) fn stakes_on_op(&mut self, number: Option<OpId>, op: &Op) {
        match op {
            Op::Submit { request, .. } => {
                let abandons = |open: &Open| matches!(&open.request, Request::Submit(submit) if submit.request == *request && submit.abandon);
                if self.open.values().any(abandons) {
                    self.stakes.submits.extend(number.map(|number| (number, *request)));
                }
            }
            // Looked up as soon as somebody asks.
            Op::FindKey { .. } => self.stakes.keys.extend(number.zip(self.cron.asking())),
            Op::Edit { edit: Edit::Abandon, tasks } => tasks.iter().for_each(|task| self.check_given_up(*task)),
            _ => {}
        }
    }

    fn check_given_up(&mut self, task: TaskId) {
        let task = id(task);
        let live = self.rows.get(&task).is_some_and(|row| !row.state.is_final());
        self.stakes.given_up.insert(task);
        self.cancelled.insert(task);
        if !live || self.touched.contains(&task) || self.requeued.contains(&task) {
            return;
        }
        self.tally.abandoned += 1;
        let wrong = match self.stakes.tasks.get(&task) {
            None => Some("nobody has put it at stake"),
            Some(_) if self.now < self.stakes.away + RESUME_GRACE_MS => Some("the broker itself was away"),
            Some(stake) if self.waited_by_id(task, stake) => Some("somebody waits for it"),
            Some(stake) => {
                let alone = stake.alone.is_some_and(|since| self.now >= since + ABANDON_GRACE_MS);
                (!alone).then_some("its last waiter has left a moment ago")
            }
        };
        if let Some(wrong) = wrong {
            let stake = self.stakes.tasks.get(&task);
            self.fail(format!("task {task} is given up though {wrong}: {stake:?}"));
        }
    }

    /// Whoever waits is there for all of a router's turn.
    pub(super) fn check_stakes(&mut self) {
        let live = |task: &i64| self.rows.get(task).is_some_and(|row| !row.state.is_final());
        let open = &self.open;
        self.stakes.found.retain(|reply, _| open.contains_key(reply));
        let mut stakes = std::mem::take(&mut self.stakes.tasks);
        stakes.retain(|task, _| live(task));
        for (task, stake) in &mut stakes {
            stake.sure |= self.open.iter().any(|(reply, open)| {
                let abandons = matches!(&open.request, Request::WaitFor(wait) if wait.abandon);
                !open.gone && abandons && self.waits_for(*reply, open, *task)
            });
            if self.waited_by_id(*task, stake) {
                stake.alone = None;
            } else {
                stake.alone.get_or_insert(self.now);
            }
        }
        self.stakes.tasks = stakes;
        let late = self.stakes.tasks.iter().find(|(task, stake)| {
            let Some(since) = stake.alone.filter(|_| stake.sure && !self.stakes.given_up.contains(task)) else {
                return false;
            };
            // Whatever stood in the way of a turn, or of the store, is over for as long as nothing is given up after it.
            let excused = self.stakes.away.max(self.disturbed) + RESUME_GRACE_MS + ABANDON_GRACE_MS;
            let odd = self.touched.contains(task) || self.requeued.contains(task) || self.cancelled.contains(task);
            !odd && !self.waited_otherwise(**task) && self.now > (since + ABANDON_GRACE_MS).max(excused) + SLACK_MS
        });
        if let Some((task, stake)) = late {
            let found = format!("task {task} is at stake, nobody waits, and it is not given up: {stake:?}");
            self.fail(found);
        }
    }

    fn waited_by_id(&self, task: i64, stake: &Stake) -> bool {
        let submitted = |open: &Open| {
            let Request::Submit(submit) = &open.request else { return false };
            submit.wait_ms > 0 && stake.submit == Some(submit.request)
        };
        self.open.iter().any(|(reply, open)| !open.gone && (self.waits_for(*reply, open, task) || submitted(open)))
    }

    /// Whether this is a wait for the task, by its id or by the key under which it was found.
    fn waits_for(&self, reply: ReplyTo, open: &Open, task: i64) -> bool {
        names(open, task) || self.stakes.found.get(&reply) == Some(&task)
    }

    /// Somebody asks for its group, or by its key, and may wait for it.
    fn waited_otherwise(&self, task: i64) -> bool {
        let Some(row) = self.rows.get(&task) else { return false };
        let asks = |open: &Open| {
            let Request::WaitFor(wait) = &open.request else { return false };
            has_key(row, wait)
                || row.group.is_some() && wait.group.and_then(|group| i64::try_from(group).ok()) == row.group
        };
        self.open.values().any(asks)
    }
}

fn names(open: &Open, task: i64) -> bool {
    matches!(&open.request, Request::WaitFor(wait) if wait.tasks.iter().any(|of| id(*of) == task))
}

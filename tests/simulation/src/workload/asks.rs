//! Clients that ask for the same work again and again: by keys of their own or of payloads, around the end of what they ask for.

use laneway_protocol::message::{NewTask, OnConflict, Request, Submitted, Tasks, WaitFor};
use laneway_protocol::{Payload, TaskId};

use super::KEYS;
use crate::plan::{KINDS, kind};
use crate::random::Random;
use crate::world::World;

/// So many of the latest tasks with keys are asked for again.
const REMEMBERED: usize = 4;

#[derive(Debug)]
pub(crate) struct Asks {
    random: Random,
    latest: Vec<NewTask>,
}

impl Asks {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, 43), latest: Vec::new() }
    }
}

impl World {
    /// In runs with many callers: a task that others ask for too.
    pub(super) fn coalesce(&mut self, task: &mut NewTask) {
        if !self.plan.callers {
            return;
        }
        let Asks { random, latest } = &mut self.asks;
        if !latest.is_empty() && random.chance(40) {
            let before = random.pick(latest).clone();
            (task.kind, task.payload) = (before.kind, before.payload);
            (task.unique_key, task.unique_by_payload) = (before.unique_key, before.unique_by_payload);
        } else if task.unique_key.is_none() && random.chance(40) {
            task.unique_by_payload = true;
            task.payload = random.chance(80).then(|| Payload::json(random.below(3).to_string()));
        }
        if task.unique_key.is_none() && !task.unique_by_payload {
            return;
        }
        if !task.unique_by_payload {
            task.payload = Some(Payload::json(random.below(10).to_string()));
        }
        let wishes = [OnConflict::Keep, OnConflict::Keep, OnConflict::Replace, OnConflict::Replace, OnConflict::Reject];
        task.on_conflict = *random.pick(&wishes);
        task.unique_for_ms = random.chance(60).then(|| random.between(1, 4_000));
        if latest.len() == REMEMBERED {
            latest.remove(0);
        }
        latest.push(task.clone());
    }

    /// Some change their mind about what they have replaced, and then again: perhaps while a worker with the old payload is away.
    pub(super) fn after_replacing(&mut self, stored: &Submitted) -> Vec<Request> {
        let Asks { random, .. } = &mut self.asks;
        let replaced = stored.tasks.iter().filter(|stored| stored.replaced).map(|stored| stored.task);
        let tasks: Vec<TaskId> = replaced.filter(|_| random.chance(60)).collect();
        if tasks.is_empty() {
            return Vec::new();
        }
        let tasks = Tasks { tasks };
        vec![Request::Requeue(tasks.clone()), Request::Cancel(tasks)]
    }

    /// Some know a key and no id. They go on with the id that they are told.
    pub(super) fn by_key(&mut self, wait: WaitFor) -> WaitFor {
        let random = &mut self.asks.random;
        if !self.plan.callers || !random.chance(20) {
            return wait;
        }
        let (kind, key) = (kind(random.pick::<&str>(&KINDS)), (*random.pick(&KEYS)).to_owned());
        WaitFor { tasks: Vec::new(), kind: Some(kind), unique_key: Some(key), ..wait }
    }
}

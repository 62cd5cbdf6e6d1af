//! A worker's slot that runs one task at a time, and ends it with the question for the next.

use laneway_protocol::message::{Answer, Bye, HandedTask, Outcome, Ready, Request};
use laneway_protocol::{LaneName, TaskId};

use super::world::{World, bye, done, plain};

pub(super) struct Slot {
    pub(super) name: &'static str,
    conn: u64,
    pub(super) kinds: &'static [&'static str],
    /// All of them, or some.
    pub(super) lanes: Option<Vec<LaneName>>,
    /// What its next question says of the task before.
    pub(super) outcomes: Vec<Outcome>,
    seq: u64,
}

impl Slot {
    pub(super) fn new(name: &'static str, conn: u64, kinds: &'static [&'static str]) -> Self {
        Self { name, conn, kinds, lanes: None, outcomes: Vec::new(), seq: 0 }
    }

    pub(super) fn take(&mut self, world: &mut World) -> Option<TaskId> {
        self.take_task(world).map(|task| task.task)
    }

    /// Ends its task and takes the next.
    pub(super) fn take_task(&mut self, world: &mut World) -> Option<HandedTask> {
        let question = Ready {
            outcomes: std::mem::take(&mut self.outcomes),
            batch: Some(self.seq + 1),
            ack: Some(self.seq),
            wait_ms: 0,
            lanes: self.lanes.clone(),
            ..plain(self.name, self.kinds)
        };
        let reply = world.ask(self.conn, Request::Ready(question));
        let Some(Answer::Tasks(mut tasks)) = world.answers.remove(&reply) else { return None };
        self.seq = tasks.seq;
        let task = tasks.tasks.swap_remove(0);
        self.outcomes = vec![done(task.task.value(), task.lease)];
        Some(task)
    }

    /// Ends its task and goes.
    pub(super) fn leave(&mut self, world: &mut World) {
        let outcomes = std::mem::take(&mut self.outcomes);
        world.ask(self.conn, Request::Bye(Bye { outcomes, ..bye(self.name) }));
        self.seq = 0;
    }
}

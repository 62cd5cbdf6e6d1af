//! What the handlers in worker processes do: succeed, fail, hang, take their process down, say words of progress. Each does
//! what the seed says of its task and run, whatever else is different.

use laneway_protocol::message::{After, End, Held, NewTask, Outcome, Payload, Progress, Request};

use super::Run;
use crate::plan::{Fault, KINDS, kind};
use crate::random::Random;
use crate::world::{Due, Peer, Tag, World};

/// One that waits for nobody, one that waits for it, one for the task that spawns them; some join its group.
fn spawned(random: &mut Random, own: Held) -> Vec<NewTask> {
    let afters = [
        None,
        Some(After { number: Some(0), anyway: random.chance(50), ..After::default() }),
        Some(After { task: Some(own.0), ..After::default() }),
    ];
    let n = random.index(3) + 1;
    let task = |after: Option<After>| {
        let join = random.chance(60);
        NewTask { after: after.into_iter().collect(), join, ..NewTask::new(kind(random.pick::<&str>(&KINDS)), None) }
    };
    afters.into_iter().take(n).map(task).collect()
}

impl World {
    pub(super) fn run_task(&mut self, at: usize, slot: usize) {
        let calm = self.calm || !self.plan.has(Fault::Handlers);
        let seed = self.plan.seed;
        let place = &mut self.workers[at].slots[slot];
        let Some(received) = place.link.start() else { return };
        let task = received.task;
        let held = Held(task.task, task.lease);
        // What a handler does hangs on its task and run alone.
        let mut random = Random::new(seed, task.task.value() * 1_000 + u64::from(task.run));
        let (mut outcome, ms) = (Outcome::new(held.0, held.1, End::Done), random.between(1, 40));
        outcome.result = Some(Payload::json(format!("\"{}\"", task.lease)));
        let mut ms = ms;
        let mut kills = false;
        if !calm {
            match random.below(100) {
                0..12 => ms = random.between(300, 2_500),
                12..15 => ms = u64::MAX,
                15..17 => kills = true,
                _ => {}
            }
            match random.below(100) {
                0..14 => (outcome.end, outcome.error) = (End::Fail, Some("no".into())),
                14..17 => (outcome.end, outcome.dead) = (End::Fail, true),
                17..22 => (outcome.end, outcome.after_ms) = (End::Snooze, Some(random.between(0, 300))),
                22..25 => outcome.end = End::Release,
                25..27 => outcome.end = End::Cancelled,
                27..33 => outcome.spawn = spawned(&mut random, held),
                _ => {}
            }
            if outcome.end != End::Done {
                outcome.result = None;
            }
        }
        place.run = Some(Run { held, outcome, listens: random.chance(70), kills });
        let name = self.workers[at].name.clone();
        self.note(format_args!("{name} slot {slot} runs {held:?}"));
        if ms < u64::MAX {
            self.due_in(ms, Due::Finish { worker: at, slot, held });
        }
        if random.chance(50) {
            let says = random.between(0, ms.min(1_500));
            self.due_in(says, Due::Say { worker: at, slot, held });
        }
    }

    fn runs(&self, at: usize, slot: usize, held: Held) -> bool {
        let place = self.workers[at].slots.get(slot);
        place.and_then(|place| place.run.as_ref()).is_some_and(|run| run.held == held)
    }

    pub(crate) fn finish(&mut self, at: usize, slot: usize, held: Held) {
        if !self.runs(at, slot, held) {
            return;
        }
        let now = self.now;
        let place = &mut self.workers[at].slots[slot];
        let run = place.run.take().expect("just looked up");
        if run.kills {
            return self.kill_worker(at);
        }
        if place.link.finish(run.outcome.clone(), now) {
            place.finished.push(run.outcome);
        }
        self.drive_worker(at);
    }

    pub(crate) fn say(&mut self, at: usize, slot: usize, held: Held) {
        if !self.runs(at, slot, held) {
            return;
        }
        // A handler says its words whether or not it is still wanted.
        let peer = Peer::Worker { worker: at, line: slot };
        let before = self.workers[at].slots[slot].line.conn;
        let again = self.net.between(50, 400);
        self.due_in(again, Due::Say { worker: at, slot, held });
        // Most words are as long as a word may be.
        let note = self.net.chance(80).then(|| "x".repeat(8_000));
        let Some(conn) = self.connect(peer, before) else { return };
        self.workers[at].slots[slot].line.conn = Some(conn);
        let progress = Progress {
            session: self.workers[at].name.clone(),
            task: held.0,
            lease: held.1,
            done: Some(self.now),
            total: None,
            note,
            extend_ms: None,
            data: None,
            log: None,
            checkpoint: None,
            parents: None,
        };
        let word = self.word(progress);
        self.send(conn, Tag::Progress(held), Request::Progress(word));
    }
}

//! Whole-state consistency, asserted after each event in tests and in the simulation. Slow on purpose.

use crate::broker::Broker;
use crate::settle::{Pending, Question};
use crate::timer::Timer;
use crate::worker::SlotId;

impl Broker {
    /// Panics when the broker's own state contradicts itself.
    pub fn check(&self) {
        self.dispatch.check();
        self.workers.check();
        self.waiters.check();
        self.check_running();
        self.check_slots();
        self.check_settling();
        for (reply, question) in &self.questions {
            let (Question::Ready(crate::settle::ReadyQuestion { late_at, .. })
            | Question::Hello(crate::settle::HelloQuestion { late_at, .. })
            | Question::Bye(crate::settle::ByeQuestion { late_at, .. })
            | Question::Simple { late_at }) = question;
            assert!(self.timers.contains(*late_at, Timer::Question(*reply)), "question {reply:?} has no deadline");
        }
    }

    /// A task has at most one live lease, a deadline, and stands in one place.
    fn check_running(&self) {
        for (id, task) in &self.running {
            assert!(self.timers.contains(task.deadline, Timer::Lease(*id)), "the lease of task {id} has no deadline");
            assert!(!self.dispatch.is_read_ahead(*id), "task {id} runs and is queued");
            assert!(!self.settling.contains_key(id), "task {id} runs and has ended");
            if let Some(session) = task.session {
                assert!(self.workers.get(session).running.contains(id), "task {id} is unknown to its session");
            }
        }
        for (id, session) in self.workers.iter() {
            for task in &session.running {
                assert_eq!(self.running.get(task).and_then(|task| task.session), Some(id), "task {task} of another session");
            }
            if let Some(suspect) = session.suspect {
                assert!(session.running.contains(&suspect), "suspect {suspect} does not run");
            }
        }
    }

    fn check_slots(&self) {
        let mut parked = 0;
        for (session, about) in self.workers.iter() {
            for (&slot, state) in &about.slots {
                let id = SlotId { session, slot };
                if let Some(place) = &state.parked {
                    parked += 1;
                    assert!(self.timers.contains(place.until, Timer::Parked(id)), "{id:?} is parked without an end");
                    assert!(self.dispatch.ready_slots(state.class).any(|ready| ready == id), "{id:?} is not in line");
                    assert!(state.question.is_none(), "{id:?} has two open questions");
                }
            }
        }
        assert_eq!(self.dispatch.ready(), parked, "slots in line and slots parked");
    }

    fn check_settling(&self) {
        for (task, (_, op)) in &self.settling {
            let found = matches!(self.pending.get(op), Some(Pending::End(end)) if end.task == *task);
            assert!(found, "task {task} settles without an operation");
        }
    }
}

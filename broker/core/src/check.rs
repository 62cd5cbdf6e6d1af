//! Whole-state consistency, asserted after each event in tests and in the simulation. Slow on purpose.

use laneway_protocol::TaskId;
use laneway_protocol::message::Held;

use crate::abandon::promised_marks;
use crate::broker::Broker;
use crate::dispatch::Idle;
use crate::settle::Pending;
use crate::timer::Timer;
use crate::worker::SlotId;

impl Broker {
    /// Asserts that the broker's state does not contradict itself.
    ///
    /// # Panics
    /// When it does: a bug of the core.
    pub fn check(&self) {
        self.dispatch.check();
        self.workers.check();
        self.waiters.check();
        self.batches.check();
        self.check_running();
        self.check_slots();
        self.check_settling();
        self.check_gates();
        self.check_secured();
        self.check_abandon();
        for (group, until) in self.waiters.crowds_kept() {
            assert!(self.timers.contains(until, Timer::Crowd(group)), "the crowd of group {group} has no deadline");
        }
        for (reply, question) in &self.questions {
            assert!(
                self.timers.contains(question.late_at(), Timer::Question(*reply)),
                "question {reply:?} has no deadline"
            );
        }
    }

    /// A task has at most one live lease, a deadline, and stands in one place.
    fn check_running(&self) {
        for (id, task) in &self.running {
            assert!(self.timers.contains(task.deadline, Timer::Lease(*id)), "the lease of task {id} has no deadline");
            let noted = task.note_at().is_none_or(|at| self.timers.contains(at, Timer::Note(*id)));
            assert!(noted, "the progress of task {id} is not written in time");
            assert!(!self.dispatch.is_read_ahead(*id), "task {id} runs and is queued");
            assert!(!self.settling.contains_key(id), "task {id} runs and has ended");
            if let Some(session) = task.session {
                assert!(self.workers.get(session).running.contains(id), "task {id} is unknown to its session");
            }
        }
        for (id, session) in self.workers.iter() {
            for task in &session.running {
                assert_eq!(
                    self.running.get(task).and_then(|task| task.session),
                    Some(id),
                    "task {task} of another session"
                );
            }
            let suspects: Vec<TaskId> =
                session.running.iter().copied().filter(|task| self.running[task].losses > 0).collect();
            match session.suspect {
                Some(suspect) => assert!(suspects.contains(&suspect), "{suspect} is no suspect that runs"),
                None => assert!(suspects.is_empty(), "suspects {suspects:?} are not known as such"),
            }
        }
    }

    fn check_slots(&self) {
        for (id, session) in self.workers.iter().filter(|(_, session)| session.drain.is_some()) {
            assert!(
                session.slots.values().all(|slot| slot.parked.is_none()),
                "{id:?} is to leave and waits for a task"
            );
        }
        let mut parked = 0;
        for (session, about) in self.workers.iter() {
            for (&slot, state) in &about.slots {
                let id = SlotId { session, slot };
                if let Some(place) = &state.parked {
                    parked += 1;
                    assert!(self.timers.contains(place.until, Timer::Parked(id)), "{id:?} is parked without an end");
                    let idle = Idle { since: place.idle, class: state.class, slot: id };
                    assert!(self.dispatch.is_idle(idle), "{id:?} is not in line");
                    assert!(state.question.is_none(), "{id:?} has two open questions");
                    let takes = |suspect: bool| !suspect || about.suspect.is_none();
                    let at_hand = self.dispatch.choices(state.class).find(|head| takes(head.suspect));
                    assert!(at_hand.is_none() || !self.is_handing_out(), "{id:?} waits beside {at_hand:?}");
                }
            }
        }
        assert_eq!(self.dispatch.ready(), parked, "slots in line and slots parked");
    }

    fn check_secured(&self) {
        let secured = self.pending.iter().filter_map(|pending| match pending {
            Pending::Submit { secured, .. } => Some(secured),
            _ => None,
        });
        let mut n_secured = 0;
        for Held(task, _) in secured.flatten() {
            n_secured += 1;
            assert!(self.secured.contains(*task), "task {task} is to be replaced and may start");
            assert!(!self.dispatch.is_read_ahead(*task), "task {task} is to be replaced and read ahead");
        }
        assert_eq!(n_secured, self.secured.len(), "tasks kept for submits that are over");
    }

    /// A marked task has somebody who waits for it, or a deadline.
    fn check_abandon(&self) {
        for (task, at) in self.marks.iter() {
            assert_eq!(at.is_none(), self.waiters.is_watched(task), "task {task} is marked and given up at {at:?}");
            assert!(at.is_none_or(|at| self.timers.contains(at, Timer::Abandon(task))), "task {task} has no deadline");
        }
        let promised = self.pending.iter().map(|pending| match pending {
            Pending::Submit { promised, .. } => *promised,
            Pending::Twins { submit, .. } => promised_marks(submit),
            _ => 0,
        });
        assert_eq!(promised.sum::<usize>(), self.marks.promised(), "places kept for submits that are over");
    }

    fn check_settling(&self) {
        for (task, settling) in &self.settling {
            let found = matches!(self.pending.get(settling.op), Some(Pending::End(end)) if end.task == *task);
            assert!(found, "task {task} settles without an operation");
        }
    }
}

//! What is said: to those who ask, and what they may rely on from then on.

use laneway_core::{Now, ReplyTo};
use laneway_protocol::message::{Answer, Drained, End, HandedTask, Outcome, OutcomeCode, Request, Waited};
use laneway_protocol::{Code, TaskState};

use super::{Auditor, held, id};
use crate::plan::LANES;

impl Auditor {
    pub(crate) fn on_answer(&mut self, reply: ReplyTo, answer: &Answer, now: Now) {
        let Some(open) = self.open.remove(&reply) else {
            return self.fail(format!("{reply:?} is answered and nobody asks"));
        };
        self.stakes_on_answer(&open.request, answer);
        match (&open.request, answer) {
            (Request::Submit(submit), Answer::Submit(stored)) => {
                self.check_submitted(submit, stored);
                self.on_window_promised(submit, stored);
                for task in stored.tasks.iter().map(|stored| id(stored.task)) {
                    if !self.synced.contains_key(&task) && !self.is_gone(task) {
                        self.fail(format!("task {task} is acknowledged and not on disk"));
                    }
                    self.promises.stored.insert(task);
                }
            }
            (Request::Hello(hello), Answer::Welcome(welcome)) => {
                self.promises.void.extend(welcome.lost.iter().map(held));
                if !hello.more {
                    self.peers.welcome.insert(hello.session.to_string());
                }
            }
            (Request::Progress(progress), Answer::Progress(noted)) => {
                if progress.parents.is_some() {
                    self.check_parents(reply, progress, noted);
                }
                self.is_current(id(progress.task), progress.lease.value(), "progress is taken");
                self.on_progress_taken(progress);
                self.on_checkpoint_taken(progress);
            }
            (Request::Drain(drain), Answer::Drain(drained)) => {
                if let Some(worker) = &drain.worker {
                    self.on_worker_drain(worker, drained);
                }
            }
            (Request::Ready(ready), Answer::Tasks(tasks)) => {
                // What is committed first was chosen a while ago: before a drain, perhaps, and before others came.
                let is_chosen_now = !ready.committed;
                if is_chosen_now && self.peers.drained.contains(ready.session.as_str()) {
                    self.fail(format!("{} is to leave and is given {:?}", ready.session, tasks.tasks));
                }
                self.on_outcomes(&ready.outcomes, &tasks.outcomes);
                for task in &tasks.tasks {
                    self.has_payload_of_row(task);
                    self.has_checkpoint_of_row(task);
                    self.check_told(task);
                    let rank = LANES.iter().position(|lane| *lane == task.lane.as_str()).expect("one of ours");
                    self.count_shares(ready, rank, now);
                    if is_chosen_now
                        && let Some(first) = self.goes_first(ready, rank, now)
                        && !self.is_owed(rank)
                    {
                        self.fail(format!("task {} of lane {} starts before {first}", task.task, task.lane));
                    }
                }
            }
            (Request::Ready(ready), Answer::Wait(wait)) => self.on_outcomes(&ready.outcomes, &wait.outcomes),
            (Request::Kinds(_), Answer::Kinds(_))
            | (Request::Lanes(_), Answer::Lanes(_))
            | (Request::FairKeys(_), Answer::FairKeys(_)) => {
                self.on_limit_answered(reply);
            }
            (Request::WaitFor(_), Answer::WaitFor(Waited { group: Some(row), .. }))
            | (Request::Group(_), Answer::Group(row)) => {
                self.check_group(row);
                match (&open.request, answer) {
                    (Request::Group(about), _) => self.on_group_answer(reply, about, row),
                    (Request::WaitFor(question), Answer::WaitFor(waited)) => self.check_news(question, open.at, waited),
                    _ => {}
                }
            }
            (Request::WaitFor(question), Answer::WaitFor(waited)) => {
                self.check_found(reply, question, waited);
                self.check_news(question, open.at, waited);
            }
            (Request::WaitFor(question), Answer::Error(error)) if error.code == Code::NotFound => {
                self.check_not_found(reply, question);
            }
            (Request::Bye(bye), Answer::Bye(codes)) => self.on_outcomes(&bye.outcomes, &codes.outcomes),
            (Request::Status(question), Answer::Status(rows)) => self.check_status(reply, question, rows),
            (Request::Schedules(_), Answer::Schedules(rows)) => {
                self.check_schedules_shown(rows);
                self.cron_on_answer(reply);
            }
            (Request::Bulk(bulk), Answer::Bulk(bulked)) => self.on_bulk_answer(bulk, bulked),
            (Request::Beat(_), Answer::Beat(noted)) => self.promises.void.extend(noted.stale.iter().map(held)),
            _ => {}
        }
    }

    /// A task is handed out with what its row says, and not with what a submit has replaced.
    fn has_payload_of_row(&mut self, task: &HandedTask) {
        let handed = task.payload.as_ref().map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned());
        let row = self.rows.get(&id(task.task)).filter(|_| !self.touched.contains(&id(task.task)));
        if let Some(row) = row.filter(|row| row.payload != handed) {
            let found = format!("task {} is handed out with {handed:?}, its row says {:?}", task.task, row.payload);
            self.fail(found);
        }
    }

    fn on_worker_drain(&mut self, worker: &str, drained: &Drained) {
        if drained.draining {
            self.peers.drained.insert(worker.to_owned());
            self.tally.drained += 1;
        } else {
            self.peers.drained.remove(worker);
        }
    }

    fn on_outcomes(&mut self, said: &[Outcome], codes: &[OutcomeCode]) {
        for (word, code) in said.iter().zip(codes) {
            let held = (id(word.task), word.lease.value());
            match code {
                OutcomeCode::Ok if !self.leases.ended_by_word.contains(&held) => {
                    self.fail(format!(
                        "the outcome of task {} under lease {:x} is taken and ends nothing",
                        held.0, held.1
                    ));
                }
                OutcomeCode::Ok => {}
                OutcomeCode::Stale => {
                    self.tally.stale += 1;
                    self.promises.void.insert(held);
                }
                _ => _ = self.promises.void.insert(held),
            }
        }
    }

    /// A worker was told that an outcome needs no repeating.
    pub(crate) fn on_let_go(&mut self, word: &Outcome) {
        let (task, lease) = (id(word.task), word.lease.value());
        if self.promises.void.contains(&(task, lease)) || self.is_gone(task) {
            return;
        }
        let row = self.synced.get(&task);
        // Its run may have been over before it was said, and a cancel may come first.
        let by_word = self.leases.ended_by_word.contains(&(task, lease));
        let running = by_word && row.is_some_and(|row| row.state == TaskState::Running && row.lease == Some(lease));
        // So may its expiry, when no row showed its start and the broker went away.
        let expires = row.is_some_and(|row| row.expires_at.is_some());
        let done = by_word && word.end == End::Done && !self.cancelled.contains(&task) && !expires;
        if running || (done && !row.is_some_and(|row| row.state == TaskState::Done && row.lease == Some(lease))) {
            let found = format!("the outcome of task {task} under lease {lease:x} is settled and not on disk: {row:?}");
            self.fail(found);
        } else if done {
            self.promises.done.insert(task, lease);
        }
    }
}

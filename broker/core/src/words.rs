//! PROGRESS: what a running task says, from its worker to the store and to those who wait. What it carries to be kept, a checkpoint,
//! is answered when it is on disk, and everything that it tells is told with its answer.

use laneway_protocol::message::{Answer, Held, Progress, ProgressEvent, ProgressNoted};
use laneway_protocol::{Code, Payload, TaskId, WireError};

use crate::action::{Noted, NotedAs, Op};
use crate::broker::Broker;
use crate::event::{Asker, ReplyTo};
use crate::outcome::cut;
use crate::progress::tells;
use crate::ready::hello_first;
use crate::settle::{Pending, Word};
use crate::time::Now;
use crate::timer::Timer;
use crate::workflow::parents_of;

impl Broker {
    pub(crate) fn on_progress(&mut self, from: Asker, progress: Progress, now: Now) {
        let known = self.session_of(&progress.session, now);
        let Some(session) = known.filter(|&id| self.workers.get(id).plain || self.workers.get(id).welcomed) else {
            return self.refuse(from.reply, hello_first("the session is not known"));
        };
        self.heard(session, from.conn);
        let size = |payload: &Option<Payload>| payload.as_ref().map_or(0, |p| p.bytes.len());
        let (data, checkpoint) = (size(&progress.data), size(&progress.checkpoint));
        if data.max(checkpoint) > self.settings.payload_bytes_max {
            let text =
                format!("{} bytes, at most {} are allowed", data.max(checkpoint), self.settings.payload_bytes_max);
            let field = if data > checkpoint { "data" } else { "checkpoint" };
            return self.refuse(from.reply, WireError::new(Code::TooLarge, text).field(field));
        }
        let held = Held(progress.task, progress.lease);
        if !self.is_running(held) {
            return self.refuse_stale(from.reply, held.0);
        }
        if progress.checkpoint.is_some()
            && let Some(error) = self.intake_refusal()
        {
            return self.refuse(from.reply, error);
        }
        let parents = progress.parents;
        let (event, saved) = self.note_progress(progress, now);
        let op = match (saved, parents) {
            (Some(saved), _) => Op::Noted(saved),
            (None, Some(after)) => parents_of(held.0, after),
            (None, None) => return self.tell_word(from.reply, event, ProgressNoted::default()),
        };
        let word = Word { reply: from.reply, lease: held.1, event, parents };
        self.ask_store(from.reply, op, Pending::Word(Box::new(word)), now);
    }

    /// A checkpoint is in the row and on disk, or never will be.
    pub(crate) fn on_word_noted(&mut self, word: Box<Word>, noted: NotedAs) {
        if !self.questions.contains_key(&word.reply) {
            // Told that it takes long, its worker says it again.
            return;
        }
        let held = Held(word.event.task, word.lease);
        match (noted, word.parents) {
            (NotedAs::Written, Some(after)) if self.is_running(held) => {
                self.store_for(parents_of(held.0, after), Pending::Word(word));
            }
            (NotedAs::Written, None) if self.is_running(held) => {
                self.close_question(word.reply);
                self.tell_word(word.reply, word.event, ProgressNoted::default());
            }
            (NotedAs::Refused, _) => {
                self.close_question(word.reply);
                let text = format!("a trigger or a constraint of an app keeps task {} from having it", held.0);
                self.refuse(word.reply, WireError::new(Code::BadTask, text).field("checkpoint"));
            }
            (NotedAs::Written | NotedAs::Overtaken, _) => {
                self.close_question(word.reply);
                self.refuse_stale(word.reply, held.0);
            }
        }
    }

    /// A word is taken: answers it, and tells it to those who wait.
    pub(crate) fn tell_word(&mut self, reply: ReplyTo, mut event: ProgressEvent, noted: ProgressNoted) {
        let id = event.task;
        let task = self.running.get_mut(&id).expect("the caller has looked it up");
        let (group, tells) = (task.group, tells(&event));
        if tells {
            self.event_n += 1;
            event.n = self.event_n;
            task.events.push(event);
        }
        let cancel = task.stop.is_some();
        self.answer(reply, Answer::Progress(ProgressNoted { cancel, ..noted }));
        for reply in self.waiters.of_task(id) {
            self.answer_waiter_if_news(reply);
        }
        if let Some(group) = group.filter(|_| tells) {
            self.ask_for_listeners(group);
        }
    }

    pub(crate) fn refuse_stale(&mut self, reply: ReplyTo, id: TaskId) {
        self.stats.stale += 1;
        let text = format!("task {id} is no longer held under this lease");
        self.refuse(reply, WireError::new(Code::Stale, text).field("lease"));
    }

    /// Takes a progress in. Gives what it tells, not yet numbered, and what is to be written before it is answered.
    fn note_progress(&mut self, progress: Progress, now: Now) -> (ProgressEvent, Option<Noted>) {
        let Progress { task: id, lease, done, total, note, extend_ms, data, log, checkpoint, .. } = progress;
        let (note, log) = (note.map(cut), log.map(cut));
        let task = self.running.get_mut(&id).expect("the caller has looked it up");
        if let Some(extend_ms) = extend_ms.filter(|_| task.stop.is_none()) {
            self.timers.clear(task.deadline, Timer::Lease(id));
            task.deadline = now.mono.after(extend_ms);
            self.timers.set(task.deadline, Timer::Lease(id));
        }
        let event = ProgressEvent { n: 0, task: id, done, total, note: note.clone(), data, log };
        if done.is_none() && total.is_none() && note.is_none() && checkpoint.is_none() {
            return (event, None);
        }
        if let Some(at) = task.note_at() {
            self.timers.clear(at, Timer::Note(id));
        }
        let saves = checkpoint.is_some();
        task.note(Noted { task: id, lease, done, total, note, checkpoint });
        let at = task.note_at().expect("just noted");
        if saves {
            return (event, Some(self.take_note(id, now)));
        }
        if at <= now.mono {
            self.write_note(id, now);
        } else {
            self.timers.set(at, Timer::Note(id));
        }
        (event, None)
    }

    /// Gives the store what it was not told yet of a running task's progress.
    pub(crate) fn write_note(&mut self, id: TaskId, now: Now) {
        let noted = self.take_note(id, now);
        self.store(Op::Noted(noted));
    }

    fn take_note(&mut self, id: TaskId, now: Now) -> Noted {
        let task = self.running.get_mut(&id).expect("the timer ends with the run");
        task.noted = Some(now.mono);
        task.unwritten.take().expect("the timer is set while something is unwritten")
    }
}

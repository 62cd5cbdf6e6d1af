//! One place in a worker that runs one task at a time: what it received, runs, and has finished but not settled.
//!
//! It asks READY when it has nothing left to run, and carries the outcomes of what it finished. The session opens it
//! when the broker has welcomed the process, and shuts it while the process introduces itself anew.

use std::collections::VecDeque;

use laneway_protocol::message::{
    End, HandOut, HandedTask, Held, Outcome, OutcomeCode, Ready, Settled, Wait, WaitReason, Welcome,
};
use laneway_protocol::{Answer, Code, Epoch, LaneName, Request, SessionName, WireError};

use super::backoff::Backoff;
use super::outbox::{Bounds, Outbox, Said, is_content};
use super::{Heard, Next, Question};

/// Asked again after this long while the bound on unsettled outcomes is reached.
const FULL_PAUSE_MS: u64 = 2;

/// What a slot is for. Fixed for its life.
#[derive(Debug, Clone)]
pub struct SlotSettings {
    /// The process's session, the same for all its slots.
    pub session: SessionName,
    /// The slot's number in the process.
    pub slot: u32,
    /// The only lanes it serves; `None` is those of the session.
    pub lanes: Option<Vec<LaneName>>,
    /// Tasks come only once their rows show the lease.
    pub committed: bool,
    /// Tasks to ask for at once, 1 to 512. They run one after the other.
    pub max: u32,
    /// How long the broker may park READY.
    pub wait_ms: u64,
    /// With this many outcomes unsettled no more tasks are taken.
    pub unsettled_max: usize,
    /// With this many bytes of results unsettled no more tasks are taken.
    pub unsettled_bytes_max: usize,
}

/// A task as it was handed to this slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The task and its lease.
    pub task: HandedTask,
    /// When the answer came that carried it; its lease ends `timeout_ms` later.
    pub received_ms: u64,
}

/// See the file's head.
#[derive(Debug)]
pub struct Slot {
    settings: SlotSettings,
    /// `None` while the session is not (or no longer) welcome: nothing is asked and no task is taken.
    epoch: Option<Epoch>,
    /// The last `seq` taken in this epoch.
    ack: u64,
    tokens: u64,
    asked: Option<Asked>,
    /// A question that asks for tasks was abandoned and may still be parked at the broker.
    parked: bool,
    not_before_ms: u64,
    backoff: Backoff,
    /// Received and not started, in order.
    received: VecDeque<Received>,
    running: Option<Running>,
    outbox: Outbox,
    wants_hello: bool,
    stop: Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Stopping,
    /// A question after the stop got no answer; what is left goes with BYE.
    Unheard,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    token: u64,
    /// Of its outcomes; 0 when it had none.
    batch: u64,
    max: u32,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    held: Held,
    cancelled: bool,
    /// The lease went elsewhere: the outcome is of no use to anyone.
    lost: bool,
}

impl Slot {
    /// A slot that waits for its session's welcome.
    pub fn new(settings: SlotSettings) -> Self {
        Self {
            settings,
            epoch: None,
            ack: 0,
            tokens: 0,
            asked: None,
            parked: false,
            not_before_ms: 0,
            backoff: Backoff::default(),
            received: VecDeque::new(),
            running: None,
            outbox: Outbox::default(),
            wants_hello: false,
            stop: Stop::No,
        }
    }

    /// What to do now. Not to be called while a task runs.
    pub fn next(&mut self, now_ms: u64) -> Next {
        if self.stop != Stop::No {
            return self.next_stopping(now_ms);
        }
        if self.epoch.is_none() {
            return Next::Pause { until_ms: u64::MAX };
        }
        if !self.received.is_empty() {
            return Next::Run;
        }
        if now_ms < self.not_before_ms {
            return Next::Pause { until_ms: self.not_before_ms };
        }
        let full = self.outbox.len() >= self.settings.unsettled_max
            || self.outbox.bytes() >= self.settings.unsettled_bytes_max;
        if full {
            self.not_before_ms = now_ms + FULL_PAUSE_MS;
            return Next::Ask(self.ask(0, 0));
        }
        Next::Ask(self.ask(self.settings.max, self.settings.wait_ms))
    }

    /// Takes the next received task to run it. `None` when there is none, or one already runs.
    pub fn start(&mut self) -> Option<Received> {
        if self.running.is_some() {
            return None;
        }
        let received = self.received.pop_front()?;
        let held = Held(received.task.task, received.task.lease);
        self.running = Some(Running { held, cancelled: false, lost: false });
        Some(received)
    }

    /// The running task ended. Returns false when the outcome is dropped because its lease went elsewhere.
    ///
    /// # Panics
    /// When the outcome is not the running task's: the caller has mixed up its slots.
    pub fn finish(&mut self, outcome: Outcome, now_ms: u64) -> bool {
        let held = Held(outcome.task, outcome.lease);
        let running = self.running.take_if(|running| running.held == held);
        assert!(running.is_some(), "an outcome belongs to the task that runs");
        if running.is_some_and(|running| running.lost) {
            return false;
        }
        self.outbox.push(outcome, now_ms);
        true
    }

    /// The broker's answer to the question of this token. Answers to older questions, and doubled ones, are harmless.
    pub fn answer(&mut self, token: u64, answer: Answer, now_ms: u64, random: u64) -> Heard {
        // What is on disk stays on disk, so this part of even a late answer counts.
        if let Answer::Tasks(HandOut { settled, .. }) | Answer::Wait(Wait { settled, .. }) = &answer {
            self.outbox.settle(*settled);
        }
        let Some(asked) = self.asked.take_if(|asked| asked.token == token) else { return Heard::Nothing };
        match answer {
            Answer::Tasks(hand_out) => self.on_tasks(asked, hand_out, now_ms),
            Answer::Wait(wait) => self.on_wait(asked, &wait, now_ms),
            Answer::Error(error) => self.on_error(asked, &error, now_ms, random),
            other => {
                tracing::warn!(slot = self.settings.slot, answer = ?other, "not an answer to READY");
                self.retry(asked, None, now_ms, random);
                Heard::Nothing
            }
        }
    }

    /// No answer came to the question of this token in the time it should have.
    pub fn unanswered(&mut self, token: u64, now_ms: u64, random: u64) {
        if let Some(asked) = self.asked.take_if(|asked| asked.token == token) {
            self.parked |= asked.max > 0;
            if self.stop == Stop::Stopping {
                self.stop = Stop::Unheard;
            }
            self.retry(asked, None, now_ms, random);
        }
    }

    /// The caller gave the question of this token up by choice, to have `next` asked again at once.
    pub fn give_up(&mut self, token: u64) {
        if let Some(asked) = self.asked.take_if(|asked| asked.token == token) {
            self.parked |= asked.max > 0;
            self.outbox.unsay(asked.batch);
        }
    }

    /// While a task runs: a question that takes no task and only says outcomes which have waited since `since_ms` or
    /// longer, so that a long task does not hold back the outcomes of the ones before it in its batch.
    pub fn flush(&mut self, since_ms: u64, now_ms: u64) -> Option<Question> {
        let due = self.running.is_some()
            && self.asked.is_none()
            && self.epoch.is_some()
            && now_ms >= self.not_before_ms
            && self.outbox.has_unsaid_since(since_ms);
        due.then(|| self.ask(0, 0))
    }

    /// What the broker answered to a PROGRESS about the running task.
    pub fn noted(&mut self, held: Held, answer: &Answer) {
        match answer {
            Answer::Progress(noted) if noted.cancel => self.cancel(held),
            Answer::Error(error) if error.code == Code::Stale => self.lose(held),
            _ => {}
        }
    }

    /// No more tasks: what has not started is handed back, what runs may finish.
    pub fn stop(&mut self) {
        if self.stop == Stop::No {
            self.stop = Stop::Stopping;
        }
    }

    /// Asks the running task to end, as a cancel does.
    pub fn cancel_running(&mut self) {
        if let Some(running) = &mut self.running {
            running.cancelled = true;
        }
    }

    /// Whether the running task should end: cancelled, told to release, or lost.
    pub fn is_cancelled(&self) -> bool {
        self.running.is_some_and(|running| running.cancelled || running.lost)
    }

    /// Whether the running task went elsewhere, so that nothing said about it counts.
    pub fn is_lost(&self) -> bool {
        self.running.is_some_and(|running| running.lost)
    }

    /// Whether a task runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Outcomes that are not known to be on disk.
    pub fn n_unsettled(&self) -> usize {
        self.outbox.len()
    }

    /// Everything the slot holds: received, running, finished and not settled.
    pub fn held(&self) -> impl Iterator<Item = Held> {
        self.unfinished().chain(self.outbox.held())
    }

    // ------------------------------------------------------------------------------------------- called by the session

    /// Received or running.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = Held> {
        let received = self.received.iter().map(|received| Held(received.task.task, received.task.lease));
        self.running.iter().filter(|running| !running.lost).map(|running| running.held).chain(received)
    }

    pub(super) fn wants_hello(&self) -> bool {
        self.wants_hello
    }

    /// The session introduces itself with everything held: from here to the welcome nothing may be added to that.
    pub(super) fn shut(&mut self) {
        self.epoch = None;
        self.asked = None;
        self.wants_hello = false;
    }

    /// The session is welcome. `lost` are those that are no longer this worker's.
    pub(super) fn open(&mut self, welcome: &Welcome, lost: &[Held]) {
        self.epoch = Some(welcome.epoch);
        self.ack = 0;
        self.asked = None;
        self.parked = false;
        self.not_before_ms = 0;
        self.backoff.reset();
        self.outbox.set_bounds(Bounds {
            outcomes: usize::try_from(welcome.batch_max).unwrap_or(usize::MAX).clamp(1, Bounds::default().outcomes),
            payload_bytes: usize::try_from(welcome.payload_bytes_max).unwrap_or(usize::MAX),
        });
        self.outbox.unsay_all();
        for &held in lost {
            self.lose(held);
        }
    }

    pub(super) fn cancel(&mut self, held: Held) {
        if let Some(running) = self.running.as_mut().filter(|running| running.held == held) {
            running.cancelled = true;
        } else if let Some(at) = self.received_at(held) {
            // It has not started, so there is nothing to stop. The broker makes `cancelled` of this when that was asked for;
            // when the time was up waiting behind others, the task is not to blame.
            self.received.remove(at);
            self.outbox.push(Outcome::new(held.0, held.1, End::Release), 0);
        }
    }

    /// The lease is no longer this worker's. A finished task's outcome is still said: its answer decides.
    pub(super) fn lose(&mut self, held: Held) {
        if let Some(running) = self.running.as_mut().filter(|running| running.held == held) {
            running.lost = true;
        } else if let Some(at) = self.received_at(held) {
            self.received.remove(at);
        }
    }

    /// The broker tells of this slot, in an answer to BEAT, that every batch up to this is on disk.
    pub(super) fn settle(&mut self, Settled(slot, batch): Settled) {
        if slot == self.settings.slot {
            self.outbox.settle(batch);
        }
    }

    /// The goodbye: returns what is handed back and copies the outcomes to `outbox`.
    pub(super) fn leave(&mut self, outbox: &mut Outbox) -> Vec<Held> {
        self.shut();
        self.outbox.copy_to(outbox);
        self.unfinished().collect()
    }

    #[cfg(test)]
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    // --------------------------------------------------------------------------------------------------------- private

    fn next_stopping(&mut self, now_ms: u64) -> Next {
        for received in std::mem::take(&mut self.received) {
            self.outbox.push(Outcome::new(received.task.task, received.task.lease, End::Release), now_ms);
        }
        let something_to_say = self.parked || self.outbox.has_unsaid();
        if something_to_say && self.epoch.is_some() && self.stop == Stop::Stopping && now_ms >= self.not_before_ms {
            // Takes no task, which also calls an abandoned question back so that it is not answered with one.
            return Next::Ask(self.ask(0, 0));
        }
        Next::Leave
    }

    fn ask(&mut self, max: u32, wait_ms: u64) -> Question {
        if let Some(asked) = self.asked.take() {
            self.outbox.unsay(asked.batch);
        }
        let Said { batch, outcomes, more } = self.outbox.say();
        // With more to say there is no time to be parked, and no room for a task's outcome.
        let (max, wait_ms) = if more { (0, 0) } else { (max, wait_ms) };
        self.tokens += 1;
        self.asked = Some(Asked { token: self.tokens, batch: batch.unwrap_or(0), max });
        let request = Request::Ready(Ready {
            session: self.settings.session.clone(),
            slot: self.settings.slot,
            epoch: self.epoch,
            ack: Some(self.ack),
            n: Some(self.tokens),
            max,
            wait_ms,
            outcomes,
            batch,
            committed: self.settings.committed,
            kinds: None,
            lanes: self.settings.lanes.clone(),
        });
        Question { token: self.tokens, request, wait_ms }
    }

    fn on_tasks(&mut self, asked: Asked, hand_out: HandOut, now_ms: u64) -> Heard {
        self.taken(asked, &hand_out.outcomes);
        if self.epoch != Some(hand_out.epoch) {
            tracing::debug!(slot = self.settings.slot, epoch = %hand_out.epoch, "tasks of another epoch dropped");
            return Heard::Nothing;
        }
        self.ack = hand_out.seq;
        for task in hand_out.tasks {
            if self.held().all(|held| held.1 != task.lease) {
                self.received.push_back(Received { task, received_ms: now_ms });
            }
        }
        Heard::Nothing
    }

    fn on_wait(&mut self, asked: Asked, wait: &Wait, now_ms: u64) -> Heard {
        self.taken(asked, &wait.outcomes);
        if self.epoch == Some(wait.epoch) && wait.after_ms > 0 {
            self.not_before_ms = self.not_before_ms.max(now_ms + wait.after_ms);
        }
        match wait.reason {
            WaitReason::Draining => Heard::Drain { release: false },
            _ => Heard::Nothing,
        }
    }

    fn on_error(&mut self, asked: Asked, error: &WireError, now_ms: u64, random: u64) -> Heard {
        match error.code {
            Code::HelloFirst => {
                self.retry(asked, Some(0), now_ms, random);
                self.epoch = None;
                self.wants_hello = true;
                self.parked = false;
                Heard::Hello
            }
            code if is_content(code) && asked.batch > 0 => {
                tracing::warn!(slot = self.settings.slot, %error, "outcomes refused");
                let given_up = self.outbox.refuse(asked.batch, error);
                given_up.map_or(Heard::Nothing, Heard::GivenUp)
            }
            Code::UnknownLane => {
                // The lane that the slot is kept for: the next question would be answered alike.
                self.retry(asked, error.after_ms, now_ms, random);
                Heard::Refused(error.clone())
            }
            _ => {
                tracing::warn!(slot = self.settings.slot, %error, "the broker refused READY");
                self.retry(asked, error.after_ms, now_ms, random);
                Heard::Nothing
            }
        }
    }

    /// A well-formed answer: the question is over and its outcomes are on their way to the disk.
    fn taken(&mut self, asked: Asked, codes: &[OutcomeCode]) {
        self.parked = false;
        self.backoff.reset();
        let stale = self.outbox.answered(asked.batch, codes);
        if stale > 0 {
            tracing::warn!(slot = self.settings.slot, stale, "outcomes came too late and changed nothing");
        }
    }

    /// Says the question's outcomes again, after a pause.
    fn retry(&mut self, asked: Asked, after_ms: Option<u64>, now_ms: u64, random: u64) {
        self.outbox.unsay(asked.batch);
        let pause_ms = after_ms.unwrap_or_else(|| self.backoff.next_ms(random));
        self.not_before_ms = now_ms + pause_ms;
    }

    fn received_at(&self, held: Held) -> Option<usize> {
        self.received.iter().position(|received| received.task.task == held.0 && received.task.lease == held.1)
    }
}

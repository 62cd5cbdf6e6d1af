//! The outcomes of one slot that are not known to be on disk, in the order in which the tasks finished.
//!
//! An outcome leaves only when an answer says that it is settled, was recorded before, or is stale. Until then it can be
//! said again at any time: after a lost answer, an error, or a broker restart. Called by the slot that owns it.

use std::collections::VecDeque;

use laneway_protocol::limits::{BATCH_MAX, BODY_BYTES_MAX, MESSAGE_BYTES_MAX, PAYLOAD_FRAMES_MAX, TEXT_BYTES_MAX};
use laneway_protocol::message::{End, Held, NewTask, OnConflict, Outcome, OutcomeCode};
use laneway_protocol::{Code, FairKey, LaneName, WireError};

/// Bytes of the body kept for everything but the outcomes: names, numbers, lanes.
const BODY_RESERVE_BYTES: usize = 12 * 1024;
/// Keys and numbers of one outcome in the body, at most.
const OUTCOME_BODY_BYTES: usize = 112;
/// Of a new task in the body: the name of a field, of at most 17 letters, with a number, a word or the length of a text; and one of
/// those that it waits for.
const FIELD_BODY_BYTES: usize = 27;
const AFTER_BODY_BYTES: usize = 40;

/// What one message may carry at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) outcomes: usize,
    pub(super) payload_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { outcomes: BATCH_MAX, payload_bytes: laneway_protocol::limits::PAYLOAD_BYTES_MAX }
    }
}

/// See the file's head.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    /// Of all payloads inside.
    bytes: usize,
    /// The last batch number that was said.
    batch: u64,
    bounds: Bounds,
}

#[derive(Debug)]
struct Entry {
    outcome: Outcome,
    size: Size,
    /// The batch it was last said in; 0 when it has to be said (again).
    batch: u64,
    finished_ms: u64,
    /// Say it in a message of its own, to find out which outcome of a refused message was at fault.
    alone: bool,
    /// It was refused once already and replaced by a failure that says so.
    replaced: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    body: usize,
    payload: usize,
    frames: usize,
}

/// The outcomes of one message.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// `None` when there are none.
    pub(super) batch: Option<u64>,
    pub(super) outcomes: Vec<Outcome>,
    /// Some did not fit and have to go in another message.
    pub(super) more: bool,
}

impl Outbox {
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Takes an outcome over. One that could never be sent becomes a failure that says why.
    pub(super) fn push(&mut self, mut outcome: Outcome, now_ms: u64) {
        if let Some(text) = &mut outcome.error {
            cut(text, TEXT_BYTES_MAX);
        }
        if let Err(text) = self.sendable(&outcome) {
            outcome = failure(&outcome, text);
        }
        let size = size(&outcome);
        self.bytes += size.payload;
        self.entries.push_back(Entry { outcome, size, batch: 0, finished_ms: now_ms, alone: false, replaced: false });
    }

    /// The outcomes that have to be said, as many as one message carries, under a new batch number.
    pub(super) fn say(&mut self) -> Said {
        let mut said = Said::default();
        let mut total = Size::default();
        let batch = self.batch + 1;
        for entry in self.entries.iter_mut().filter(|entry| entry.batch == 0) {
            let fits = said.outcomes.len() < self.bounds.outcomes
                && total.body + entry.size.body <= BODY_BYTES_MAX - BODY_RESERVE_BYTES
                && total.payload + entry.size.payload <= MESSAGE_BYTES_MAX
                && total.frames + entry.size.frames <= PAYLOAD_FRAMES_MAX;
            if !said.outcomes.is_empty() && (entry.alone || !fits) {
                said.more = true;
                break;
            }
            total.body += entry.size.body;
            total.payload += entry.size.payload;
            total.frames += entry.size.frames;
            entry.batch = batch;
            said.outcomes.push(entry.outcome.clone());
            if entry.alone {
                said.more = true;
                break;
            }
        }
        if !said.outcomes.is_empty() {
            self.batch = batch;
            said.batch = Some(batch);
        }
        said
    }

    /// Everything said in a batch up to `settled` is on disk.
    pub(super) fn settle(&mut self, settled: u64) {
        if settled > 0 {
            self.drop_where(|entry| entry.batch != 0 && entry.batch <= settled);
        }
    }

    /// The answer to `batch`: one code for each of its outcomes. Returns how many were stale.
    pub(super) fn answered(&mut self, batch: u64, codes: &[OutcomeCode]) -> usize {
        let mut codes = codes.iter();
        let mut stale = 0;
        self.drop_where(|entry| {
            entry.batch == batch
                && match codes.next() {
                    Some(OutcomeCode::Recorded) => true,
                    Some(OutcomeCode::Stale) => {
                        stale += 1;
                        true
                    }
                    _ => false,
                }
        });
        stale
    }

    /// No answer came, or one that did not take the outcomes: they have to be said again.
    pub(super) fn unsay(&mut self, batch: u64) {
        for entry in self.entries.iter_mut().filter(|entry| entry.batch == batch) {
            entry.batch = 0;
        }
    }

    /// A new epoch: everything has to be said again.
    pub(super) fn unsay_all(&mut self) {
        for entry in &mut self.entries {
            entry.batch = 0;
        }
    }

    /// The message of `batch` was refused for its content. With several outcomes in it, each goes alone next time; a lone
    /// one is replaced by a failure that quotes the error, and one that cannot be replaced is given up and returned.
    pub(super) fn refuse(&mut self, batch: u64, error: &WireError) -> Option<Held> {
        let mut refused: Vec<&mut Entry> = self.entries.iter_mut().filter(|entry| entry.batch == batch).collect();
        match refused.as_mut_slice() {
            [entry] if entry.replaced || is_plain(&entry.outcome) => {
                let held = Held(entry.outcome.task, entry.outcome.lease);
                self.drop_where(|entry| entry.batch == batch);
                return Some(held);
            }
            [entry] => {
                entry.outcome = failure(&entry.outcome, format!("the outcome was refused: {error}"));
                entry.replaced = true;
                entry.batch = 0;
                let size = size(&entry.outcome);
                self.bytes = self.bytes - entry.size.payload + size.payload;
                entry.size = size;
            }
            several => {
                for entry in several {
                    entry.alone = true;
                    entry.batch = 0;
                }
            }
        }
        None
    }

    pub(super) fn has_unsaid(&self) -> bool {
        self.entries.iter().any(|entry| entry.batch == 0)
    }

    /// Whether an outcome has been waiting to be said since `since_ms` or longer.
    pub(super) fn has_unsaid_since(&self, since_ms: u64) -> bool {
        self.entries.iter().any(|entry| entry.batch == 0 && entry.finished_ms <= since_ms)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The tasks whose outcomes are inside.
    pub(super) fn held(&self) -> impl Iterator<Item = Held> {
        self.entries.iter().map(|entry| Held(entry.outcome.task, entry.outcome.lease))
    }

    /// Adds copies of all outcomes to `other`, which takes over the bounds too.
    pub(super) fn copy_to(&self, other: &mut Self) {
        other.bounds = self.bounds;
        for entry in &self.entries {
            other.push(entry.outcome.clone(), entry.finished_ms);
        }
    }

    /// Copies the outcomes into pages that each fit one message.
    pub(super) fn pages(&mut self) -> Vec<Vec<Outcome>> {
        self.unsay_all();
        let mut pages = Vec::new();
        loop {
            let said = self.say();
            if !said.outcomes.is_empty() {
                pages.push(said.outcomes);
            }
            if !said.more {
                return pages;
            }
        }
    }

    fn drop_where(&mut self, mut gone: impl FnMut(&Entry) -> bool) {
        let bytes = &mut self.bytes;
        self.entries.retain(|entry| {
            let gone = gone(entry);
            if gone {
                *bytes -= entry.size.payload;
            }
            !gone
        });
    }

    fn sendable(&self, outcome: &Outcome) -> Result<(), String> {
        let max = self.bounds.payload_bytes;
        let payloads = outcome.result.iter().chain(outcome.spawn.iter().filter_map(|task| task.payload.as_ref()));
        if let Some(payload) = payloads.into_iter().find(|payload| payload.bytes.len() > max) {
            let bytes = payload.bytes.len();
            return Err(format!("a result or spawned payload has {bytes} bytes, at most {max} are allowed"));
        }
        let Size { body, payload, frames } = size(outcome);
        let body_max = BODY_BYTES_MAX - BODY_RESERVE_BYTES;
        let n = outcome.spawn.len();
        if body > body_max || payload > MESSAGE_BYTES_MAX || frames > PAYLOAD_FRAMES_MAX || n > BATCH_MAX {
            return Err(format!(
                "the {n} spawned tasks do not fit one message, which has {BATCH_MAX} at most and {body_max} bytes; let a spawned task \
                 spawn the rest"
            ));
        }
        Ok(())
    }
}

/// Cuts `text` to at most `bytes_max` bytes, at a character boundary.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
}

fn size(outcome: &Outcome) -> Size {
    let mut size = Size { body: OUTCOME_BODY_BYTES + outcome.error.as_ref().map_or(0, String::len), ..Size::default() };
    if let Some(result) = &outcome.result {
        size.payload += result.bytes.len();
        size.frames += 1;
    }
    for task in &outcome.spawn {
        size.body += new_task_body_bytes(task);
        if let Some(payload) = &task.payload {
            size.payload += payload.bytes.len();
            size.frames += 1;
        }
    }
    size
}

/// An upper bound for what a new task takes in the body of a message.
pub(crate) fn new_task_body_bytes(task: &NewTask) -> usize {
    let texts = [
        Some(task.kind.as_str()),
        task.lane.as_ref().map(LaneName::as_str),
        task.unique_key.as_deref(),
        task.trace.as_deref(),
        task.fair_key.as_ref().map(FairKey::as_str),
    ];
    let others = [
        task.payload.is_some(),
        task.run_at.is_some(),
        task.max_attempts.is_some(),
        task.timeout_ms.is_some(),
        task.expires_at.is_some(),
        task.on_conflict != OnConflict::Keep,
        task.unique_for_ms.is_some(),
        task.unique_by_payload,
        !task.after.is_empty(),
        task.group.is_some(),
        task.join,
    ];
    let texts = texts.into_iter().flatten().map(|text| FIELD_BODY_BYTES + text.len()).sum::<usize>();
    let others = others.into_iter().filter(|is_there| *is_there).count() * FIELD_BODY_BYTES;
    texts + others + task.after.len() * AFTER_BODY_BYTES
}

/// Stands in for an outcome that cannot be sent. Dead at once: another run would end in the same way.
fn failure(outcome: &Outcome, mut text: String) -> Outcome {
    cut(&mut text, TEXT_BYTES_MAX);
    Outcome { error: Some(text), dead: true, ..Outcome::new(outcome.task, outcome.lease, End::Fail) }
}

/// Whether nothing in the outcome could be at fault, so that no other one would be taken either.
fn is_plain(outcome: &Outcome) -> bool {
    outcome.result.is_none() && outcome.error.is_none() && outcome.spawn.is_empty()
}

/// Whether a refusal is about the content of the message, so that saying it again unchanged is useless.
pub(super) fn is_content(code: Code) -> bool {
    matches!(code, Code::TooLarge | Code::TooMany | Code::BadBody | Code::BadFrames | Code::BadTask)
}

#[cfg(test)]
mod tests {
    use laneway_protocol::codec::encode_request;
    use laneway_protocol::message::{After, Submit};
    use laneway_protocol::{Kind, Lease, Payload, Request, RequestId, TaskId};

    use super::*;

    fn done(n: u64) -> Outcome {
        Outcome::new(TaskId::new(n).unwrap(), Lease::new(i64::try_from(n).unwrap()), End::Done)
    }

    fn ids(said: &Said) -> Vec<u64> {
        said.outcomes.iter().map(|outcome| outcome.task.value()).collect()
    }

    #[test]
    fn a_new_task_takes_no_more_of_a_message_than_is_reckoned() {
        // Proves the bound by which lists are cut, for tasks with nothing but a kind and with everything there is, numbers as long as
        // they can be.
        let text = |bytes: usize| "x".repeat(bytes);
        let after = After { task: Some(TaskId::new(TaskId::MAX).unwrap()), anyway: true, ..After::default() };
        let least = NewTask::new(Kind::new("k").unwrap(), None);
        let most = NewTask {
            lane: Some(LaneName::new("low").unwrap()),
            payload: Some(Payload::bin(vec![0; 100_000])),
            run_at: Some(i64::MIN),
            unique_key: Some(text(200)),
            max_attempts: Some(u32::MAX),
            timeout_ms: Some(u64::MAX),
            expires_at: Some(i64::MIN),
            trace: Some(text(300)),
            fair_key: Some(FairKey::new(text(100)).unwrap()),
            on_conflict: OnConflict::Replace,
            unique_for_ms: Some(u64::MAX),
            unique_by_payload: true,
            after: vec![after; 9],
            group: Some(u64::MAX),
            join: true,
            ..least.clone()
        };
        let body_bytes = |tasks: Vec<NewTask>| {
            let submit = Submit { request: RequestId([0; 16]), tasks, wait_ms: 0, abandon: false, group: None };
            encode_request(Request::Submit(submit)).unwrap()[1].len()
        };
        for task in [least, most] {
            let takes = body_bytes(vec![task.clone(); 2]) - body_bytes(vec![task.clone()]);
            let reckoned = new_task_body_bytes(&task);
            assert!((takes..takes * 4).contains(&reckoned), "{takes} of {reckoned}: {task:?}");
        }
    }

    #[test]
    fn an_outcome_stays_until_it_is_settled() {
        // Said again after a lost answer, under a new number, and dropped only by `settled`.
        let mut outbox = Outbox::default();
        outbox.push(done(1), 0);
        let first = outbox.say();
        assert_eq!((first.batch, ids(&first)), (Some(1), vec![1]));
        assert_eq!(outbox.say().batch, None);
        outbox.unsay(1);
        outbox.push(done(2), 0);
        let second = outbox.say();
        assert_eq!((second.batch, ids(&second)), (Some(2), vec![1, 2]));
        outbox.settle(1);
        assert_eq!(outbox.len(), 2);
        outbox.settle(2);
        assert_eq!((outbox.len(), outbox.bytes()), (0, 0));
    }

    #[test]
    fn recorded_and_stale_outcomes_leave_at_once() {
        // Codes belong to the outcomes of their batch, in order.
        let mut outbox = Outbox::default();
        for n in 1..=3 {
            outbox.push(done(n), 0);
        }
        let said = outbox.say();
        let stale = outbox.answered(said.batch.unwrap(), &[OutcomeCode::Stale, OutcomeCode::Ok, OutcomeCode::Recorded]);
        assert_eq!(stale, 1);
        assert_eq!(outbox.held().map(|held| held.0.value()).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_refused_outcome_is_found_and_becomes_a_failure() {
        // One bad outcome among three delays the others by one message each and ends as a failure with the reason.
        let mut outbox = Outbox::default();
        for n in 1..=3 {
            outbox.push(Outcome { result: Some(Payload::json("1")), ..done(n) }, 0);
        }
        let error = WireError::new(Code::BadTask, "spawned task: max_attempts 0 is below 1");
        let all = outbox.say();
        assert_eq!(outbox.refuse(all.batch.unwrap(), &error), None);
        let first = outbox.say();
        assert_eq!((ids(&first), first.more), (vec![1], true));
        assert_eq!(outbox.refuse(first.batch.unwrap(), &error), None);
        let again = outbox.say();
        assert_eq!(ids(&again), [1]);
        assert_eq!(again.outcomes[0].end, End::Fail);
        assert!(again.outcomes[0].error.as_ref().unwrap().contains("max_attempts 0"));
        assert_eq!(outbox.refuse(again.batch.unwrap(), &error).map(|held| held.0.value()), Some(1));
        assert_eq!(outbox.len(), 2);
    }

    #[test]
    fn what_does_not_fit_goes_in_the_next_message() {
        // Long error texts fill a body; nothing is left out and nothing goes over the bound.
        let mut outbox = Outbox::default();
        for n in 1..=20 {
            outbox.push(Outcome { error: Some("x".repeat(10_000)), ..done(n) }, 0);
        }
        let pages = outbox.pages();
        assert!(pages.len() > 1);
        assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), 20);
        for page in pages {
            assert!(page.iter().map(|outcome| size(outcome).body).sum::<usize>() < BODY_BYTES_MAX);
            assert!(page.iter().all(|outcome| outcome.error.as_ref().unwrap().len() == TEXT_BYTES_MAX));
        }
    }

    #[test]
    fn an_outcome_that_can_never_be_sent_is_a_failure() {
        // Too large a result or too many spawned tasks are told in the row instead of blocking the slot for ever.
        let mut outbox = Outbox::default();
        outbox.set_bounds(Bounds { outcomes: 8, payload_bytes: 10 });
        outbox.push(Outcome { result: Some(Payload::json("01234567890")), ..done(1) }, 0);
        let spawn = vec![NewTask::new(Kind::new("k").unwrap(), None); 1000];
        outbox.push(Outcome { spawn, ..done(2) }, 0);
        let said = outbox.say();
        assert!(said.outcomes[0].error.as_ref().unwrap().contains("has 11 bytes, at most 10"));
        assert!(said.outcomes[1].error.as_ref().unwrap().contains("1000 spawned tasks"));
        assert!(said.outcomes.iter().all(|outcome| outcome.dead && outcome.spawn.is_empty()));
    }
}

//! One life of a worker process at the broker: HELLO at the start and in every new epoch, BEAT while it lives, BYE.
//!
//! The session never keeps a slot: the caller hands the slots over with each call, as `&mut Slot` or as lock guards, and
//! each is held only while it is looked at.

use std::collections::VecDeque;
use std::ops::DerefMut;

use laneway_protocol::limits::BATCH_MAX;
use laneway_protocol::message::{Beat, BeatNoted, Bye, Held, Hello, Welcome};
use laneway_protocol::{Answer, Code, Epoch, Request, WireError};

use super::backoff::Backoff;
use super::outbox::Outbox;
use super::{Heard, Next, Question, Slot};

/// A BEAT that was answered sooner than this and told nothing new is not repeated before it.
const BEAT_PAUSE_MS: u64 = 100;

/// See the file's head.
#[derive(Debug)]
pub struct Session {
    /// The HELLO without its `resume`.
    identity: Hello,
    /// How long the broker may park BEAT, at most.
    wait_ms: u64,
    state: State,
    epoch: Option<Epoch>,
    beat_ms: u64,
    tokens: u64,
    asked: Option<u64>,
    /// Where the next BEAT begins when more is held than one carries.
    beat_from: usize,
    beat_at_ms: u64,
    not_before_ms: u64,
    backoff: Backoff,
}

#[derive(Debug)]
enum State {
    /// Introducing itself.
    Greeting(Greeting),
    /// Welcome.
    Open,
    /// Saying goodbye; with a greeting when a broker was restarted in between.
    Leaving(VecDeque<Bye>, Option<Greeting>),
    Left,
}

/// The pages of one introduction.
#[derive(Debug, Default)]
struct Greeting {
    /// Empty until everything held was collected; then at least one page.
    pages: VecDeque<Vec<Held>>,
    lost: Vec<Held>,
    /// Of the pages already answered.
    epoch: Option<Epoch>,
}

impl Session {
    /// A process that nobody knows yet. `resume` and `more` of `identity` are ignored. `wait_ms` is how long the broker
    /// may park BEAT; it is cut to what the broker wants to hear.
    pub fn new(identity: Hello, wait_ms: u64) -> Self {
        Self {
            identity,
            wait_ms,
            state: State::Greeting(Greeting::default()),
            epoch: None,
            beat_ms: wait_ms,
            tokens: 0,
            asked: None,
            beat_from: 0,
            beat_at_ms: 0,
            not_before_ms: 0,
            backoff: Backoff::default(),
        }
    }

    /// What to do now: introduce the process, show that it lives, or say goodbye.
    pub fn next<S: DerefMut<Target = Slot>>(&mut self, slots: impl Iterator<Item = S>, now_ms: u64) -> Next {
        self.asked = None;
        if matches!(self.state, State::Open) {
            let mut held = Vec::new();
            let mut hello = false;
            for slot in slots {
                hello |= slot.wants_hello();
                held.extend(slot.unfinished());
            }
            if !hello {
                return self.next_beat(&held, now_ms);
            }
            // The slots come once a call: the next one collects what they hold.
            self.greet();
            return Next::Pause { until_ms: now_ms };
        }
        if now_ms < self.not_before_ms {
            return Next::Pause { until_ms: self.not_before_ms };
        }
        if let State::Greeting(greeting) = &mut self.state
            && greeting.pages.is_empty()
        {
            greeting.pages = collect(slots);
        }
        let request = match &self.state {
            State::Greeting(greeting) | State::Leaving(_, Some(greeting)) => self.hello(greeting),
            State::Leaving(pages, None) => match pages.front() {
                Some(bye) => Request::Bye(bye.clone()),
                None => return Next::Leave,
            },
            State::Open | State::Left => return Next::Leave,
        };
        Next::Ask(self.question(request, 0))
    }

    /// The broker's answer to the question of this token. Answers to older questions, and doubled ones, are ignored.
    pub fn answer<S: DerefMut<Target = Slot>>(
        &mut self,
        slots: impl Iterator<Item = S>,
        token: u64,
        answer: Answer,
        now_ms: u64,
        random: u64,
    ) -> Heard {
        if self.asked.take_if(|asked| *asked == token).is_none() {
            return Heard::Nothing;
        }
        match (&self.state, answer) {
            (State::Greeting(_) | State::Leaving(_, Some(_)), Answer::Welcome(welcome)) => {
                self.backoff.reset();
                self.on_welcome(slots, welcome)
            }
            (State::Open, Answer::Beat(noted)) => {
                self.backoff.reset();
                self.on_beat(slots, &noted)
            }
            (State::Leaving(..), Answer::Bye(_)) => {
                self.backoff.reset();
                self.on_bye();
                Heard::Nothing
            }
            (_, Answer::Error(error)) => self.on_error(error, now_ms, random),
            (_, other) => {
                tracing::warn!(answer = ?other, "not an answer to what the session asked");
                self.pause(None, now_ms, random);
                Heard::Nothing
            }
        }
    }

    /// No answer came to the question of this token in the time it should have.
    pub fn unanswered(&mut self, token: u64, now_ms: u64, random: u64) {
        if self.asked.take_if(|asked| *asked == token).is_some() {
            self.pause(None, now_ms, random);
        }
    }

    /// The caller gave the question of this token up by choice, to have `next` asked again at once.
    pub fn give_up(&mut self, token: u64) {
        self.asked.take_if(|asked| *asked == token);
    }

    /// Says goodbye from now on, handing back what has not ended and bringing every unsettled outcome.
    pub fn leave<S: DerefMut<Target = Slot>>(&mut self, slots: impl Iterator<Item = S>) {
        let mut releases = Vec::new();
        let mut outbox = Outbox::default();
        for mut slot in slots {
            releases.extend(slot.leave(&mut outbox));
        }
        // A full page of releases fits the part of the body that the outcomes leave free.
        let mut outcomes = outbox.pages().into_iter();
        let mut releases = releases.chunks(BATCH_MAX);
        let mut pages = VecDeque::new();
        loop {
            let (outcomes, release) = (outcomes.next(), releases.next());
            if !pages.is_empty() && outcomes.is_none() && release.is_none() {
                break;
            }
            let session = self.identity.session.clone();
            let release = release.map(<[Held]>::to_vec).unwrap_or_default();
            pages.push_back(Bye { session, release, outcomes: outcomes.unwrap_or_default(), more: true });
        }
        if let Some(last) = pages.back_mut() {
            last.more = false;
        }
        self.asked = None;
        self.not_before_ms = 0;
        self.state = if self.epoch.is_some() { State::Leaving(pages, None) } else { State::Left };
    }

    /// Whether the broker has welcomed the process at least once.
    pub fn was_welcome(&self) -> bool {
        self.epoch.is_some()
    }

    /// What the goodbye has not brought to the broker yet: outcomes and releases.
    pub fn n_unsaid(&self) -> (usize, usize) {
        match &self.state {
            State::Leaving(pages, _) => pages.iter().fold((0, 0), |(outcomes, releases), bye| {
                (outcomes + bye.outcomes.len(), releases + bye.release.len())
            }),
            _ => (0, 0),
        }
    }

    // --------------------------------------------------------------------------------------------------------- private

    fn next_beat(&mut self, held: &[Held], now_ms: u64) -> Next {
        if now_ms < self.not_before_ms {
            return Next::Pause { until_ms: self.not_before_ms };
        }
        if self.beat_from >= held.len() {
            self.beat_from = 0;
        }
        let to = held.len().min(self.beat_from + BATCH_MAX);
        let running = held[self.beat_from..to].to_vec();
        // Only the last page is parked, else the tasks of the others would not be shown in time.
        let wait_ms = if to == held.len() { self.wait_ms.min(self.beat_ms) } else { 0 };
        self.beat_from = to;
        self.beat_at_ms = now_ms;
        let beat = Beat { session: self.identity.session.clone(), epoch: self.epoch, running, wait_ms };
        Next::Ask(self.question(Request::Beat(beat), wait_ms))
    }

    fn hello(&self, greeting: &Greeting) -> Request {
        Request::Hello(Hello {
            resume: greeting.pages.front().cloned().unwrap_or_default(),
            more: greeting.pages.len() > 1,
            ..self.identity.clone()
        })
    }

    fn question(&mut self, request: Request, wait_ms: u64) -> Question {
        self.tokens += 1;
        self.asked = Some(self.tokens);
        Question { token: self.tokens, request, wait_ms }
    }

    fn on_welcome<S: DerefMut<Target = Slot>>(
        &mut self,
        slots: impl Iterator<Item = S>,
        mut welcome: Welcome,
    ) -> Heard {
        let greeting = match &mut self.state {
            State::Greeting(greeting) | State::Leaving(_, Some(greeting)) => greeting,
            State::Open | State::Leaving(_, None) | State::Left => return Heard::Nothing,
        };
        if greeting.epoch.is_some_and(|epoch| epoch != welcome.epoch) {
            // Another broker start between two pages knows nothing of the first ones.
            self.greet();
            return Heard::Hello;
        }
        greeting.epoch = Some(welcome.epoch);
        greeting.lost.append(&mut welcome.lost);
        greeting.pages.pop_front();
        if !greeting.pages.is_empty() {
            return Heard::Nothing;
        }
        let lost = std::mem::take(&mut greeting.lost);
        self.epoch = Some(welcome.epoch);
        self.beat_ms = welcome.beat_ms.clamp(1, welcome.wait_ms_max.max(1));
        if let State::Leaving(_, greeting) = &mut self.state {
            *greeting = None;
            return Heard::Nothing;
        }
        self.state = State::Open;
        for mut slot in slots {
            slot.open(&welcome, &lost);
        }
        Heard::Welcome
    }

    fn on_beat<S: DerefMut<Target = Slot>>(&mut self, slots: impl Iterator<Item = S>, noted: &BeatNoted) -> Heard {
        if self.epoch != Some(noted.epoch) {
            self.greet();
            return Heard::Hello;
        }
        // A broker that answers at once, again and again, is not asked in a tight loop.
        self.not_before_ms = self.beat_at_ms + BEAT_PAUSE_MS;
        if !noted.cancel.is_empty() || !noted.stale.is_empty() || !noted.settled.is_empty() {
            for mut slot in slots {
                for &settled in &noted.settled {
                    slot.settle(settled);
                }
                for &held in &noted.cancel {
                    slot.cancel(held);
                }
                for &held in &noted.stale {
                    slot.lose(held);
                }
            }
        }
        if noted.drain || noted.release {
            return Heard::Drain { release: noted.release };
        }
        if noted.cancel.is_empty() && noted.stale.is_empty() { Heard::Nothing } else { Heard::News }
    }

    fn on_bye(&mut self) {
        if let State::Leaving(pages, None) = &mut self.state {
            pages.pop_front();
            if pages.is_empty() {
                self.state = State::Left;
            }
        }
    }

    fn on_error(&mut self, error: WireError, now_ms: u64, random: u64) -> Heard {
        if error.code == Code::HelloFirst {
            self.greet();
            return Heard::Hello;
        }
        if let State::Leaving(..) = self.state
            && !error.retry
        {
            // A goodbye that the broker will never take: what it carried comes back when the session is lost.
            tracing::warn!(%error, "goodbye refused");
            self.on_bye();
            return Heard::Nothing;
        }
        // A role may be taken away later too.
        if !error.retry && (self.epoch.is_none() || error.code == Code::Denied) {
            // While the slots are shut the question may be asked again.
            self.pause(error.after_ms, now_ms, random);
            return Heard::Refused(error);
        }
        tracing::warn!(%error, "the broker refused the session's question");
        self.pause(error.after_ms, now_ms, random);
        Heard::Nothing
    }

    /// Introduces the process from the first page on.
    fn greet(&mut self) {
        self.not_before_ms = 0;
        match &mut self.state {
            State::Leaving(pages, greeting) => {
                let mut held = Vec::new();
                for bye in pages {
                    held.extend_from_slice(&bye.release);
                    held.extend(bye.outcomes.iter().map(|outcome| Held(outcome.task, outcome.lease)));
                }
                *greeting = Some(Greeting { pages: paged(&held), ..Greeting::default() });
            }
            // Collected from the slots by the next call that brings them.
            state => *state = State::Greeting(Greeting::default()),
        }
    }

    fn pause(&mut self, after_ms: Option<u64>, now_ms: u64, random: u64) {
        let pause_ms = after_ms.unwrap_or_else(|| self.backoff.next_ms(random));
        self.not_before_ms = now_ms + pause_ms;
    }
}

/// Shuts the slots and cuts what they hold into pages; at least one.
fn collect<S: DerefMut<Target = Slot>>(slots: impl Iterator<Item = S>) -> VecDeque<Vec<Held>> {
    let mut held = Vec::new();
    for mut slot in slots {
        slot.shut();
        held.extend(slot.held());
    }
    paged(&held)
}

fn paged(held: &[Held]) -> VecDeque<Vec<Held>> {
    let mut pages: VecDeque<Vec<Held>> = held.chunks(BATCH_MAX).map(<[Held]>::to_vec).collect();
    if pages.is_empty() {
        pages.push_back(Vec::new());
    }
    pages
}

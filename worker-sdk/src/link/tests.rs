//! The link against a model broker, with answers lost, doubled and late, and the broker restarted.
//!
//! The model is simple on purpose: it keeps what a real broker would have on disk apart from what it would only have in
//! memory, and forgets the latter at a restart.

use std::collections::{BTreeMap, BTreeSet};

use laneway_protocol::message::{
    Beat, BeatNoted, ByeNoted, End, HandOut, HandedTask, Held, Hello, Outcome, OutcomeCode, Ready, Settled, Wait,
    WaitReason, Welcome,
};
use laneway_protocol::{Answer, Code, Epoch, Kind, LaneName, Lease, Request, SessionName, TaskId, WireError};
use proptest::prelude::*;

use super::{Heard, Next, Question, Session, Slot, SlotSettings};

const SLOTS: usize = 3;
const TASKS: u64 = 12;

// ------------------------------------------------------------------------------------------------------- model broker

#[derive(Debug, Clone, Copy, PartialEq)]
enum Row {
    Queued,
    Running(Lease),
    Done(Lease),
}

#[derive(Debug, Default)]
struct SlotMemory {
    seq: u64,
    handed: Vec<(u64, Held)>,
    settled: u64,
}

#[derive(Debug)]
struct Model {
    // On disk.
    epoch: u64,
    rows: BTreeMap<u64, Row>,
    leases: i64,
    // In memory.
    known: bool,
    slots: BTreeMap<u32, SlotMemory>,
    resumed: BTreeSet<u64>,
    uncommitted: Vec<(u32, Option<u64>, Vec<Outcome>)>,
    gone: bool,
}

impl Model {
    fn new() -> Self {
        Self {
            epoch: 1,
            rows: (1..=TASKS).map(|id| (id, Row::Queued)).collect(),
            leases: 0,
            known: false,
            slots: BTreeMap::new(),
            resumed: BTreeSet::new(),
            uncommitted: Vec::new(),
            gone: false,
        }
    }

    fn restart(&mut self) {
        self.epoch += 1;
        self.known = false;
        self.slots.clear();
        self.resumed.clear();
        self.uncommitted.clear();
    }

    /// The grace is over: what nobody resumed goes back.
    fn end_grace(&mut self) {
        for (id, row) in &mut self.rows {
            if matches!(row, Row::Running(_)) && !self.resumed.contains(id) {
                *row = Row::Queued;
            }
        }
    }

    /// The session is taken for dead, all it ran goes back.
    fn lose_session(&mut self) {
        self.commit();
        self.known = false;
        self.slots.clear();
        self.resumed.clear();
        self.end_grace();
    }

    fn commit(&mut self) {
        for (slot, batch, outcomes) in std::mem::take(&mut self.uncommitted) {
            for outcome in outcomes {
                let row = self.rows.get_mut(&outcome.task.value()).unwrap();
                if *row == Row::Running(outcome.lease) {
                    *row = if outcome.end == End::Release { Row::Queued } else { Row::Done(outcome.lease) };
                }
            }
            let memory = self.slots.entry(slot).or_default();
            memory.settled = memory.settled.max(batch.unwrap_or(0));
        }
    }

    fn ask(&mut self, request: Request) -> Answer {
        match request {
            Request::Hello(hello) => self.hello(&hello),
            Request::Ready(ready) => self.ready(ready),
            Request::Beat(beat) => self.beat(&beat),
            Request::Bye(bye) => {
                let codes = self.outcomes(u32::MAX, None, bye.outcomes);
                self.commit();
                for Held(task, lease) in bye.release {
                    let row = self.rows.get_mut(&task.value()).unwrap();
                    if *row == Row::Running(lease) {
                        *row = Row::Queued;
                    }
                }
                if !bye.more {
                    self.gone = true;
                    self.lose_session();
                }
                Answer::Bye(ByeNoted { outcomes: codes })
            }
            other => panic!("a worker does not ask {other:?}"),
        }
    }

    fn hello(&mut self, hello: &Hello) -> Answer {
        if !self.known {
            self.known = true;
            self.slots.clear();
        }
        let mut lost = Vec::new();
        for &Held(task, lease) in &hello.resume {
            match self.rows[&task.value()] {
                Row::Running(current) if current == lease => {
                    self.resumed.insert(task.value());
                }
                _ => lost.push(Held(task, lease)),
            }
        }
        Answer::Welcome(Welcome {
            epoch: Epoch(self.epoch),
            beat_ms: 5_000,
            wait_ms_max: 10_000,
            payload_bytes_max: 1 << 20,
            batch_max: 512,
            lanes: Vec::new(),
            lost,
        })
    }

    fn beat(&mut self, beat: &Beat) -> Answer {
        if !self.known || beat.epoch != Some(Epoch(self.epoch)) {
            return hello_first();
        }
        let stale =
            beat.running.iter().filter(|held| self.rows[&held.0.value()] != Row::Running(held.1)).copied().collect();
        let settled = self.slots.iter().map(|(&slot, memory)| Settled(slot, memory.settled)).collect();
        let epoch = Epoch(self.epoch);
        Answer::Beat(BeatNoted { epoch, cancel: Vec::new(), stale, settled, drain: false, release: false })
    }

    fn ready(&mut self, ready: Ready) -> Answer {
        if !self.known || ready.epoch != Some(Epoch(self.epoch)) {
            return hello_first();
        }
        let memory = self.slots.entry(ready.slot).or_default();
        let ack = ready.ack.unwrap();
        for (_, Held(task, lease)) in memory.handed.extract_if(.., |(seq, _)| *seq > ack) {
            if self.rows[&task.value()] == Row::Running(lease) {
                self.rows.insert(task.value(), Row::Queued);
            }
        }
        let codes = self.outcomes(ready.slot, ready.batch, ready.outcomes);
        let mut tasks = Vec::new();
        for _ in 0..ready.max {
            let Some((&id, row)) = self.rows.iter_mut().find(|(_, row)| **row == Row::Queued) else { break };
            self.leases += 1;
            let lease = Lease::new(self.leases);
            *row = Row::Running(lease);
            self.resumed.insert(id);
            tasks.push(handed(id, lease));
        }
        let memory = self.slots.entry(ready.slot).or_default();
        let (epoch, settled) = (Epoch(self.epoch), memory.settled);
        if tasks.is_empty() {
            return Answer::Wait(Wait { epoch, after_ms: 0, reason: WaitReason::Idle, outcomes: codes, settled });
        }
        memory.seq += 1;
        let seq = memory.seq;
        memory.handed.extend(tasks.iter().map(|task| (seq, Held(task.task, task.lease))));
        Answer::Tasks(HandOut { epoch, seq, tasks, outcomes: codes, settled })
    }

    fn outcomes(&mut self, slot: u32, batch: Option<u64>, outcomes: Vec<Outcome>) -> Vec<OutcomeCode> {
        let codes = outcomes
            .iter()
            .map(|outcome| match self.rows[&outcome.task.value()] {
                Row::Running(lease) if lease == outcome.lease => OutcomeCode::Ok,
                Row::Done(lease) if lease == outcome.lease => OutcomeCode::Recorded,
                _ => OutcomeCode::Stale,
            })
            .collect();
        self.uncommitted.push((slot, batch, outcomes));
        codes
    }
}

fn hello_first() -> Answer {
    Answer::Error(WireError::new(Code::HelloFirst, "say HELLO"))
}

fn handed(id: u64, lease: Lease) -> HandedTask {
    HandedTask {
        task: TaskId::new(id).unwrap(),
        lease,
        kind: Kind::new("k").unwrap(),
        lane: LaneName::new("normal").unwrap(),
        run: 1,
        attempt: 1,
        max_attempts: 3,
        timeout_ms: 60_000,
        payload: None,
        trace: None,
        checkpoint: None,
    }
}

// -------------------------------------------------------------------------------------------------------------- world

/// A process, a broker, and answers on their way.
struct World {
    model: Model,
    session: Session,
    slots: Vec<Slot>,
    /// Who asked (`SLOTS` is the session), the question's token, its answer, and how many HELLOs were asked before it.
    answers: Vec<(usize, u64, Answer, usize)>,
    hellos: usize,
    newest: [u64; SLOTS + 1],
    running: [Option<Held>; SLOTS],
    started: BTreeSet<i64>,
    finished: BTreeSet<Held2>,
    now_ms: u64,
}

type Held2 = (u64, i64);

impl World {
    fn new(max: u32) -> Self {
        let session = SessionName::new("s").unwrap();
        let settings = |slot| SlotSettings {
            session: session.clone(),
            slot,
            lanes: None,
            committed: false,
            max,
            wait_ms: 1_000,
            unsettled_max: 4,
            unsettled_bytes_max: 1 << 20,
        };
        let slots = (0..u32::try_from(SLOTS).unwrap()).map(|slot| Slot::new(settings(slot))).collect();
        Self {
            model: Model::new(),
            session: Session::new(identity(session.clone()), 1_000),
            slots,
            answers: Vec::new(),
            hellos: 0,
            newest: [0; SLOTS + 1],
            running: [None; SLOTS],
            started: BTreeSet::new(),
            finished: BTreeSet::new(),
            now_ms: 0,
        }
    }

    fn next(&mut self, who: usize) -> Option<Next> {
        if who == SLOTS {
            return Some(self.session.next(self.slots.iter_mut(), self.now_ms));
        }
        self.running[who].is_none().then(|| self.slots[who].next(self.now_ms))
    }

    /// One step of a slot or the session; `reaches` tells whether a question gets to the broker.
    fn step(&mut self, who: usize, reaches: bool) {
        match self.next(who) {
            Some(Next::Ask(Question { token, request, .. })) => {
                self.asked(who, token, request, reaches);
            }
            Some(Next::Run) => {
                let task = self.slots[who].start().unwrap().task;
                assert!(self.started.insert(task.lease.value()), "task {} ran twice under one lease", task.task);
                self.running[who] = Some(Held(task.task, task.lease));
            }
            Some(Next::Pause { until_ms }) if until_ms < u64::MAX => self.now_ms = self.now_ms.max(until_ms),
            Some(Next::Pause { .. } | Next::Leave) | None => {}
        }
    }

    fn deliver(&mut self, at: usize) {
        if self.answers.is_empty() {
            return;
        }
        let at = at % self.answers.len();
        let (who, token, answer, hellos) = self.answers.remove(at);
        if who == SLOTS {
            self.session.answer(self.slots.iter_mut(), token, answer, self.now_ms, 7);
            return;
        }
        // A task that HELLO did not name, or that came with an answer nobody waits for, is the broker's again.
        let late = token != self.newest[who] || hellos < self.hellos;
        let before = self.slots[who].held().count();
        self.slots[who].answer(token, answer, self.now_ms, 7);
        assert!(!late || self.slots[who].held().count() <= before, "tasks of a late answer were taken");
    }

    fn give_up(&mut self, who: usize) {
        if who == SLOTS {
            self.session.unanswered(self.newest[who], self.now_ms, 7);
        } else {
            self.slots[who].unanswered(self.newest[who], self.now_ms, 7);
        }
    }

    fn finish(&mut self, who: usize) {
        if let Some(Held(task, lease)) = self.running[who].take()
            && self.slots[who].finish(Outcome::new(task, lease, End::Done), self.now_ms)
        {
            self.finished.insert((task.value(), lease.value()));
        }
    }

    fn flush(&mut self, who: usize, reaches: bool) {
        if let Some(Question { token, request, .. }) = self.slots[who].flush(self.now_ms, self.now_ms) {
            self.asked(who, token, request, reaches);
        }
    }

    fn asked(&mut self, who: usize, token: u64, request: Request, reaches: bool) {
        self.newest[who] = token;
        self.hellos += usize::from(matches!(request, Request::Hello(_)));
        if reaches {
            let answer = self.model.ask(request);
            self.answers.push((who, token, answer, self.hellos));
        }
    }

    fn check(&self) {
        let held: BTreeSet<i64> = self.slots.iter().flat_map(Slot::held).map(|held| held.1.value()).collect();
        for (&id, &row) in &self.model.rows {
            if let Row::Running(lease) = row
                && self.finished.contains(&(id, lease.value()))
            {
                assert!(held.contains(&lease.value()), "the outcome of task {id} was dropped before it was on disk");
            }
        }
    }

    /// Without further faults everything ends.
    fn settle(&mut self) {
        for round in 0..200 {
            for who in 0..=SLOTS {
                self.step(who, true);
                while !self.answers.is_empty() {
                    self.deliver(0);
                }
                if who < SLOTS {
                    self.finish(who);
                }
                self.model.commit();
                self.check();
            }
            if round > 10 {
                // By now the session has resumed what it holds, as it does within any sensible grace.
                self.model.end_grace();
            }
            let done = self.model.rows.values().all(|row| matches!(row, Row::Done(_)));
            if done && self.slots.iter().all(|slot| slot.n_unsettled() == 0) {
                return;
            }
        }
        panic!("not settled: {:?}", self.model);
    }
}

fn identity(session: SessionName) -> Hello {
    Hello {
        session,
        name: "w".into(),
        host: "h".into(),
        pid: 1,
        sdk: "test".into(),
        kinds: vec![Kind::new("k").unwrap()],
        lanes: None,
        slots: 3,
        resume: Vec::new(),
        more: false,
    }
}

/// One thing that happens, chosen by a number below 64; the broker goes down in one of twenty.
fn happen(world: &mut World, event: u8, choice: usize) {
    let who = choice % (SLOTS + 1);
    match event {
        0..=19 => world.step(who, true),
        20..=21 => {
            // Lost on the way there.
            world.step(who, false);
            world.give_up(who);
        }
        22..=37 => world.deliver(choice),
        38..=39 => {
            // Lost on the way back.
            if !world.answers.is_empty() {
                world.answers.remove(choice % world.answers.len());
            }
        }
        40..=41 => {
            // Comes twice.
            if let Some(answer) = world.answers.get(choice % world.answers.len().max(1)).cloned() {
                world.answers.push(answer);
            }
        }
        42..=43 => world.give_up(who),
        44..=53 => world.finish(choice % SLOTS),
        54..=55 => world.flush(choice % SLOTS, choice.is_multiple_of(5)),
        56..=60 => world.model.commit(),
        61 => world.model.restart(),
        62 => world.model.end_grace(),
        _ => world.model.lose_session(),
    }
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_is_dropped_before_it_is_settled_and_nothing_runs_twice_under_one_lease(
        max in 1..4_u32,
        events in prop::collection::vec((0..64_u8, 0..60_usize), 0..300),
    ) {
        // Whatever is lost, doubled, late or restarted: outcomes are kept until they are on disk, a lease starts its task
        // once, and when the faults end every task is done.
        let mut world = World::new(max);
        for (event, choice) in events {
            happen(&mut world, event, choice);
        }
        world.settle();
    }

    #[test]
    fn a_goodbye_brings_every_outcome_and_hands_the_rest_back(
        events in prop::collection::vec((0..64_u8, 0..60_usize), 0..150),
        restart in any::<bool>(),
    ) {
        // After BYE is answered nothing the process held is left running, also when the broker restarted in between.
        let mut world = World::new(2);
        for (event, choice) in events {
            happen(&mut world, event, choice);
        }
        if !world.session.was_welcome() {
            return Ok(());
        }
        for slot in &mut world.slots {
            slot.stop();
        }
        world.session.leave(world.slots.iter_mut());
        if restart {
            world.model.restart();
        }
        for _ in 0..10 {
            world.step(SLOTS, true);
            while !world.answers.is_empty() {
                world.deliver(0);
            }
        }
        prop_assert_eq!(world.session.next(world.slots.iter_mut(), world.now_ms), Next::Leave);
        prop_assert!(world.model.gone);
        prop_assert_eq!(world.session.n_unsaid(), (0, 0));
        world.model.commit();
        for (id, lease) in &world.finished {
            prop_assert_ne!(world.model.rows[id], Row::Running(Lease::new(*lease)));
        }
    }
}

// -------------------------------------------------------------------------------------------------------- single steps

fn welcomed() -> World {
    let mut world = World::new(1);
    world.step(SLOTS, true);
    world.deliver(0);
    world
}

fn asked(next: Next) -> (u64, Ready) {
    match next {
        Next::Ask(Question { token, request: Request::Ready(ready), .. }) => (token, ready),
        other => panic!("expected READY, not {other:?}"),
    }
}

#[test]
fn a_slot_asks_only_when_the_session_is_welcome() {
    // Before WELCOME a slot pauses until told; after it READY quotes the epoch and acknowledges nothing yet.
    let mut world = World::new(1);
    assert_eq!(world.slots[0].next(0), Next::Pause { until_ms: u64::MAX });
    world.step(SLOTS, true);
    world.deliver(0);
    let (_, ready) = asked(world.slots[0].next(0));
    assert_eq!((ready.epoch, ready.ack, ready.max, ready.batch), (Some(Epoch(1)), Some(0), 1, None));
}

#[test]
fn tasks_of_an_abandoned_question_are_not_taken_or_acknowledged() {
    // The answer to a question that was given up is dropped, so the next READY lets the broker take its tasks back.
    let mut world = welcomed();
    world.step(0, true);
    world.give_up(0);
    world.deliver(0);
    world.now_ms += 10_000;
    let (_, ready) = asked(world.slots[0].next(world.now_ms));
    assert_eq!(ready.ack, Some(0));
    assert_eq!(world.slots[0].held().count(), 0);
}

#[test]
fn a_restarted_broker_is_told_everything_that_is_held() {
    // hello_first makes the session say HELLO with received, running and finished tasks; lost ones are stopped.
    let mut world = welcomed();
    for who in 0..2 {
        world.step(who, true);
        world.deliver(0);
        world.step(who, true);
    }
    world.finish(0);
    world.model.restart();
    world.step(0, true);
    let (who, token, answer, _) = world.answers.remove(0);
    assert_eq!(world.slots[who].answer(token, answer, 0, 0), Heard::Hello);
    world.step(SLOTS, true);
    let Next::Ask(Question { token, request: Request::Hello(hello), .. }) =
        world.session.next(world.slots.iter_mut(), 0)
    else {
        panic!("expected HELLO");
    };
    assert_eq!(hello.resume.len(), 2);
    world.answers.clear();
    let Answer::Welcome(mut welcome) = world.model.ask(Request::Hello(hello)) else { panic!("expected WELCOME") };
    let running = world.running[1].unwrap();
    welcome.lost.push(running);
    let heard = world.session.answer(world.slots.iter_mut(), token, Answer::Welcome(welcome), 0, 0);
    assert_eq!(heard, Heard::Welcome);
    assert!(world.slots[1].is_cancelled() && world.slots[1].is_lost());
    assert!(!world.slots[1].finish(Outcome::new(running.0, running.1, End::Done), 0));
    // The finished one is said again, under a new number.
    let (_, ready) = asked(world.slots[0].next(0));
    assert_eq!((ready.outcomes.len(), ready.batch), (1, Some(2)));
}

#[test]
fn a_task_that_was_lost_before_it_started_is_not_run() {
    // Of a batch of two, the one that waits its turn goes elsewhere with the session and is forgotten here.
    let mut world = World::new(2);
    world.step(SLOTS, true);
    world.deliver(0);
    world.step(0, true);
    world.deliver(0);
    world.step(0, true);
    world.model.lose_session();
    world.step(SLOTS, true);
    world.deliver(0);
    world.step(SLOTS, true);
    world.deliver(0);
    assert!(world.slots[0].is_lost());
    world.finish(0);
    assert_eq!(world.slots[0].held().count(), 0);
    assert!(matches!(world.slots[0].next(0), Next::Ask(_)));
}

#[test]
fn a_stopping_slot_calls_its_question_back() {
    // After a stop an abandoned question is replaced by one that takes no task, and received tasks are handed back.
    let mut world = welcomed();
    let (token, _) = asked(world.slots[0].next(0));
    world.slots[0].give_up(token);
    world.slots[0].stop();
    let (token, ready) = asked(world.slots[0].next(0));
    assert_eq!((ready.max, ready.wait_ms), (0, 0));
    let wait = Wait { epoch: Epoch(1), after_ms: 0, reason: WaitReason::Idle, outcomes: Vec::new(), settled: 0 };
    world.slots[0].answer(token, Answer::Wait(wait), 60, 0);
    assert_eq!(world.slots[0].next(60), Next::Leave);
}

#[test]
fn no_task_is_taken_while_too_much_is_unsettled() {
    // With the bound of four outcomes reached a slot asks for none, until the broker has settled them.
    let mut world = welcomed();
    let mut n = 0;
    let ready = loop {
        let (token, ready) = asked(world.slots[0].next(n));
        if ready.max == 0 || n > 100 {
            break ready;
        }
        let answer = world.model.ask(Request::Ready(ready));
        world.slots[0].answer(token, answer, n, 0);
        let task = world.slots[0].start().unwrap().task;
        world.slots[0].finish(Outcome::new(task.task, task.lease, End::Done), n);
        n += 1;
    };
    assert_eq!((ready.max, world.slots[0].n_unsettled()), (0, 4));
    world.model.commit();
    let token = world.slots[0].tokens();
    let answer = world.model.ask(Request::Ready(ready));
    world.slots[0].answer(token, answer, 200, 0);
    assert!(asked(world.slots[0].next(300)).1.max > 0);
}

#[test]
fn a_long_task_does_not_hold_back_the_outcomes_before_it() {
    // While the second task of a batch runs, the first one's outcome can be said, without asking for more.
    let mut world = World::new(2);
    world.step(SLOTS, true);
    world.deliver(0);
    world.step(0, true);
    world.deliver(0);
    world.step(0, true);
    world.finish(0);
    world.step(0, true);
    assert!(world.slots[0].flush(0, 0).is_some_and(|question| match question.request {
        Request::Ready(ready) => ready.max == 0 && ready.outcomes.len() == 1,
        _ => false,
    }));
    assert_eq!(world.slots[0].flush(0, 0), None);
}

#[test]
fn an_idle_slot_hears_from_the_sessions_beat_what_is_on_disk() {
    // The question that brought the outcome stays parked; what BEAT says of the slot's batch settles it, and nothing that is
    // said of other slots or of another epoch does.
    let mut world = welcomed();
    let (token, _) = asked(world.slots[0].next(0));
    let tasks = vec![handed(1, Lease::new(7))];
    let hand_out = HandOut { epoch: Epoch(1), seq: 1, tasks, outcomes: Vec::new(), settled: 0 };
    world.slots[0].answer(token, Answer::Tasks(hand_out), 0, 7);
    world.slots[0].start().unwrap();
    world.slots[0].finish(Outcome::new(TaskId::new(1).unwrap(), Lease::new(7), End::Done), 0);
    let (_, ready) = asked(world.slots[0].next(0));
    let batch = ready.batch.unwrap();
    let mut beat = |now_ms, epoch, settled| {
        let Next::Ask(question) = world.session.next(world.slots.iter_mut(), now_ms) else { panic!("no BEAT") };
        let noted = BeatNoted {
            epoch: Epoch(epoch),
            cancel: Vec::new(),
            stale: Vec::new(),
            settled,
            drain: false,
            release: false,
        };
        let heard = world.session.answer(world.slots.iter_mut(), question.token, Answer::Beat(noted), now_ms, 7);
        (heard, world.slots[0].n_unsettled())
    };
    assert_eq!(beat(0, 1, vec![Settled(1, batch), Settled(0, batch - 1)]), (Heard::Nothing, 1));
    assert_eq!(beat(1_000, 1, vec![Settled(0, batch)]), (Heard::Nothing, 0));
    assert_eq!(world.slots[0].held().count(), 0);
}

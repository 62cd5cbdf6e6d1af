//! Worker processes: the SDK's link, driven as its threads drive it, with handlers that do what the seed says.

mod handlers;
mod words;

use laneway::link::{Heard, Next, Question, Session, Slot, SlotSettings};
use laneway_protocol::message::{Answer, End, Held, Hello, Outcome, Request};
use laneway_protocol::{LaneName, SessionName};

use crate::plan::{KINDS, LANES, kind, lane};
use crate::world::{Due, Peer, Tag, World};

/// The line of the control loop; the slots' lines are their places in the list.
pub(crate) const CONTROL: usize = usize::MAX;
/// On top of what the broker may take to answer; then the answer was lost.
const SLACK_MS: u64 = 1_500;

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) name: SessionName,
    pub(crate) lives: u64,
    pub(crate) up: bool,
    pub(crate) silent_until: u64,
    session: Session,
    control: Line,
    pub(crate) slots: Vec<Place>,
}

#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) link: Slot,
    line: Line,
    run: Option<Run>,
    /// What it has finished and has to say until it is settled.
    finished: Vec<Outcome>,
}

#[derive(Debug, Default)]
struct Line {
    conn: Option<u64>,
    /// What is asked, and what of it could not be sent yet.
    asking: Option<(u64, Option<Question>)>,
    misses: u32,
}

#[derive(Debug)]
struct Run {
    held: Held,
    outcome: Outcome,
    listens: bool,
    kills: bool,
}

impl World {
    pub(crate) fn add_worker(&mut self, at: usize) {
        let lives = self.workers.get(at).map_or(1, |before| before.lives + 1);
        let name = SessionName::new(format!("worker-{at}-{lives}")).expect("a plain word is a name");
        let mut kinds: Vec<_> = KINDS.iter().filter(|_| self.calm || self.chance.chance(75)).map(|k| kind(k)).collect();
        if kinds.is_empty() {
            kinds.push(kind(KINDS[0]));
        }
        let hello = Hello {
            session: name.clone(),
            name: format!("worker {at}"),
            host: "sim".into(),
            pid: 1,
            sdk: "sim".into(),
            kinds,
            lanes: None,
            slots: 1,
            resume: Vec::new(),
            more: false,
        };
        let n_slots = self.chance.index(3) + 1;
        let slots = (0..n_slots).map(|slot| {
            let lanes: Option<Vec<LaneName>> =
                (!self.calm && self.chance.chance(25)).then(|| vec![lane(self.chance.pick::<&str>(&LANES))]);
            let settings = SlotSettings {
                session: name.clone(),
                slot: u32::try_from(slot).expect("slots are few"),
                lanes,
                committed: slot == 1,
                max: *self.chance.pick(&[1, 1, 1, 2, 5]),
                wait_ms: 500,
                unsettled_max: 8,
                unsettled_bytes_max: 100_000,
            };
            Place { link: Slot::new(settings), line: Line::default(), run: None, finished: Vec::new() }
        });
        let slots = slots.collect();
        let session = Session::new(hello, 5_000);
        let worker = Worker { name, lives, up: true, silent_until: 0, session, control: Line::default(), slots };
        if at < self.workers.len() {
            self.workers[at] = worker;
        } else {
            self.workers.push(worker);
        }
        self.drive_in(1, Peer::Worker { worker: at, line: CONTROL });
    }

    pub(crate) fn kill_worker(&mut self, at: usize) {
        if !std::mem::take(&mut self.workers[at].up) {
            return;
        }
        let name = self.workers[at].name.clone();
        self.note(format_args!("{name} dies"));
        for conn in self.conns_of(at) {
            let keeps = self.net.chance(50);
            self.cut(conn, keeps);
        }
        self.add_worker(at);
    }

    /// Asks whatever session and slots want to ask now, and starts what they have received.
    pub(crate) fn drive_worker(&mut self, at: usize) {
        for _ in 0..4 {
            self.drive_control(at);
        }
        for slot in 0..self.workers[at].slots.len() {
            self.drive_slot(at, slot);
        }
    }

    fn drive_control(&mut self, at: usize) {
        self.retry_unsent(at, CONTROL);
        let now = self.now;
        let worker = &mut self.workers[at];
        if worker.control.asking.is_some() {
            return;
        }
        match worker.session.next(worker.slots.iter_mut().map(|place| &mut place.link), now) {
            Next::Ask(question) => {
                if matches!(question.request, Request::Hello(_)) {
                    // What the slots have asked the old epoch will not be answered.
                    for place in &mut worker.slots {
                        if let Some((token, _)) = place.line.asking.take() {
                            place.link.give_up(token);
                        }
                    }
                }
                self.ask(at, CONTROL, question);
            }
            Next::Pause { until_ms } => self.drive_at(at, until_ms),
            Next::Run | Next::Leave => {}
        }
    }

    fn drive_slot(&mut self, at: usize, slot: usize) {
        self.retry_unsent(at, slot);
        let now = self.now;
        let place = &mut self.workers[at].slots[slot];
        if place.line.asking.is_some() {
            return;
        }
        if place.run.is_some() {
            if let Some(question) = place.link.flush(now.saturating_sub(50), now) {
                self.ask(at, slot, question);
            }
            return self.drive_in(60, Peer::Worker { worker: at, line: slot });
        }
        match place.link.next(now) {
            Next::Ask(question) => self.ask(at, slot, question),
            Next::Run => {
                self.run_task(at, slot);
                self.drive_in(60, Peer::Worker { worker: at, line: slot });
            }
            Next::Pause { until_ms } => self.drive_at(at, until_ms),
            Next::Leave => {}
        }
    }

    fn drive_at(&mut self, at: usize, until: u64) {
        if until < u64::MAX {
            let ms = until.saturating_sub(self.now).max(1);
            self.drive_in(ms, Peer::Worker { worker: at, line: CONTROL });
        }
    }

    fn line(&mut self, at: usize, line: usize) -> &mut Line {
        let worker = &mut self.workers[at];
        if line == CONTROL { &mut worker.control } else { &mut worker.slots[line].line }
    }

    fn ask(&mut self, at: usize, line: usize, question: Question) {
        let late = Due::Late(Peer::Worker { worker: at, line }, Tag::Token(question.token));
        self.due_in(question.wait_ms + SLACK_MS, late);
        self.line(at, line).asking = Some((question.token, Some(question)));
        self.retry_unsent(at, line);
    }

    fn retry_unsent(&mut self, at: usize, line: usize) {
        let peer = Peer::Worker { worker: at, line };
        let before = self.line(at, line).conn;
        if !matches!(self.line(at, line).asking, Some((_, Some(_)))) {
            return;
        }
        let Some(conn) = self.connect(peer, before) else {
            let ms = self.net.between(20, 80);
            return self.drive_in(ms, peer);
        };
        let line = self.line(at, line);
        line.conn = Some(conn);
        let Some((token, Some(question))) = line.asking.take() else { return };
        line.asking = Some((token, None));
        self.send(conn, Tag::Token(token), question.request);
    }

    pub(crate) fn worker_hears(&mut self, at: usize, line: usize, tag: Tag, answer: Answer) {
        let now = self.now;
        let random = self.net.next();
        let worker = &mut self.workers[at];
        let heard = match (line, tag) {
            (CONTROL, Tag::Token(token)) => {
                if worker.control.asking.as_ref().is_some_and(|asking| asking.0 == token) {
                    worker.control.asking = None;
                }
                worker.session.answer(worker.slots.iter_mut().map(|place| &mut place.link), token, answer, now, random)
            }
            (slot, Tag::Token(token)) => {
                let Some(place) = worker.slots.get_mut(slot) else { return };
                if place.line.asking.as_ref().is_some_and(|asking| asking.0 == token) {
                    (place.line.asking, place.line.misses) = (None, 0);
                }
                place.link.answer(token, answer, now, random)
            }
            (slot, Tag::Progress(held)) => {
                let Some(place) = worker.slots.get_mut(slot) else { return };
                place.link.noted(held, &answer);
                Heard::News
            }
        };
        self.heard(at, &heard);
        self.drive_worker(at);
    }

    fn heard(&mut self, at: usize, heard: &Heard) {
        for place in &mut self.workers[at].slots {
            let held: Vec<Held> = place.link.held().collect();
            let settled = place.finished.extract_if(.., |word| !held.contains(&Held(word.task, word.lease)));
            settled.for_each(|word| self.auditor.on_let_go(&word));
        }
        let worker = &mut self.workers[at];
        match heard {
            Heard::Hello => {
                if let Some((token, _)) = worker.control.asking.take() {
                    worker.session.give_up(token);
                }
            }
            Heard::Welcome => {
                for place in &mut worker.slots {
                    if let Some((token, _)) = place.line.asking.take() {
                        place.link.give_up(token);
                    }
                }
            }
            Heard::Nothing | Heard::News | Heard::Drain { .. } | Heard::Refused(_) | Heard::GivenUp(_) => {}
        }
        let mut ending = Vec::new();
        for (slot, place) in self.workers[at].slots.iter_mut().enumerate() {
            if let Some(run) = place.run.as_mut().filter(|run| run.listens && place.link.is_cancelled()) {
                run.outcome = Outcome::new(run.held.0, run.held.1, End::Cancelled);
                run.kills = false;
                ending.push((slot, run.held));
            }
        }
        for (slot, held) in ending {
            self.due_in(3, Due::Finish { worker: at, slot, held });
        }
    }

    pub(crate) fn lost_connection(&mut self, peer: Peer, conn: u64) {
        match peer {
            Peer::Worker { worker, line } => {
                if line != CONTROL && line >= self.workers[worker].slots.len()
                    || self.line(worker, line).conn != Some(conn)
                {
                    return;
                }
                self.line(worker, line).conn = None;
                if let Some((token, _)) = self.line(worker, line).asking.as_ref() {
                    let token = *token;
                    self.late(peer, Tag::Token(token));
                }
            }
            Peer::Client(client) => self.client_lost(client, conn),
        }
    }

    /// No answer came in time.
    pub(crate) fn late(&mut self, peer: Peer, tag: Tag) {
        let (now, random) = (self.now, self.net.next());
        let (at, line, token) = match (peer, tag) {
            (Peer::Worker { worker, line }, Tag::Token(token)) => (worker, line, token),
            (Peer::Client(client), Tag::Token(token)) => return self.client_late(client, token),
            (_, Tag::Progress(_)) => return,
        };
        if line != CONTROL && line >= self.workers[at].slots.len() {
            return;
        }
        if self.line(at, line).asking.as_ref().is_none_or(|asking| asking.0 != token) {
            return;
        }
        let state = self.line(at, line);
        state.asking = None;
        state.misses += 1;
        if state.misses > 1
            && let Some(conn) = state.conn.take()
        {
            self.cut(conn, true);
        }
        let worker = &mut self.workers[at];
        if line == CONTROL {
            worker.session.unanswered(token, now, random);
        } else {
            worker.slots[line].link.unanswered(token, now, random);
        }
        self.drive_worker(at);
    }
}

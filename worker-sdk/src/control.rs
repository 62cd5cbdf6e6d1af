//! The control loop of a worker: introduces the process, shows that it lives, hears cancels, and says goodbye.
//!
//! It runs on the thread that called `Worker::run`, with a socket of its own, so handlers cannot block it. What it asks
//! is decided by the session of [`crate::link`]; it adds sockets, signals and the clock of a stop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use laneway_protocol::Request;

use crate::config::WorkerBuilder;
use crate::conn::{Conn, Miss, Patience, SLICE};
use crate::error::Error;
use crate::link::{Heard, Next, Question, Session};
use crate::lock;
use crate::signals::Signals;
use crate::worker::{ANSWER_SLACK, Phase, Shared, random};

/// An outcome that has waited this long behind a running task of its batch is said past it.
const FLUSH_AFTER_MS: u64 = 50;
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// How often the control loop looks around while the worker stops, or flushes batches.
const BUSY_SLICE: Duration = Duration::from_millis(20);

/// The control loop, on the thread that called `run`.
pub(crate) struct Control {
    shared: Arc<Shared>,
    session: Session,
    conn: Conn,
    /// For outcomes that wait behind a running task; opened when first needed.
    flush: Conn,
    settings: WorkerBuilder,
    signals: Option<Signals>,
    /// When the phase began, for the phases of a stop.
    stopping_at: Option<Instant>,
    releasing_at: Option<Instant>,
}

impl Control {
    pub(crate) fn new(
        shared: Arc<Shared>,
        session: Session,
        conn: Conn,
        settings: WorkerBuilder,
        signals: Option<Signals>,
    ) -> Self {
        let flush = conn.sibling();
        Self { shared, session, conn, flush, settings, signals, stopping_at: None, releasing_at: None }
    }

    pub(crate) fn run(mut self) -> Result<(), Error> {
        let mut refused: Option<Error> = None;
        loop {
            self.look_around();
            if self.is_over() {
                break;
            }
            let now_ms = self.shared.now_ms();
            // Reset before the slots are looked at, so that a slot's later wish interrupts the question.
            self.shared.hello.store(false, Ordering::Release);
            match self.session.next(self.shared.links(), now_ms) {
                Next::Ask(question) => {
                    if let Err(error) = self.ask(question) {
                        self.shared.stop(Phase::Releasing);
                        refused.get_or_insert(error);
                    }
                }
                Next::Pause { until_ms } => {
                    let pause = Duration::from_millis(until_ms.saturating_sub(now_ms));
                    self.shared.bell.wait(pause.min(BUSY_SLICE));
                }
                Next::Run | Next::Leave => break,
            }
        }
        match refused {
            // There is nobody to say goodbye to.
            Some(error @ Error::NotAdmitted { .. }) => Err(error),
            Some(error) => {
                self.farewell().ok();
                Err(error)
            }
            None => self.farewell(),
        }
    }

    /// Fails when the broker does not want this worker.
    fn ask(&mut self, Question { token, request, wait_ms }: Question) -> Result<(), Error> {
        let hello = matches!(request, Request::Hello(_));
        if hello {
            // What the slots have asked the old epoch will not be answered.
            self.shared.generation.fetch_add(1, Ordering::AcqRel);
        }
        let phase = self.shared.phase();
        let busy = phase > Phase::Running || self.settings.batch > 1;
        self.conn.set_slice(if busy { BUSY_SLICE } else { SLICE });
        let patience = Patience { connect: ANSWER_SLACK, answer: Duration::from_millis(wait_ms) + ANSWER_SLACK };
        let (shared, flush, signals, batch) = (&*self.shared, &mut self.flush, &mut self.signals, self.settings.batch);
        let mut go_on = || {
            if batch > 1 {
                flush_batches(shared, flush);
            }
            let signalled = signals.as_mut().is_some_and(|signals| signals.waiting());
            let done = phase > Phase::Running && shared.n_alive.load(Ordering::Acquire) == 0;
            let hello = !hello && shared.hello.load(Ordering::Acquire);
            !signalled && !done && !hello && shared.phase() == phase
        };
        let asked = self.conn.ask(request, patience, &mut go_on);
        let now_ms = self.shared.now_ms();
        let heard = match asked {
            Ok(answer) => self.session.answer(self.shared.links(), token, answer, now_ms, random()),
            Err(Miss::GivenUp) => {
                self.session.give_up(token);
                Heard::Nothing
            }
            Err(miss) => {
                tracing::debug!(%miss, "no answer to the session's question");
                self.session.unanswered(token, now_ms, random());
                if let Miss::Barred(barrier) = miss {
                    return Err(Error::NotAdmitted { endpoint: self.settings.endpoint.clone(), barrier });
                }
                Heard::Nothing
            }
        };
        self.shared.heard(&heard);
        match heard {
            Heard::Refused(error) => Err(Error::Refused(error)),
            _ => Ok(()),
        }
    }

    /// Signals and the clock move a stop forward.
    fn look_around(&mut self) {
        if self.signals.as_mut().is_some_and(Signals::take) {
            let again = self.shared.phase() > Phase::Running;
            tracing::info!(again, "told to stop by a signal");
            self.shared.stop(if again { Phase::Releasing } else { Phase::Stopping });
        }
        let phase = self.shared.phase();
        if phase > Phase::Running && self.stopping_at.is_none() {
            self.stopping_at = Some(Instant::now());
        }
        // A drain lets tasks take the time they need; a stop does not.
        let drained = self.shared.drained.load(Ordering::Acquire);
        let over = self.stopping_at.is_some_and(|at| at.elapsed() >= self.settings.stop_timeout);
        if phase == Phase::Stopping && over && !drained {
            tracing::warn!("tasks still run after the stop timeout and are handed back");
            self.shared.stop(Phase::Releasing);
        }
        if self.shared.phase() == Phase::Releasing && self.releasing_at.is_none() {
            self.releasing_at = Some(Instant::now());
            for mut link in self.shared.links() {
                link.cancel_running();
            }
            self.shared.mirror();
        }
    }

    /// Whether every slot has left, or has had its time to.
    fn is_over(&self) -> bool {
        self.shared.phase() > Phase::Running && self.shared.n_alive.load(Ordering::Acquire) == 0
            || self.releasing_at.is_some_and(|at| at.elapsed() >= self.settings.release_timeout)
    }

    fn farewell(&mut self) -> Result<(), Error> {
        self.session.leave(self.shared.links());
        let (outcomes, releases) = self.session.n_unsaid();
        let nothing_to_lose = outcomes + releases == 0;
        // Without anything to bring, the goodbye is a courtesy.
        let timeout =
            self.settings.farewell_timeout.min(if nothing_to_lose { Duration::from_secs(1) } else { Duration::MAX });
        let until = Instant::now() + timeout;
        self.conn.set_slice(BUSY_SLICE);
        while Instant::now() < until {
            let now_ms = self.shared.now_ms();
            match self.session.next(self.shared.links(), now_ms) {
                Next::Ask(Question { token, request, .. }) => {
                    let left = until.saturating_duration_since(Instant::now());
                    let patience = Patience { connect: left, answer: left.min(ANSWER_SLACK) };
                    let signals = &mut self.signals;
                    let mut go_on = || !signals.as_mut().is_some_and(|signals| signals.waiting());
                    let now_ms = self.shared.now_ms();
                    match self.conn.ask(request, patience, &mut go_on) {
                        Ok(answer) => {
                            self.session.answer(self.shared.links(), token, answer, now_ms, random());
                        }
                        Err(Miss::GivenUp) => break,
                        Err(_) => self.session.unanswered(token, now_ms, random()),
                    }
                }
                Next::Pause { until_ms } => {
                    thread::sleep(Duration::from_millis(until_ms.saturating_sub(now_ms)).min(BUSY_SLICE));
                }
                Next::Run | Next::Leave => return Ok(()),
            }
        }
        let (outcomes, releases) = self.session.n_unsaid();
        if outcomes + releases == 0 { Ok(()) } else { Err(Error::NoFarewell { outcomes, releases }) }
    }
}

/// Says outcomes that wait behind a running task of the same batch.
fn flush_batches(shared: &Shared, conn: &mut Conn) {
    let now_ms = shared.now_ms();
    let Some(since_ms) = now_ms.checked_sub(FLUSH_AFTER_MS) else { return };
    for place in &shared.places {
        let _flushing = lock(&place.flushing);
        let Some(question) = lock(&place.link).flush(since_ms, now_ms) else { continue };
        let patience = Patience { connect: FLUSH_PATIENCE, answer: FLUSH_PATIENCE };
        let asked = conn.ask(question.request, patience, &mut || true);
        let mut link = lock(&place.link);
        match asked {
            Ok(answer) => {
                let heard = link.answer(question.token, answer, now_ms, random());
                drop(link);
                shared.heard(&heard);
            }
            Err(_) => link.unanswered(question.token, now_ms, random()),
        }
    }
}

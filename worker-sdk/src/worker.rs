//! A worker process: one thread with its own socket per slot, beside the control loop of `control.rs`.
//!
//! A slot thread asks for tasks, runs them, and says how they ended, as its part of [`crate::link`] decides. Slots and
//! control loop share the slots' links, each behind a lock that is held for a moment only, and a few flags.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use laneway_protocol::message::{End, Hello};
use laneway_protocol::{Answer, Kind, SessionName, WireError};

use crate::config::{Resolved, WorkerBuilder};
use crate::conn::{Address, Conn, Miss, Patience, SLICE};
use crate::context::{Context, Place};
use crate::control::Control;
use crate::error::Error;
use crate::handler::{Failure, Handler, outcome, run_caught};
use crate::link::{Heard, Next, Question, Received, Session, Slot};
use crate::lock;
use crate::signals::Signals;
use crate::spans::Runs;

/// On top of what the broker may take to answer; then the answer was lost.
pub(crate) const ANSWER_SLACK: Duration = Duration::from_secs(3);
/// How long the broker may park BEAT.
const BEAT_WAIT_MS: u64 = 5_000;

/// Runs tasks until it is stopped or the broker drains its workers.
///
/// Made by [`Worker::builder`]; see the [crate's page](crate) for an example.
pub struct Worker {
    shared: Arc<Shared>,
    session: Session,
    conn: Conn,
    settings: WorkerBuilder,
}

/// Why [`Worker::run`] returned without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// By a signal or a [`Stopper`].
    Stopped,
    /// The broker told its workers to leave.
    Drained,
}

/// Stops a worker from another thread. Cheap to clone; outlives the worker harmlessly.
#[derive(Clone)]
pub struct Stopper {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) places: Vec<Arc<Place>>,
    handlers: HashMap<Kind, Box<dyn Handler>>,
    /// Tasks come only once their rows show the lease.
    committed: bool,
    spans: Runs,
    session: SessionName,
    endpoint: Arc<str>,
    started: Instant,
    phase: AtomicU8,
    /// Counted up when the slots' questions in flight have become pointless.
    pub(crate) generation: AtomicU64,
    /// A slot heard that the session has to introduce itself.
    pub(crate) hello: AtomicBool,
    pub(crate) drained: AtomicBool,
    /// What a slot was refused for, so that the worker ends.
    refused: Mutex<Option<WireError>>,
    pub(crate) n_alive: AtomicUsize,
    pub(crate) bell: Bell,
}

/// How far a stop has come; only ever counted up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running = 0,
    /// Take nothing more, finish what runs.
    Stopping = 1,
    /// End what runs, hand it back.
    Releasing = 2,
}

impl Worker {
    /// Starts to set up a worker of the broker at `endpoint`, `tcp://HOST:PORT` or `ipc://PATH`.
    pub fn builder(endpoint: impl Into<String>) -> WorkerBuilder {
        WorkerBuilder::new(endpoint.into())
    }

    pub(crate) fn new(mut settings: WorkerBuilder) -> Result<Self, Error> {
        let session = random_session()?;
        let Resolved { identity, slots, handlers } = settings.resolve(session.clone())?;
        let context = zmq::Context::new();
        let endpoint: Arc<str> = settings.endpoint.as_str().into();
        let address = Address { endpoint: Arc::clone(&endpoint), curve: settings.curve.clone() };
        // Of all connections one finds out whether this worker is let in; the others only wait.
        let mut conn = Conn::new(context.clone(), address.clone()).watched();
        conn.open()?;
        let place = |settings| {
            Arc::new(Place {
                link: Mutex::new(Slot::new(settings)),
                conn: Mutex::new(Conn::new(context.clone(), address.clone())),
                cancelled: AtomicBool::new(false),
                flushing: Mutex::new(()),
            })
        };
        let places: Vec<_> = slots.into_iter().map(place).collect();
        let n_alive = AtomicUsize::new(places.len());
        let shared = Arc::new(Shared {
            places,
            handlers,
            committed: settings.committed,
            spans: Runs::new(&identity, &endpoint),
            session,
            endpoint,
            started: Instant::now(),
            phase: AtomicU8::new(Phase::Running as u8),
            generation: AtomicU64::new(0),
            hello: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            refused: Mutex::new(None),
            n_alive,
            bell: Bell::default(),
        });
        let session = Session::new(Hello { ..identity }, BEAT_WAIT_MS);
        Ok(Self { shared, session, conn, settings })
    }

    /// A handle that stops the worker from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper { shared: self.shared.clone() }
    }

    /// Runs tasks until a stop or a drain, and says goodbye. A broker that is away is waited for, at the start and later:
    /// what runs goes on, and outcomes are kept and said again until they are on disk.
    ///
    /// On a stop no more tasks are taken, and running ones may finish within the stop timeout; then they are told to end
    /// and handed back. Handlers that do not return even then are left behind on their threads.
    ///
    /// Fails with [`Error::Refused`] when the broker does not want this worker (an unknown lane, another version, a key without
    /// the role `work`), with [`Error::NotAdmitted`] when it does not let it in at all, also later, when its key is taken off
    /// the list: what runs then is told to end. Fails with [`Error::NoFarewell`] when last outcomes could not be delivered,
    /// with [`Error::System`] when a thread could not be started or broke.
    pub fn run(self) -> Result<Finished, Error> {
        let signals = if self.settings.signals { Some(Signals::catch()?) } else { None };
        let mut threads = Vec::new();
        let mut failed = None;
        for at in 0..self.shared.places.len() {
            let shared = self.shared.clone();
            match thread::Builder::new().name(format!("laneway-{at}")).spawn(move || slot_loop(&shared, at)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    failed = Some(Error::System(format!("no thread for slot {at}: {error}")));
                    self.shared.n_alive.fetch_sub(self.shared.places.len() - at, Ordering::AcqRel);
                    self.shared.stop(Phase::Releasing);
                    break;
                }
            }
        }
        let shared = self.shared.clone();
        let Worker { shared: _, session, conn, settings } = self;
        let ended = Control::new(shared.clone(), session, conn, settings, signals).run();
        for thread in threads {
            // One that still runs a handler is left behind; its task was handed back.
            let over = shared.n_alive.load(Ordering::Acquire) == 0 || thread.is_finished();
            if over && thread.join().is_err() && failed.is_none() {
                failed = Some(Error::System("a slot's thread broke; its task was handed back".into()));
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        ended?;
        if let Some(error) = lock(&shared.refused).take() {
            return Err(Error::Refused(error));
        }
        Ok(if shared.drained.load(Ordering::Acquire) { Finished::Drained } else { Finished::Stopped })
    }
}

impl Stopper {
    /// Takes no more tasks and lets running ones finish within the stop timeout. Returns at once.
    pub fn stop(&self) {
        self.shared.stop(Phase::Stopping);
    }

    /// Stops without letting running tasks finish: they are told to end and are handed back. Returns at once.
    pub fn release(&self) {
        self.shared.stop(Phase::Releasing);
    }
}

impl Shared {
    pub(crate) fn stop(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.bell.ring();
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Stopping,
            _ => Phase::Releasing,
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = MutexGuard<'_, Slot>> {
        self.places.iter().map(|place| lock(&place.link))
    }

    /// Shows the handlers what the links have heard.
    pub(crate) fn mirror(&self) {
        for place in &self.places {
            place.mirror(&lock(&place.link));
        }
    }

    /// Acts on what one part heard and others have to know.
    pub(crate) fn heard(&self, heard: &Heard) {
        match heard {
            Heard::Nothing | Heard::Refused(_) => {}
            Heard::Hello => self.hello.store(true, Ordering::Release),
            Heard::News => self.mirror(),
            Heard::Welcome => {
                self.mirror();
                self.generation.fetch_add(1, Ordering::AcqRel);
                self.bell.ring();
            }
            Heard::Drain { release } => {
                self.drained.store(true, Ordering::Release);
                self.stop(if *release { Phase::Releasing } else { Phase::Stopping });
            }
            Heard::GivenUp(held) => tracing::error!(task = %held.0, "the broker takes no outcome of this task"),
        }
    }
}

/// Tells the slots' threads apart from a broken one: however a thread ends, it is counted.
struct Alive<'a>(&'a Shared);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            // A worker short of a slot would look healthy; ending lets whatever supervises it start another.
            self.0.stop(Phase::Stopping);
        }
        self.0.n_alive.fetch_sub(1, Ordering::AcqRel);
    }
}

fn slot_loop(shared: &Shared, at: usize) {
    let _alive = Alive(shared);
    let place = &shared.places[at];
    loop {
        // Read before `next`, so that a welcome in between interrupts the question.
        let generation = shared.generation.load(Ordering::Acquire);
        let phase = shared.phase();
        // A flush in flight is the older question and must reach the broker first.
        drop(lock(&place.flushing));
        let next = {
            let mut link = lock(&place.link);
            if phase > Phase::Running {
                link.stop();
            }
            link.next(shared.now_ms())
        };
        match next {
            Next::Run => run_task(shared, place),
            Next::Ask(question) => ask_ready(shared, place, question, generation, phase),
            Next::Pause { until_ms } => {
                let pause = Duration::from_millis(until_ms.saturating_sub(shared.now_ms()));
                shared.bell.wait(pause.min(SLICE));
            }
            Next::Leave => break,
        }
    }
    lock(&place.conn).close();
}

fn ask_ready(shared: &Shared, place: &Place, question: Question, generation: u64, phase: Phase) {
    let Question { token, request, wait_ms } = question;
    // While stopping, a broker that is away is not waited for: the goodbye tries again.
    let connect = if phase == Phase::Running { ANSWER_SLACK } else { Duration::ZERO };
    let patience = Patience { connect, answer: Duration::from_millis(wait_ms) + ANSWER_SLACK };
    let mut go_on = || shared.generation.load(Ordering::Acquire) == generation && shared.phase() == phase;
    let asked = lock(&place.conn).ask(request, patience, &mut go_on);
    let now_ms = shared.now_ms();
    let mut link = lock(&place.link);
    let heard = match asked {
        Ok(answer) => link.answer(token, answer, now_ms, random()),
        Err(Miss::Unsendable(error)) => {
            let refusal = WireError::new(error.code(), error.to_string());
            link.answer(token, Answer::Error(refusal), now_ms, random())
        }
        Err(Miss::GivenUp) => {
            link.give_up(token);
            Heard::Nothing
        }
        Err(miss) => {
            tracing::debug!(%miss, "no answer to READY");
            link.unanswered(token, now_ms, random());
            Heard::Nothing
        }
    };
    drop(link);
    shared.heard(&heard);
    if let Heard::Refused(error) = heard {
        *lock(&shared.refused) = Some(error);
        shared.stop(Phase::Stopping);
    }
}

fn run_task(shared: &Shared, place: &Arc<Place>) {
    let started = {
        let mut link = lock(&place.link);
        let started = link.start();
        place.mirror(&link);
        started
    };
    let Some(Received { task, received_ms }) = started else { return };
    let received = shared.started + Duration::from_millis(received_ms);
    let run = shared.spans.begin(&task);
    let (session, endpoint) = (shared.session.clone(), shared.endpoint.clone());
    let (ctx, payload) = Context::new(task, received, session, place.clone(), endpoint, run.clone());
    let held = ctx.held();
    // First, so that the span of `tracing` is a child of it where a subscriber hands those on to OpenTelemetry.
    let _in_run = run.enter();
    let span = tracing::info_span!(
        "task",
        task = %ctx.id(), kind = %ctx.kind(), lane = %ctx.lane(), run = ctx.run(), attempt = ctx.attempt()
    );
    let _entered = span.enter();
    let mut ended = match shared.handlers.get(ctx.kind()) {
        Some(handler) => {
            run_caught(handler.as_ref(), payload, &ctx).map_err(|failure| failure.checked(shared.committed))
        }
        None => Err(Failure::release()),
    };
    // Before its end, behind which nothing is heard.
    ctx.say_rest();
    if let Err(failure) = &mut ended {
        if shared.phase() == Phase::Releasing && ctx.cancelled() {
            // It ended because it was told to, so nothing is counted against the task.
            *failure = Failure::release();
        }
        tracing::debug!(?failure, "task ended without result");
    }
    let outcome = outcome(held, ended, ctx.into_spawned());
    run.tell(&outcome);
    let end: End = outcome.end;
    let is_taken = lock(&place.link).finish(outcome, shared.now_ms());
    run.end(is_taken);
    if !is_taken {
        tracing::warn!(?end, "the task went elsewhere while it ran here; its outcome is dropped");
    }
}

/// Wakes threads that pause.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<()>,
    waiting: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        let _rung = lock(&self.rung);
        self.waiting.notify_all();
    }

    /// Returns after `timeout`, at a ring, or now and then for no reason.
    pub(crate) fn wait(&self, timeout: Duration) {
        let rung = lock(&self.rung);
        drop(self.waiting.wait_timeout(rung, timeout).map_err(PoisonError::into_inner));
    }
}

/// 16 random bytes as hexadecimal digits.
fn random_session() -> Result<SessionName, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::System(format!("no random bytes: {error}")))?;
    let name = format!("{:032x}", u128::from_ne_bytes(bytes));
    SessionName::new(name).map_err(|error| Error::System(error.to_string()))
}

/// For jitter only: without random bytes from the system the delays are merely even.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Worker").field(&self.settings).finish()
    }
}

impl std::fmt::Debug for Stopper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stopper").field("phase", &self.shared.phase()).finish()
    }
}

//! A broker of a page for the tests of the SDK: one thread, one ROUTER, tasks in memory. It can be restarted on the same
//! endpoint, and remembers everything that was said to it.

#![allow(dead_code, reason = "not every test uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use laneway::protocol::codec::{decode_request, encode_answer};
use laneway::protocol::message::{
    BeatNoted, Bye, ByeNoted, Cursor, Final, HandOut, HandedTask, Held, Hello, Outcome, OutcomeCode, Pong, Progress,
    ProgressEvent, ProgressNoted, Ready, Stored, Submit, Submitted, Wait, WaitReason, Waited, Welcome,
};
use laneway::protocol::{Answer, Epoch, Request, SessionName};
use laneway::{Code, Kind, LaneName, Lease, Payload, TaskId, TaskState, WireError};

/// What the broker knows, kept over its restarts.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) epoch: u64,
    pub(crate) queue: VecDeque<HandedTask>,
    pub(crate) leased: BTreeMap<u64, Lease>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) hellos: Vec<Hello>,
    pub(crate) progress: Vec<Progress>,
    pub(crate) byes: Vec<Bye>,
    pub(crate) readys: usize,
    pub(crate) cancel: Vec<Held>,
    pub(crate) drain: bool,
    pub(crate) requests: BTreeMap<[u8; 16], u64>,
    /// Each one that came, said again or not.
    pub(crate) submits: Vec<Submit>,
    /// Refuses HELLO with this.
    pub(crate) refuse: Option<WireError>,
    known: BTreeSet<SessionName>,
    seqs: BTreeMap<u32, u64>,
    settled: BTreeMap<u32, u64>,
    tasks: u64,
}

pub(crate) struct Broker {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

struct Parked {
    envelope: Vec<Vec<u8>>,
    until: Instant,
    request: Request,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = format!("ipc://{}/b", dir.path().display());
        let mut broker = Self { endpoint, state: Arc::default(), stop: Arc::default(), thread: None, _dir: dir };
        broker.up();
        broker
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn add(&self, kind: &str, lane: &str, payload: Option<Payload>) -> u64 {
        let mut state = self.state();
        state.tasks += 1;
        let id = state.tasks;
        let lease = Lease::new(i64::try_from(1000 + id).unwrap());
        state.queue.push_back(HandedTask {
            task: TaskId::new(id).unwrap(),
            lease,
            kind: Kind::new(kind).unwrap(),
            lane: LaneName::new(lane).unwrap(),
            run: 1,
            attempt: 1,
            max_attempts: 3,
            timeout_ms: 60_000,
            payload,
            trace: None,
            checkpoint: None,
        });
        id
    }

    /// Waits until `what` holds.
    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !holds(&self.state()) {
            assert!(Instant::now() < until, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Dies without a word, as by kill -9. What is in `State` is on disk.
    pub(crate) fn down(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn up(&mut self) {
        let mut state = self.state();
        state.epoch += 1;
        state.known.clear();
        state.seqs.clear();
        state.settled.clear();
        drop(state);
        self.stop = Arc::default();
        let (state, stop, endpoint) = (self.state.clone(), self.stop.clone(), self.endpoint.clone());
        self.thread = Some(std::thread::spawn(move || serve(&state, &stop, &endpoint)));
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn serve(state: &Mutex<State>, stop: &AtomicBool, endpoint: &str) {
    laneway::seed_libzmq();
    let context = zmq::Context::new();
    let router = context.socket(zmq::ROUTER).unwrap();
    router.set_linger(0).unwrap();
    router.bind(endpoint).unwrap();
    let mut parked: Vec<Parked> = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        while let Ok(mut frames) = router.recv_multipart(zmq::DONTWAIT) {
            let empty = frames.iter().position(Vec::is_empty).unwrap();
            let message = frames.split_off(empty + 1);
            let request = decode_request(message).unwrap();
            if let Request::Ready(ready) = &request {
                state.lock().unwrap().readys += 1;
                let slot = (ready.session.clone(), ready.slot);
                parked.retain(
                    |other| !matches!(&other.request, Request::Ready(r) if (r.session.clone(), r.slot) == slot),
                );
            }
            if let Request::Submit(submit) = &request {
                state.lock().unwrap().submits.push(submit.clone());
            }
            let until = Instant::now() + Duration::from_millis(wait_ms(&request));
            parked.push(Parked { envelope: frames, until, request });
        }
        let mut state = state.lock().unwrap();
        parked.retain_mut(|parked| {
            let over = Instant::now() >= parked.until;
            let Some(answer) = state.answer(&mut parked.request, over) else { return true };
            let mut frames = std::mem::take(&mut parked.envelope);
            frames.extend(encode_answer(answer).unwrap());
            router.send_multipart(frames, 0).unwrap();
            false
        });
        drop(state);
        router.poll(zmq::POLLIN, 2).unwrap();
    }
}

fn wait_ms(request: &Request) -> u64 {
    match request {
        Request::Ready(ready) => ready.wait_ms,
        Request::Beat(beat) => beat.wait_ms,
        Request::WaitFor(wait) => wait.wait_ms,
        Request::Submit(submit) => submit.wait_ms,
        _ => 0,
    }
}

impl State {
    /// `None` while the question stays parked.
    fn answer(&mut self, request: &mut Request, over: bool) -> Option<Answer> {
        Some(match request {
            Request::Hello(hello) => self.hello(hello),
            Request::Ready(ready) => return self.ready(ready, over),
            Request::Beat(beat) => {
                if !self.known.contains(&beat.session) || beat.epoch != Some(Epoch(self.epoch)) {
                    return Some(hello_first());
                }
                let cancel: Vec<Held> =
                    beat.running.iter().filter(|held| self.cancel.contains(held)).copied().collect();
                if cancel.is_empty() && !self.drain && !over {
                    return None;
                }
                Answer::Beat(BeatNoted {
                    epoch: Epoch(self.epoch),
                    cancel,
                    stale: Vec::new(),
                    settled: Vec::new(),
                    drain: self.drain,
                    release: false,
                })
            }
            Request::Progress(progress) => {
                self.progress.push(progress.clone());
                Answer::Progress(ProgressNoted { cancel: false, parents: Vec::new(), more: false })
            }
            Request::Bye(bye) => {
                self.byes.push(bye.clone());
                let codes = self.take(&bye.outcomes.clone());
                Answer::Bye(ByeNoted { outcomes: codes })
            }
            Request::Ping => Answer::Pong(Pong { epoch: Epoch(self.epoch), version: "fake".into() }),
            Request::Submit(submit) => {
                let new = !self.requests.contains_key(&submit.request.0);
                let id = *self.requests.entry(submit.request.0).or_insert(77);
                if !over {
                    return None;
                }
                let stored = Stored { new, ..Stored::met(TaskId::new(id).unwrap()) };
                Answer::Submit(Submitted { tasks: vec![stored; submit.tasks.len()], finals: Vec::new(), group: None })
            }
            Request::WaitFor(wait) => {
                let cursor = Cursor { epoch: Epoch(self.epoch), n: self.progress.len() as u64 };
                let from = wait.cursor.filter(|cursor| cursor.epoch.0 == self.epoch).map_or(0, |cursor| cursor.n);
                let events: Vec<ProgressEvent> =
                    (1..).zip(&self.progress).filter(|(n, _)| *n > from).map(event).collect();
                let finals: Vec<Final> =
                    self.outcomes.iter().filter(|o| wait.tasks.contains(&o.task)).map(end).collect();
                if events.is_empty() && finals.is_empty() && !over {
                    return None;
                }
                let pending = if finals.is_empty() { wait.tasks.clone() } else { Vec::new() };
                Answer::WaitFor(Waited {
                    cursor,
                    gap: false,
                    events,
                    finals,
                    pending,
                    not_found: Vec::new(),
                    pruned: Vec::new(),
                    group: None,
                })
            }
            other => panic!("the fake broker does not know {other:?}"),
        })
    }

    fn hello(&mut self, hello: &Hello) -> Answer {
        self.hellos.push(hello.clone());
        if let Some(error) = &self.refuse {
            return Answer::Error(error.clone());
        }
        self.known.insert(hello.session.clone());
        let lost =
            hello.resume.iter().filter(|held| self.leased.get(&held.0.value()) != Some(&held.1)).copied().collect();
        Answer::Welcome(Welcome {
            epoch: Epoch(self.epoch),
            beat_ms: 1_000,
            wait_ms_max: 60_000,
            payload_bytes_max: 1 << 20,
            batch_max: 512,
            lanes: Vec::new(),
            lost,
        })
    }

    fn ready(&mut self, ready: &mut Ready, over: bool) -> Option<Answer> {
        if !self.known.contains(&ready.session) || ready.epoch != Some(Epoch(self.epoch)) {
            return Some(hello_first());
        }
        // Taken once, also when the question is parked; the answer then has no codes.
        let codes = self.take(&std::mem::take(&mut ready.outcomes));
        if let Some(batch) = ready.batch {
            self.settled.insert(ready.slot, batch);
        }
        let settled = self.settled.get(&ready.slot).copied().unwrap_or(0);
        let epoch = Epoch(self.epoch);
        let mut tasks = Vec::new();
        while tasks.len() < ready.max as usize {
            let serves = |task: &HandedTask| ready.lanes.as_ref().is_none_or(|lanes| lanes.contains(&task.lane));
            let Some(at) = self.queue.iter().position(serves) else { break };
            let task = self.queue.remove(at).unwrap();
            self.leased.insert(task.task.value(), task.lease);
            tasks.push(task);
        }
        if tasks.is_empty() {
            let reason = if self.drain { WaitReason::Draining } else { WaitReason::Idle };
            return (over || self.drain || !codes.is_empty()).then_some(Answer::Wait(Wait {
                epoch,
                after_ms: 0,
                reason,
                outcomes: codes,
                settled,
            }));
        }
        let seq = self.seqs.entry(ready.slot).or_default();
        *seq += 1;
        Some(Answer::Tasks(HandOut { epoch, seq: *seq, tasks, outcomes: codes, settled }))
    }

    fn take(&mut self, outcomes: &[Outcome]) -> Vec<OutcomeCode> {
        let mut codes = Vec::new();
        for outcome in outcomes {
            let current = self.leased.get(&outcome.task.value()) == Some(&outcome.lease);
            let recorded = self.outcomes.iter().any(|known| known.lease == outcome.lease);
            codes.push(if recorded {
                OutcomeCode::Recorded
            } else if current {
                self.outcomes.push(outcome.clone());
                OutcomeCode::Ok
            } else {
                OutcomeCode::Stale
            });
        }
        codes
    }
}

fn event((n, said): (u64, &Progress)) -> ProgressEvent {
    ProgressEvent {
        n,
        task: said.task,
        done: said.done,
        total: said.total,
        note: said.note.clone(),
        data: said.data.clone(),
        log: said.log.clone(),
    }
}

fn end(outcome: &Outcome) -> Final {
    Final { task: outcome.task, state: TaskState::Done, result: outcome.result.clone(), error: None }
}

fn hello_first() -> Answer {
    Answer::Error(WireError::new(Code::HelloFirst, "say HELLO"))
}

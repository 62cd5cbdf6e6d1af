//! Thousands of workers that connect at once, as after a start of the whole fleet: how long until each has done its first task.
//! They speak the wire themselves, for a thread for each would measure this machine's scheduler.

use std::time::Instant;

use crossbeam_channel::TryRecvError;
use laneway_protocol::message::{End, HandOut, HandedTask, Outcome, Ready};
use laneway_protocol::{Answer, Kind, Request, SessionName, codec};

use super::Bench;
use super::figure::{Figure, Report, Unit};
use super::stage::{Durability, Stage};
use super::worker::NOOP;
use crate::bounds::{DESCRIPTORS_KEPT, raise_open_files};
use crate::error::Error;
use crate::process::on_end_of_input;

/// In one process. Each has two descriptors, and many machines allow a process 1,024.
const PEERS_EACH: u32 = 400;
/// How long a peer lets the broker park its question.
const WAIT_MS: u64 = 30_000;
/// Between two looks at whether the peers are to end.
const LOOK_MS: i64 = 100;

/// As many tasks as workers, and each worker takes one: when all are done, every worker was served.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<(), Error> {
    let wanted = u64::from(bench.scale.crowd) + 2 * DESCRIPTORS_KEPT;
    // The broker has a descriptor for each, and must keep its own.
    let fits = raise_open_files(wanted).saturating_sub(2 * DESCRIPTORS_KEPT);
    let peers = bench.scale.crowd.min(u32::try_from(fits).unwrap_or(u32::MAX));
    let mut stage = Stage::open(bench, Durability::Full)?;
    stage.insert(NOOP, None, peers, |_| "null".into())?;
    stage.await_queued(peers)?;
    let started = Instant::now();
    stage.hire_plain(peers, PEERS_EACH)?;
    let took = stage.await_end()?.duration_since(started);
    report.count(stage.tally_done(peers)?);
    let name = format!("{peers} workers connect at once, until each has done a task");
    report.add(Figure::new("crowd", name, Unit::Seconds, took.as_secs_f64()));
    Ok(())
}

/// A process of such workers. They stay connected until standard input is closed.
pub(super) fn run_workers(to: &str, peers: u32) -> Result<(), Error> {
    let fail = |error: zmq::Error| Error::other("run plain workers", error);
    laneway::seed_libzmq();
    let context = zmq::Context::new();
    let peers = (0..peers).map(|n| Peer::open(&context, to, n)).collect::<Result<Vec<_>, _>>()?;
    let (ended, end) = crossbeam_channel::bounded::<()>(1);
    on_end_of_input(move || drop(ended))?;
    let mut busy: Vec<&Peer> = peers.iter().collect();
    while !busy.is_empty() && end.try_recv() == Err(TryRecvError::Empty) {
        let mut items: Vec<_> = busy.iter().map(|peer| peer.socket.as_poll_item(zmq::POLLIN)).collect();
        zmq::poll(&mut items, LOOK_MS).map_err(fail)?;
        let mut still_busy = Vec::new();
        for (peer, item) in busy.iter().zip(&items) {
            if !item.is_readable() || peer.go_on()? {
                still_busy.push(*peer);
            }
        }
        busy = still_busy;
    }
    // Nothing is ever sent: the other end is dropped.
    end.recv().ok();
    Ok(())
}

/// The plain worker of PROTOCOL.md, for one task.
struct Peer {
    socket: zmq::Socket,
    session: SessionName,
}

impl Peer {
    /// Connects and asks for a task.
    fn open(context: &zmq::Context, to: &str, n: u32) -> Result<Self, Error> {
        let fail = |error: zmq::Error| Error::other("open a plain worker", error);
        let socket = context.socket(zmq::REQ).map_err(fail)?;
        socket.set_linger(0).map_err(fail)?;
        socket.connect(to).map_err(fail)?;
        let session = SessionName::new(format!("bench-{}-{n}", std::process::id())).expect("a short name is valid");
        let peer = Self { socket, session };
        peer.say(Ready { wait_ms: WAIT_MS, ..peer.ready() })?;
        Ok(peer)
    }

    /// Takes what the broker has answered; false when the task is done and recorded.
    fn go_on(&self) -> Result<bool, Error> {
        let frames = self.socket.recv_multipart(0).map_err(|error| Error::other("hear the broker", error))?;
        match codec::decode_answer(frames) {
            Ok(Answer::Tasks(HandOut { epoch, seq, tasks, .. })) => {
                let done = |task: &HandedTask| Outcome::new(task.task, task.lease, End::Done);
                let outcomes = tasks.iter().map(done).collect();
                self.say(Ready { epoch: Some(epoch), ack: Some(seq), max: 0, outcomes, ..self.ready() })?;
                Ok(true)
            }
            Ok(Answer::Wait(wait)) if wait.outcomes.is_empty() => {
                self.say(Ready { wait_ms: WAIT_MS, ..self.ready() })?;
                Ok(true)
            }
            Ok(Answer::Wait(_)) => Ok(false),
            Ok(other) => Err(Error::other("run a plain worker", format!("the broker has answered {other:?}"))),
            Err(error) => Err(Error::other("run a plain worker", error)),
        }
    }

    /// Asks for one task of the kind that does nothing.
    fn ready(&self) -> Ready {
        Ready {
            session: self.session.clone(),
            slot: 0,
            epoch: None,
            ack: Some(0),
            n: None,
            max: 1,
            wait_ms: 0,
            outcomes: Vec::new(),
            batch: None,
            committed: false,
            kinds: Some(vec![Kind::new(NOOP).expect("a short name is valid")]),
            lanes: None,
        }
    }

    fn say(&self, ready: Ready) -> Result<(), Error> {
        let frames =
            codec::encode_request(Request::Ready(ready)).map_err(|error| Error::other("ask for a task", error))?;
        self.socket.send_multipart(frames, 0).map_err(|error| Error::other("ask for a task", error))
    }
}

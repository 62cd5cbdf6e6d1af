//! A worker without the library, as any language has it: one strict REQ socket, one task at a time, no HELLO. Written from
//! the page "The plain worker" of the protocol, and nothing else.

use std::thread;
use std::time::Duration;

use laneway_protocol::message::{Answer, End as Ended, HandOut, Outcome, Ready, Request};
use laneway_protocol::{Code, Kind, Payload, SessionName, codec};

use super::job::{self, End, PLAIN_KINDS};
use super::journal::Journal;
use super::worker::cannot_go_on;
use crate::error::Error;
use crate::process::on_end_of_input;

/// How long the broker may park the question. Short: a strict REQ does not hear that its broker is gone, and this bounds
/// how long it waits for nothing.
const WAIT_MS: u64 = 300;
/// After this long without an answer it asks again, on a new socket: `WAIT_MS`, and what the broker may take on top.
const ANSWER_MS: i32 = 1_500;
const RETRY: Duration = Duration::from_millis(200);

/// One life of a plain worker.
struct Plain<'a> {
    to: &'a str,
    context: zmq::Context,
    socket: Option<zmq::Socket>,
    /// What it says next: outcomes, and the last TASKS that arrived.
    ready: Ready,
    journal: &'a Journal,
}

/// Runs until standard input is closed.
pub(super) fn work(to: &str, name: &str, committed: bool, journal: &Journal) -> Result<(), Error> {
    laneway::seed_libzmq();
    // Nothing runs any more when the drill closes its end, so there is nothing to say goodbye for.
    on_end_of_input(|| std::process::exit(0))?;
    let invalid = |error: laneway_protocol::InvalidName| Error::other("name the worker", error);
    let kinds = PLAIN_KINDS.iter().map(Kind::new).collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    let ready = Ready {
        session: SessionName::new(format!("{name}-{}", std::process::id())).map_err(invalid)?,
        slot: 0,
        epoch: None,
        ack: Some(0),
        n: None,
        max: 1,
        wait_ms: WAIT_MS,
        outcomes: Vec::new(),
        batch: None,
        committed,
        kinds: Some(kinds),
        lanes: None,
    };
    let mut plain = Plain { to, context: zmq::Context::new(), socket: None, ready, journal };
    loop {
        if let Err(error) = plain.turn() {
            return Err(Error::other("go on as a plain worker", error));
        }
    }
}

impl Plain<'_> {
    /// One question and what follows from its answer.
    fn turn(&mut self) -> Result<(), String> {
        // No answer: the same again, outcomes included.
        let Some(answer) = self.ask()? else { return Ok(()) };
        match answer {
            Answer::Tasks(handed) => {
                // The answer followed the commit of the outcomes.
                self.ready.outcomes.clear();
                self.ready.epoch = Some(handed.epoch);
                self.ready.ack = Some(handed.seq);
                self.run(handed);
            }
            Answer::Wait(wait) => {
                self.ready.outcomes.clear();
                thread::sleep(Duration::from_millis(wait.after_ms));
            }
            Answer::Error(error) if error.code == Code::HelloFirst => {
                // Another start of the broker counts anew.
                self.ready.epoch = None;
                self.ready.ack = Some(0);
            }
            Answer::Error(error) if error.retry => {
                thread::sleep(error.after_ms.map_or(RETRY, Duration::from_millis));
            }
            other => return Err(format!("{other:?} to READY")),
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<Option<Answer>, String> {
        let frames = codec::encode_request(Request::Ready(self.ready.clone())).map_err(|error| error.to_string())?;
        let asked = self.socket().and_then(|socket| {
            socket.send_multipart(frames, 0)?;
            socket.recv_multipart(0)
        });
        match asked {
            Ok(frames) => codec::decode_answer(frames).map(Some).map_err(|error| error.to_string()),
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => {
                // A strict REQ that has asked can only hear: another question needs another socket.
                self.socket = None;
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn socket(&mut self) -> Result<&zmq::Socket, zmq::Error> {
        if self.socket.is_none() {
            let socket = self.context.socket(zmq::REQ)?;
            socket.set_linger(0)?;
            socket.set_rcvtimeo(ANSWER_MS)?;
            socket.connect(self.to)?;
            self.socket = Some(socket);
        }
        Ok(self.socket.as_ref().expect("it was just opened"))
    }

    fn run(&mut self, handed: HandOut) {
        for task in handed.tasks {
            let (id, lease) = (task.task.value(), task.lease.value());
            self.journal.started(id, task.run, lease).unwrap_or_else(|error| cannot_go_on(&error));
            let payload = task.payload.map(|payload| payload.bytes).unwrap_or_default();
            let ended = job::run(task.kind.as_str(), &payload, task.run, task.attempt, || false);
            self.journal.ended(id, lease, ended.word()).unwrap_or_else(|error| cannot_go_on(&error));
            let mut outcome = Outcome::new(task.task, task.lease, Ended::Done);
            match ended {
                End::Done(result) => outcome.result = Some(Payload::json(result)),
                End::Fail { after_ms } => {
                    outcome.end = Ended::Fail;
                    outcome.error = Some("fails by design".into());
                    outcome.after_ms = Some(after_ms);
                }
                End::Dead => {
                    outcome.end = Ended::Fail;
                    outcome.dead = true;
                }
                End::Snooze { after_ms } => {
                    outcome.end = Ended::Snooze;
                    outcome.after_ms = Some(after_ms);
                }
                End::Cancelled => outcome.end = Ended::Cancelled,
            }
            self.ready.outcomes.push(outcome);
        }
    }
}

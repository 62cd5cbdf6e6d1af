//! Frames to message and back: the only place that knows `MessagePack`.
//!
//! A message is its header, one body map and a frame for each payload. Sizes are checked before anything is parsed, and
//! payload bytes are moved, never copied. Envelopes belong to the sockets and are gone, or not yet there, when frames are
//! here. Called by the broker's router and by the SDK, once for each message.

mod payloads;
mod room;
mod scan;

use std::fmt;
use std::{mem, vec};

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::message_type as ty;
use self::payloads::Carries;
pub use self::room::Room;
use crate::VERSION;
use crate::error::{Code, WireError};
use crate::limits::{
    BATCH_MAX, BODY_BYTES_MAX, KINDS_PER_WORKER_MAX, MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_FRAMES_MAX,
};
use crate::message::{Answer, Drain, FairKeys, Kinds, ListWorkers, Pong, Request, Schedules};

/// The first two bytes of every header, `LW`.
pub const MAGIC: [u8; 2] = *b"LW";
/// The header: [`MAGIC`], [`VERSION`], and the type of the message.
pub const HEADER_BYTES: usize = 4;

/// The last byte of a header. An answer has its question's type with the high bit set, but for WAIT and ERR.
pub mod message_type {
    pub const HELLO: u8 = 0x01;
    pub const READY: u8 = 0x02;
    pub const PROGRESS: u8 = 0x03;
    pub const BEAT: u8 = 0x04;
    pub const BYE: u8 = 0x05;
    pub const SUBMIT: u8 = 0x10;
    pub const WAIT_FOR: u8 = 0x11;
    pub const STATUS: u8 = 0x12;
    pub const CANCEL: u8 = 0x13;
    pub const GROUP: u8 = 0x14;
    pub const REQUEUE: u8 = 0x20;
    pub const LANES: u8 = 0x21;
    pub const WORKERS: u8 = 0x22;
    pub const STATS: u8 = 0x23;
    pub const DRAIN: u8 = 0x24;
    pub const SCHEDULES: u8 = 0x25;
    pub const BULK: u8 = 0x26;
    pub const KINDS: u8 = 0x27;
    pub const FAIR_KEYS: u8 = 0x28;
    pub const PING: u8 = 0x7e;

    /// Set in the type of every answer.
    pub const ANSWER: u8 = 0x80;
    pub const WELCOME: u8 = HELLO | ANSWER;
    pub const TASKS: u8 = READY | ANSWER;
    pub const PONG: u8 = PING | ANSWER;
    /// The other answer to READY.
    pub const WAIT: u8 = 0xc2;
    /// The other answer to anything.
    pub const ERR: u8 = 0xff;
}

/// The frames of a question, header first, to be sent behind an empty frame.
///
/// # Errors
/// When the message is over a bound of the wire; the sender divides it or tells its user.
pub fn encode_request(request: Request) -> Result<Vec<Vec<u8>>, EncodeError> {
    match request {
        Request::Hello(hello) => seal(ty::HELLO, hello),
        Request::Ready(ready) => seal(ty::READY, ready),
        Request::Progress(progress) => seal(ty::PROGRESS, progress),
        Request::Beat(beat) => seal(ty::BEAT, beat),
        Request::Bye(bye) => seal(ty::BYE, bye),
        Request::Submit(submit) => seal(ty::SUBMIT, submit),
        Request::WaitFor(wait_for) => seal(ty::WAIT_FOR, wait_for),
        Request::Status(status) => seal(ty::STATUS, status),
        Request::Cancel(tasks) => seal(ty::CANCEL, tasks),
        Request::Requeue(tasks) => seal(ty::REQUEUE, tasks),
        Request::Lanes(lanes) => seal(ty::LANES, lanes),
        Request::Workers(workers) => seal(ty::WORKERS, workers),
        Request::Stats => Ok(without_fields(ty::STATS)),
        Request::Drain(drain) => seal(ty::DRAIN, drain),
        Request::Schedules(schedules) => seal(ty::SCHEDULES, schedules),
        Request::Bulk(bulk) => seal(ty::BULK, bulk),
        Request::Kinds(kinds) => seal(ty::KINDS, kinds),
        Request::FairKeys(keys) => seal(ty::FAIR_KEYS, keys),
        Request::Group(group) => seal(ty::GROUP, group),
        Request::Ping => Ok(without_fields(ty::PING)),
    }
}

/// The frames of an answer, header first, to be sent behind the question's envelope.
///
/// # Errors
/// When the message is over a bound of the wire.
pub fn encode_answer(answer: Answer) -> Result<Vec<Vec<u8>>, EncodeError> {
    match answer {
        Answer::Welcome(welcome) => seal(ty::WELCOME, welcome),
        Answer::Tasks(hand_out) => seal(ty::TASKS, hand_out),
        Answer::Wait(wait) => seal(ty::WAIT, wait),
        Answer::Progress(noted) => seal(ty::PROGRESS | ty::ANSWER, noted),
        Answer::Beat(noted) => seal(ty::BEAT | ty::ANSWER, noted),
        Answer::Bye(noted) => seal(ty::BYE | ty::ANSWER, noted),
        Answer::Submit(submitted) => seal(ty::SUBMIT | ty::ANSWER, submitted),
        Answer::WaitFor(waited) => seal(ty::WAIT_FOR | ty::ANSWER, waited),
        Answer::Status(rows) => seal(ty::STATUS | ty::ANSWER, rows),
        Answer::Cancel(verdicts) => seal(ty::CANCEL | ty::ANSWER, verdicts),
        Answer::Requeue(verdicts) => seal(ty::REQUEUE | ty::ANSWER, verdicts),
        Answer::Lanes(rows) => seal(ty::LANES | ty::ANSWER, rows),
        Answer::Workers(rows) => seal(ty::WORKERS | ty::ANSWER, rows),
        Answer::Stats(report) => seal(ty::STATS | ty::ANSWER, report),
        Answer::Drain(drained) => seal(ty::DRAIN | ty::ANSWER, drained),
        Answer::Schedules(rows) => seal(ty::SCHEDULES | ty::ANSWER, rows),
        Answer::Bulk(bulked) => seal(ty::BULK | ty::ANSWER, bulked),
        Answer::Kinds(rows) => seal(ty::KINDS | ty::ANSWER, rows),
        Answer::FairKeys(rows) => seal(ty::FAIR_KEYS | ty::ANSWER, rows),
        Answer::Group(row) => seal(ty::GROUP | ty::ANSWER, row),
        Answer::Pong(pong) => seal(ty::PONG, pong),
        Answer::Error(error) => seal(ty::ERR, error),
    }
}

/// The question in `frames`, header first. Every bound of the wire holds for what it gives back; whether the values make
/// sense together is for the broker.
///
/// # Errors
/// The answer that the peer is owed: what is wrong, in which field, and the bound.
pub fn decode_request(frames: Vec<Vec<u8>>) -> Result<Request, WireError> {
    let parts = Parts::split(frames)?;
    parts.check_sizes()?;
    let request = open_request(parts).map_err(clipped)?;
    check_kinds(&request)?;
    Ok(request)
}

/// The answer in `frames`, header first. Takes what a newer broker of this major version may say: unknown keys are passed
/// over, unknown codes read as `Unknown`, and lists are bounded by nothing but the frame that is already here.
///
/// # Errors
/// What is wrong with the answer, as the same error that a peer would be sent.
pub fn decode_answer(frames: Vec<Vec<u8>>) -> Result<Answer, WireError> {
    const ANY: usize = usize::MAX;
    let parts = Parts::split(frames)?;
    Ok(match parts.message_type {
        ty::WELCOME => Answer::Welcome(parts.open(ANY)?),
        ty::TASKS => Answer::Tasks(parts.open(ANY)?),
        ty::WAIT => Answer::Wait(parts.open(ANY)?),
        ty::ERR => Answer::Error(parts.open(ANY)?),
        ty::PONG => Answer::Pong(parts.open::<Pong>(ANY)?),
        answer if answer & ty::ANSWER != 0 => match answer & !ty::ANSWER {
            ty::PROGRESS => Answer::Progress(parts.open(ANY)?),
            ty::BEAT => Answer::Beat(parts.open(ANY)?),
            ty::BYE => Answer::Bye(parts.open(ANY)?),
            ty::SUBMIT => Answer::Submit(parts.open(ANY)?),
            ty::WAIT_FOR => Answer::WaitFor(parts.open(ANY)?),
            ty::STATUS => Answer::Status(parts.open(ANY)?),
            ty::CANCEL => Answer::Cancel(parts.open(ANY)?),
            ty::REQUEUE => Answer::Requeue(parts.open(ANY)?),
            ty::LANES => Answer::Lanes(parts.open(ANY)?),
            ty::WORKERS => Answer::Workers(parts.open(ANY)?),
            ty::STATS => Answer::Stats(parts.open(ANY)?),
            ty::DRAIN => Answer::Drain(parts.open(ANY)?),
            ty::SCHEDULES => Answer::Schedules(parts.open(ANY)?),
            ty::BULK => Answer::Bulk(parts.open(ANY)?),
            ty::KINDS => Answer::Kinds(parts.open(ANY)?),
            ty::FAIR_KEYS => Answer::FairKeys(parts.open(ANY)?),
            ty::GROUP => Answer::Group(parts.open(ANY)?),
            _ => return Err(not_an_answer(answer)),
        },
        other => return Err(not_an_answer(other)),
    })
}

/// Why a message cannot be sent: it is over a bound of the wire and would be refused at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodeError {
    /// The body map has this many bytes, over [`BODY_BYTES_MAX`]; send pages or shorter texts.
    BodyTooLarge { bytes: usize },
    /// The payload of this index in the message has this many bytes, over [`PAYLOAD_BYTES_MAX`].
    PayloadTooLarge { index: usize, bytes: usize },
    /// The payloads together have this many bytes, over [`MESSAGE_BYTES_MAX`].
    MessageTooLarge { bytes: usize },
    /// The message carries this many payloads, over [`PAYLOAD_FRAMES_MAX`].
    TooManyPayloads { n_payloads: usize },
}

impl EncodeError {
    /// The code that the other end would have answered.
    pub fn code(&self) -> Code {
        match self {
            Self::BodyTooLarge { .. } | Self::PayloadTooLarge { .. } | Self::MessageTooLarge { .. } => Code::TooLarge,
            Self::TooManyPayloads { .. } => Code::TooMany,
        }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BodyTooLarge { bytes } => {
                write!(f, "the body has {bytes} bytes, at most {BODY_BYTES_MAX} are allowed; send pages")
            }
            Self::PayloadTooLarge { index, bytes } => write!(
                f,
                "payload {index} has {bytes} bytes, at most {PAYLOAD_BYTES_MAX} are allowed; \
                 store it elsewhere and send its place"
            ),
            Self::MessageTooLarge { bytes } => {
                write!(f, "the payloads have {bytes} bytes, at most {MESSAGE_BYTES_MAX} are allowed; send pages")
            }
            Self::TooManyPayloads { n_payloads } => {
                write!(f, "the message has {n_payloads} payloads, at most {PAYLOAD_FRAMES_MAX} are allowed; send pages")
            }
        }
    }
}

impl std::error::Error for EncodeError {}

impl From<EncodeError> for WireError {
    fn from(error: EncodeError) -> Self {
        WireError::new(error.code(), error.to_string())
    }
}

// ------------------------------------------------------------------------------------------------------------ private

/// The body of a question that has no fields, yet.
#[derive(serde::Deserialize)]
struct NoFields {}

impl Carries for NoFields {}

/// How much of a peer's own words an error repeats.
const ECHO_BYTES_MAX: usize = 512;

/// An empty map.
const NO_FIELDS: [u8; 1] = [0x80];

fn header(message_type: u8) -> Vec<u8> {
    vec![MAGIC[0], MAGIC[1], VERSION, message_type]
}

fn without_fields(message_type: u8) -> Vec<Vec<u8>> {
    vec![header(message_type), NO_FIELDS.to_vec()]
}

fn seal<M: Serialize + Carries>(message_type: u8, mut message: M) -> Result<Vec<Vec<u8>>, EncodeError> {
    let mut body = Vec::with_capacity(512);
    message
        .serialize(&mut rmp_serde::Serializer::new(&mut body).with_struct_map())
        .expect("a message is plain data and a Vec takes every write");
    if body.len() > BODY_BYTES_MAX {
        return Err(EncodeError::BodyTooLarge { bytes: body.len() });
    }
    let mut frames = vec![header(message_type), body];
    message.payloads(&mut |payload| frames.push(mem::take(&mut payload.bytes)));
    check_payload_sizes(&frames[2..])?;
    Ok(frames)
}

fn open_request(parts: Parts) -> Result<Request, WireError> {
    Ok(match parts.message_type {
        ty::HELLO => Request::Hello(parts.open(BATCH_MAX)?),
        ty::READY => Request::Ready(parts.open(BATCH_MAX)?),
        ty::PROGRESS => Request::Progress(parts.open(BATCH_MAX)?),
        ty::BEAT => Request::Beat(parts.open(BATCH_MAX)?),
        ty::BYE => Request::Bye(parts.open(BATCH_MAX)?),
        ty::SUBMIT => Request::Submit(parts.open(BATCH_MAX)?),
        ty::WAIT_FOR => Request::WaitFor(parts.open(BATCH_MAX)?),
        ty::STATUS => Request::Status(parts.open(BATCH_MAX)?),
        ty::CANCEL => Request::Cancel(parts.open(BATCH_MAX)?),
        ty::REQUEUE => Request::Requeue(parts.open(BATCH_MAX)?),
        ty::GROUP => Request::Group(parts.open(BATCH_MAX)?),
        ty::LANES => Request::Lanes(parts.open(BATCH_MAX)?),
        ty::WORKERS => Request::Workers(parts.or_no_body().open::<ListWorkers>(BATCH_MAX)?),
        ty::STATS => parts.or_no_body().open::<NoFields>(BATCH_MAX).map(|_| Request::Stats)?,
        ty::DRAIN => Request::Drain(parts.or_no_body().open::<Drain>(BATCH_MAX)?),
        ty::BULK => Request::Bulk(parts.open(BATCH_MAX)?),
        ty::KINDS => Request::Kinds(parts.or_no_body().open::<Kinds>(BATCH_MAX)?),
        ty::FAIR_KEYS => Request::FairKeys(parts.or_no_body().open::<FairKeys>(BATCH_MAX)?),
        ty::SCHEDULES => Request::Schedules(parts.or_no_body().open::<Schedules>(BATCH_MAX)?),
        ty::PING => parts.or_no_body().open::<NoFields>(BATCH_MAX).map(|_| Request::Ping)?,
        other => return Err(WireError::new(Code::BadType, format!("type {other:#04x} is not a question"))),
    })
}

/// The frames of a message, told apart and not yet parsed.
struct Parts {
    message_type: u8,
    body: Option<Vec<u8>>,
    payloads: vec::IntoIter<Vec<u8>>,
}

impl Parts {
    fn split(frames: Vec<Vec<u8>>) -> Result<Self, WireError> {
        let mut frames = frames.into_iter();
        let header = frames.next().unwrap_or_default();
        let [m0, m1, version, message_type] = header[..] else {
            let text =
                format!("the header has {} bytes, not {HEADER_BYTES}; begin with 4C 57 {VERSION:02X}", header.len());
            return Err(WireError::new(Code::BadMagic, text));
        };
        if [m0, m1] != MAGIC {
            let text = format!("the header begins with {m0:02X} {m1:02X}, not 4C 57");
            return Err(WireError::new(Code::BadMagic, text));
        }
        if version != VERSION {
            let text = format!("version {version} of the protocol is not served; version {VERSION} is");
            return Err(WireError::new(Code::BadVersion, text));
        }
        Ok(Self { message_type, body: frames.next(), payloads: frames })
    }

    fn check_sizes(&self) -> Result<(), WireError> {
        if let Some(body) = &self.body
            && body.len() > BODY_BYTES_MAX
        {
            return Err(EncodeError::BodyTooLarge { bytes: body.len() }.into());
        }
        check_payload_sizes(self.payloads.as_slice()).map_err(WireError::from)
    }

    /// A missing body is an empty one.
    fn or_no_body(mut self) -> Self {
        self.body.get_or_insert_with(|| NO_FIELDS.to_vec());
        self
    }

    fn open<M: DeserializeOwned + Carries>(mut self, list_max: usize) -> Result<M, WireError> {
        let Some(body) = &self.body else {
            return Err(WireError::new(Code::BadBody, "the body frame is missing; send a map behind the header"));
        };
        scan::check(body, list_max)?;
        let mut message: M = rmp_serde::from_slice(body).map_err(|error| name_the_field::<M>(body, &error))?;

        let n_frames = self.payloads.len();
        let mut n_payloads = 0;
        message.payloads(&mut |payload| {
            n_payloads += 1;
            payload.bytes = self.payloads.next().unwrap_or_default();
        });
        if n_payloads != n_frames {
            let text = format!("the body names {n_payloads} payloads, {n_frames} frames stand behind it");
            return Err(WireError::new(Code::BadFrames, text));
        }
        Ok(message)
    }
}

fn check_payload_sizes(payloads: &[Vec<u8>]) -> Result<(), EncodeError> {
    if payloads.len() > PAYLOAD_FRAMES_MAX {
        return Err(EncodeError::TooManyPayloads { n_payloads: payloads.len() });
    }
    if let Some(index) = payloads.iter().position(|bytes| bytes.len() > PAYLOAD_BYTES_MAX) {
        return Err(EncodeError::PayloadTooLarge { index, bytes: payloads[index].len() });
    }
    let bytes = payloads.iter().map(Vec::len).sum();
    if bytes > MESSAGE_BYTES_MAX {
        return Err(EncodeError::MessageTooLarge { bytes });
    }
    Ok(())
}

/// Parses once more, slowly, to say where the first parse failed.
fn name_the_field<M: DeserializeOwned>(body: &[u8], error: &rmp_serde::decode::Error) -> WireError {
    let mut again = rmp_serde::Deserializer::from_read_ref(body);
    let Err(located) = serde_path_to_error::deserialize::<_, M>(&mut again) else {
        return WireError::new(Code::BadBody, error.to_string());
    };
    let text = located.inner().to_string();
    let mut path = located.path().to_string();
    if path == "." {
        path.clear();
    }
    if let Some(field) = field_in_text(&text) {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(field);
    }
    let wire = WireError::new(Code::BadBody, text);
    if path.is_empty() { wire } else { wire.field(path) }
}

/// serde names a missing or repeated field in its text only; its path ends at the map that should hold the field.
fn field_in_text(text: &str) -> Option<&str> {
    let named = text.strip_prefix("missing field `").or_else(|| text.strip_prefix("duplicate field `"))?;
    named.split('`').next()
}

/// Keys and words of the peer stand in texts that go back to it: bounded, so that an ERR always fits its frame.
fn clipped(mut error: WireError) -> WireError {
    for text in [Some(&mut error.text), error.field.as_mut()].into_iter().flatten() {
        if text.len() > ECHO_BYTES_MAX {
            text.truncate(text.floor_char_boundary(ECHO_BYTES_MAX));
            text.push_str("...");
        }
    }
    error
}

fn check_kinds(request: &Request) -> Result<(), WireError> {
    let kinds = match request {
        Request::Hello(hello) => Some(&hello.kinds),
        Request::Ready(ready) => ready.kinds.as_ref(),
        _ => None,
    };
    match kinds.map_or(0, Vec::len) {
        n if n > KINDS_PER_WORKER_MAX => {
            let text = format!("a worker names {n} kinds, at most {KINDS_PER_WORKER_MAX} are allowed");
            Err(WireError::new(Code::TooMany, text).field("kinds"))
        }
        _ => Ok(()),
    }
}

fn not_an_answer(message_type: u8) -> WireError {
    WireError::new(Code::BadType, format!("type {message_type:#04x} is not an answer of version {VERSION}"))
}

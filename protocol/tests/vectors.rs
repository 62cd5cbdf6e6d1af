//! The golden vectors in `vectors/`: bytes that every release and every language must read, and that ours must write.
//!
//! They are compared with what the code does now. After a deliberate change of the contract, run once with
//! `LANEWAY_WRITE_VECTORS=1` and look at the difference before it is kept.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod samples;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use laneway_protocol::codec::{self, message_type};
use laneway_protocol::limits::{BATCH_MAX, BODY_DEPTH_MAX};
use laneway_protocol::message::Drain;
use laneway_protocol::{Answer, Code, Request};
use serde_json::{Value, json};

type Frames = Vec<Vec<u8>>;

#[test]
fn every_message_has_its_golden_bytes_and_reads_back_from_them() {
    // Encoding a sample gives the bytes of its file, and these bytes decode to the sample.
    let mut files: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (name, about, request) in samples::requests() {
        let frames = codec::encode_request(request.clone()).unwrap();
        files.entry(name).or_default().push(vector(about, &frames, &meaning_of_request(&request)));
        assert_eq!(codec::decode_request(frames).unwrap(), request, "{name}: {about}");
    }
    for (name, about, answer) in samples::answers() {
        let frames = codec::encode_answer(answer.clone()).unwrap();
        files.entry(name).or_default().push(vector(about, &frames, &meaning_of_answer(&answer)));
        assert_eq!(codec::decode_answer(frames).unwrap(), answer, "{name}: {about}");
    }
    assert_eq!(files.len(), 20 + 22, "a type has no sample");
    for (name, vectors) in files {
        compare(name, &Value::Array(vectors));
    }
}

#[test]
fn what_others_may_send_is_understood() {
    // Bytes that are not what this code would write, but mean the same: defaults left out, unknown keys, wide integers.
    let mut vectors = Vec::new();
    for (about, frames, means) in accepted() {
        let request = codec::decode_request(frames.clone()).unwrap_or_else(|error| panic!("{about}: {error}"));
        assert_eq!(request, means, "{about}");
        vectors.push(json!({ "about": about, "frames": hex(&frames), "means": meaning_of_request(&means) }));
    }
    compare("accepted", &Value::Array(vectors));
}

#[test]
fn every_bad_message_is_refused_with_its_code_and_field() {
    // A refusal is part of the contract: the same bytes get the same code and name the same field in every release.
    let mut vectors = Vec::new();
    for (about, frames, code, field) in refused() {
        let error = codec::decode_request(frames.clone()).expect_err(about);
        assert_eq!((error.code, error.field.as_deref()), (code, field), "{about}: {error}");
        let mut vector = json!({ "about": about, "frames": hex(&frames), "code": code.as_str() });
        if let Some(field) = field {
            vector["field"] = field.into();
        }
        vectors.push(vector);
    }
    compare("refused", &Value::Array(vectors));
}

fn accepted() -> Vec<(&'static str, Frames, Request)> {
    let ready = || Request::Ready(samples::plain_ready());
    let written = |body: &[u8]| frames(message_type::READY, body, &[]);
    let mut with_unknown =
        b"\x84\xa7session\xa85f0c9a1e\xa5kinds\x92\xa9wordcount\xa4echo\xa7wait_ms\xcd\x27\x10".to_vec();
    with_unknown.extend(b"\xa6colour\x82\xa1a\x92\xc0\xc3\xa1b\xc4\x01\x00");
    vec![
        (
            "ready: defaults left out",
            written(b"\x83\xa7session\xa85f0c9a1e\xa5kinds\x92\xa9wordcount\xa4echo\xa7wait_ms\xcd\x27\x10"),
            ready(),
        ),
        ("ready: an unknown key", written(&with_unknown), ready()),
        (
            "ready: wide integers, long string and map markers",
            written(
                b"\xde\x00\x03\xd9\x07session\xda\x00\x085f0c9a1e\xa5kinds\xdc\x00\x02\xa9wordcount\xa4echo\
                  \xa7wait_ms\xcf\x00\x00\x00\x00\x00\x00\x27\x10",
            ),
            ready(),
        ),
        ("ping: no body frame", vec![header(message_type::PING)], Request::Ping),
        ("drain: an empty map", frames(message_type::DRAIN, b"\x80", &[]), Request::Drain(Drain::default())),
    ]
}

fn refused() -> Vec<(&'static str, Frames, Code, Option<&'static str>)> {
    use Code::{BadBody, BadFrames, BadMagic, BadType, BadVersion, TooLarge, TooMany};
    let ready = |body: &[u8]| frames(message_type::READY, body, &[]);
    let cancel = |body: &[u8]| frames(message_type::CANCEL, body, &[]);
    let submit = b"\x82\xa7request\xc4\x100123456789abcdef\xa5tasks\x91\x82\xa4kind\xa4echo\xa7payload\xa4json";
    let mut deep = b"\x82\xa5tasks\x90\xa1x".to_vec();
    deep.extend([0x91].repeat(BODY_DEPTH_MAX));
    deep.push(0xc0);
    let mut long = b"\x81\xa5tasks\xdc".to_vec();
    long.extend(u16::try_from(BATCH_MAX + 1).unwrap().to_be_bytes());
    long.extend([0x01].repeat(BATCH_MAX + 1));
    vec![
        ("no frame", vec![], BadMagic, None),
        ("a header of three bytes", vec![b"LW\x01".to_vec()], BadMagic, None),
        ("another protocol", vec![b"MDP\x01".to_vec(), b"\x80".to_vec()], BadMagic, None),
        ("a newer version", vec![b"LW\x02\x7e".to_vec(), b"\x80".to_vec()], BadVersion, None),
        ("an unknown type", frames(0x55, b"\x80", &[]), BadType, None),
        ("an answer as a question", frames(message_type::PONG, b"\x80", &[]), BadType, None),
        ("no body", vec![header(message_type::READY)], BadBody, None),
        ("an empty body", ready(b""), BadBody, None),
        ("an array for a body", ready(b"\x90"), BadBody, None),
        ("a body that ends early", ready(b"\x81\xa7session\xa85f0c"), BadBody, Some("session")),
        ("a byte behind the map", cancel(b"\x81\xa5tasks\x91\x01\xc0"), BadBody, None),
        ("a number for a key", cancel(b"\x81\x00\x91\x01"), BadBody, None),
        ("nested too deep", cancel(&deep), BadBody, Some("x[0][0][0][0][0][0][0][0][0][0][0][0][0][0][0]")),
        ("a missing field", ready(b"\x80"), BadBody, Some("session")),
        ("a field of another type", ready(b"\x81\xa7session\x07"), BadBody, Some("session")),
        ("an empty session", ready(b"\x81\xa7session\xa0"), BadBody, Some("session")),
        ("a key twice", ready(b"\x82\xa7session\xa1a\xa7session\xa1b"), BadBody, Some("session")),
        (
            "a missing field in a list",
            ready(b"\x82\xa7session\xa1a\xa8outcomes\x91\x82\xa4task\x01\xa3end\xa4done"),
            BadBody,
            Some("outcomes[0].lease"),
        ),
        (
            "an unknown end",
            ready(b"\x82\xa7session\xa1a\xa8outcomes\x91\x83\xa4task\x01\xa5lease\x01\xa3end\xa4lost"),
            BadBody,
            Some("outcomes[0].end"),
        ),
        ("task id 0", cancel(b"\x81\xa5tasks\x92\x01\x00"), BadBody, Some("tasks[1]")),
        ("too many tasks", cancel(&long), TooMany, Some("tasks")),
        ("a payload frame too few", frames(message_type::SUBMIT, submit, &[]), BadFrames, None),
        ("a payload frame too many", frames(message_type::SUBMIT, submit, &[b"1", b"2"]), BadFrames, None),
        ("a payload frame behind PING", frames(message_type::PING, b"\x80", &[b""]), BadFrames, None),
        ("a body over its bound", ready(&[0x80].repeat(64 * 1024 + 1)), TooLarge, None),
    ]
}

// ----------------------------------------------------------------------------------------------------------- the files

fn header(message_type: u8) -> Vec<u8> {
    vec![b'L', b'W', 1, message_type]
}

fn frames(message_type: u8, body: &[u8], payloads: &[&[u8]]) -> Frames {
    let mut frames = vec![header(message_type), body.to_vec()];
    frames.extend(payloads.iter().map(|payload| payload.to_vec()));
    frames
}

fn vector(about: &str, frames: &[Vec<u8>], body: &Value) -> Value {
    json!({ "about": about, "frames": hex(frames), "body": body })
}

/// Each frame as hex digits; a frame of one repeated byte that would fill a page as the byte and its count.
fn hex(frames: &[Vec<u8>]) -> Vec<String> {
    let digits = |frame: &Vec<u8>| {
        if frame.len() > 4096 && frame.iter().all(|byte| *byte == frame[0]) {
            return format!("{:02x}*{}", frame[0], frame.len());
        }
        frame.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    };
    frames.iter().map(digits).collect()
}

fn compare(name: &str, vectors: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(format!("{name}.json"));
    if std::env::var_os("LANEWAY_WRITE_VECTORS").is_some() {
        fs::write(&path, format!("{vectors:#}\n")).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let kept: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(vectors, &kept, "{name}.json is not what this code writes");
}

/// The body's map as JSON: what a peer in any language should find in the second frame. Bytes are lists of numbers.
macro_rules! meaning {
    ($message:expr, $enum:ident: $($variant:ident)*; empty: $($empty:ident)*) => {
        match $message {
            $($enum::$variant(message) => serde_json::to_value(message).unwrap(),)*
            $($enum::$empty => json!({}),)*
        }
    };
}

fn meaning_of_request(request: &Request) -> Value {
    meaning!(request, Request: Hello Ready Progress Beat Bye Submit WaitFor Status Cancel Requeue Lanes Kinds
        FairKeys Workers Drain Bulk Group Schedules; empty: Stats Ping)
}

fn meaning_of_answer(answer: &Answer) -> Value {
    meaning!(answer, Answer: Welcome Tasks Wait Progress Beat Bye Submit WaitFor Status Cancel Requeue Lanes Kinds
        FairKeys Workers Stats Drain Bulk Group Schedules Pong Error; empty:)
}

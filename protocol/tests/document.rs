//! `PROTOCOL.md` is the contract: what it says about codes, types, bounds and bytes is what the code does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod samples;

use laneway_protocol::message::{End, OutcomeCode};
use laneway_protocol::{Answer, Code, Request, codec, limits};

const DOCUMENT: &str = include_str!("../PROTOCOL.md");

#[test]
fn every_code_is_explained_with_its_retry() {
    // A peer's author finds each code, and whether asking again helps.
    for code in Code::ALL {
        let row = format!("| `{code}` | {} |", if code.retry() { "yes" } else { "no" });
        assert!(DOCUMENT.contains(&row), "PROTOCOL.md has no row '{row}'");
    }
}

#[test]
fn every_type_has_its_name_and_byte() {
    // The table of types names every message with the last byte of its header.
    let requests = samples::requests().into_iter().map(|(name, _, m)| (name, codec::encode_request(m).unwrap()));
    let answers = samples::answers().into_iter().map(|(name, _, m)| (name, codec::encode_answer(m).unwrap()));
    let types = DOCUMENT.split("## 3. Types").nth(1).unwrap().split("## 4. Fields").next().unwrap();
    for (name, frames) in requests.chain(answers) {
        let (name, byte) = (name.to_uppercase(), format!("`{:02X}`", frames[0][3]));
        assert!(
            types.lines().any(|row| row.contains(&name) && row.contains(&byte)),
            "PROTOCOL.md has no row with {name} and {byte}"
        );
    }
}

#[test]
fn every_field_of_every_sample_is_explained() {
    // The samples set all fields; each key stands in the document as code.
    fn keys(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| {
                found.push(key.clone());
                keys(value, found);
            }),
            serde_json::Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors")).unwrap() {
        let vectors: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        for vector in vectors.as_array().unwrap() {
            let mut found = Vec::new();
            keys(&vector["body"], &mut found);
            for key in found {
                let named = DOCUMENT.contains(&format!("`{key}`")) || DOCUMENT.contains(&format!("\"{key}\""));
                assert!(named, "PROTOCOL.md does not name `{key}`");
            }
        }
    }
}

#[test]
fn the_bounds_are_those_of_the_code() {
    // A number that changes in `limits` has to change in the document.
    let grouped = |number: usize| {
        let digits = number.to_string();
        let groups: Vec<&str> =
            digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
        groups.join(",")
    };
    let wait_ms_max = usize::try_from(limits::WAIT_MS_MAX).unwrap();
    for row in [
        format!("| body | {} bytes |", grouped(limits::BODY_BYTES_MAX)),
        format!("in a message | {} |", grouped(limits::BATCH_MAX)),
        format!("names | {} |", grouped(limits::KINDS_PER_WORKER_MAX)),
        format!("| payload frames in a message | {} |", grouped(limits::PAYLOAD_FRAMES_MAX)),
        format!("partial data | {} bytes", grouped(limits::PAYLOAD_BYTES_MAX)),
        format!("| all payloads of a message | {} bytes |", grouped(limits::MESSAGE_BYTES_MAX)),
        format!(
            "| kind; lane; session | {}; {}; {} bytes",
            limits::KIND_BYTES_MAX,
            limits::LANE_BYTES_MAX,
            limits::SESSION_BYTES_MAX
        ),
        format!("| unique key; trace | {}; {} bytes |", limits::UNIQUE_KEY_BYTES_MAX, limits::TRACE_BYTES_MAX),
        format!("progress note | {} bytes", grouped(limits::TEXT_BYTES_MAX)),
        format!("| `wait_ms` | {};", grouped(wait_ms_max)),
        format!("nested deeper than {}.", limits::BODY_DEPTH_MAX),
    ] {
        assert!(DOCUMENT.contains(&row), "PROTOCOL.md does not say '{row}'");
    }
}

#[test]
fn the_minimal_worker_means_what_its_comments_say() {
    // The walk-through decodes frame by frame, so that a reader can check an encoder against it.
    let mut blocks = DOCUMENT.split("```hex ").skip(1).map(|block| {
        let (direction, rest) = block.split_once('\n').unwrap();
        (direction, frames(rest.split("```").next().unwrap()))
    });
    let mut next = |expected| {
        let (direction, frames) = blocks.next().unwrap();
        assert_eq!(direction, expected);
        frames
    };
    let Request::Ready(first) = codec::decode_request(next("question")).unwrap() else { panic!("READY was due") };
    assert_eq!((first.session.as_str(), first.wait_ms, first.ack), ("5f0c9a1e", 10_000, Some(0)));

    let Answer::Tasks(tasks) = codec::decode_answer(next("answer")).unwrap() else { panic!("TASKS was due") };
    let task = &tasks.tasks[0];
    assert_eq!((task.task.value(), task.lease.value(), task.timeout_ms), (41, -7, 3_600_000));
    assert_eq!(task.payload.as_ref().unwrap().bytes, b"[1,2]");

    let Request::Ready(second) = codec::decode_request(next("question")).unwrap() else { panic!("READY was due") };
    assert_eq!((second.epoch, second.ack), (Some(tasks.epoch), Some(tasks.seq)));
    assert_eq!((second.outcomes[0].task, second.outcomes[0].end), (task.task, End::Done));

    let Answer::Wait(wait) = codec::decode_answer(next("answer")).unwrap() else { panic!("WAIT was due") };
    assert_eq!((wait.outcomes, wait.after_ms), (vec![OutcomeCode::Ok], 0));
    assert!(matches!(codec::decode_request(next("question")).unwrap(), Request::Bye(_)));
    assert!(matches!(codec::decode_answer(next("answer")).unwrap(), Answer::Bye(_)));
    assert!(blocks.next().is_none());
}

/// Frames of a block: a line at the margin begins one, an indented line goes on with it, `#` begins a comment.
fn frames(block: &str) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for line in block.lines().filter(|line| !line.is_empty()) {
        let digits: String = line.split('#').next().unwrap().split_whitespace().collect();
        if !line.starts_with(' ') {
            frames.push(Vec::new());
        }
        let bytes = digits.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16));
        frames.last_mut().unwrap().extend(bytes.map(Result::unwrap));
    }
    frames
}

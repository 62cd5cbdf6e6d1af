//! The targets of the fuzzer: each takes any bytes, and panics when what must hold does not. `tests/replay.rs` runs them over
//! the kept corpora in the normal test run; `main.rs` is the fuzzer. `docs/hostile.md` says how to run it and what it found.

pub mod bundle;

use laneway_protocol::codec;

/// A target and the name of its corpus in `corpora/`.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 4] = [
    ("codec", codec),
    ("peers", laneway_broker::fuzz::peers),
    ("config", laneway_broker::fuzz::config),
    ("rows", laneway_broker::fuzz::rows),
];

/// Frames, each behind its length in two bytes, as a question and as an answer: refused with a code, or what was read is
/// written as bytes that read the same.
fn codec(mut input: &[u8]) {
    let mut frames = Vec::new();
    while let Some((length, rest)) = input.split_first_chunk::<2>() {
        let (frame, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        frames.push(frame.to_vec());
        input = rest;
    }
    match codec::decode_request(frames.clone()) {
        Ok(request) => {
            if let Ok(written) = codec::encode_request(request.clone()) {
                assert_eq!(codec::decode_request(written).as_ref(), Ok(&request));
            }
        }
        Err(error) => {
            // What the peer is told must itself fit a message.
            assert!(codec::encode_answer(laneway_protocol::Answer::Error(error)).is_ok());
        }
    }
    if let Ok(answer) = codec::decode_answer(frames)
        && let Ok(written) = codec::encode_answer(answer.clone())
    {
        assert_eq!(codec::decode_answer(written).as_ref(), Ok(&answer));
    }
}

//! Every input that the fuzzer kept, into its target: what once was found stays found, and the targets stay alive.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use laneway_fuzz::{TARGETS, Target, bundle};

/// Changes of each kept input that are tried as well, so that the neighbourhood of the corpus is walked in every run.
const MUTANTS: usize = 2;

#[test]
fn no_kept_question_breaks_the_codec() {
    replay(TARGETS[0]);
}

#[test]
fn no_kept_conversation_breaks_the_core() {
    replay(TARGETS[1]);
}

#[test]
fn no_kept_settings_break_their_reader() {
    replay(TARGETS[2]);
}

#[test]
fn no_kept_rows_break_the_store() {
    replay(TARGETS[3]);
}

/// Proves that a target holds over its corpus and over a few changes of each input in it. The changes are the same in every
/// run: a failure is repeated by running the test again, and its input is in the message.
fn replay((name, target): Target) {
    let kept = bundle::read(name).unwrap();
    assert!(kept.len() >= 100, "{name} keeps {} inputs", kept.len());
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for input in kept {
        run(name, target, &input);
        for _ in 0..MUTANTS {
            run(name, target, &mutant(&input, &mut random));
        }
    }
}

fn run(name: &str, target: fn(&[u8]), input: &[u8]) {
    if std::panic::catch_unwind(|| target(input)).is_err() {
        let hex = input.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        panic!("{name} breaks with {hex}");
    }
}

/// One byte changed, a piece taken out, or the end cut off.
fn mutant(kept: &[u8], random: &mut u64) -> Vec<u8> {
    let mut below = |n: usize| {
        // xorshift64, which needs no crate.
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        usize::try_from(*random >> 33).unwrap() % n.max(1)
    };
    let mut input = kept.to_vec();
    let at = below(input.len());
    match below(3) {
        0 if !input.is_empty() => input[at] = u8::try_from(below(256)).unwrap(),
        1 => drop(input.drain(at..(at + below(8)).min(kept.len()))),
        _ => input.truncate(at),
    }
    input
}

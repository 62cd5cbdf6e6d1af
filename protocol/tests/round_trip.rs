//! Properties of the codec: any message comes back as it went, and no bytes at all can make decoding panic.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod samples;

use laneway_protocol::codec;
use laneway_protocol::limits::{BATCH_MAX, BODY_BYTES_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_FRAMES_MAX, TRACE_BYTES_MAX};
use laneway_protocol::message::{
    Beat, End, HandOut, HandedTask, Hello, NewTask, Outcome, OutcomeCode, Progress, Ready, Submit, Submitted, Tasks,
};
use laneway_protocol::{Answer, Code, Epoch, Kind, Lease, Payload, Request, RequestId, TaskId, TraceContext};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![".*".prop_map(Payload::json), vec(any::<u8>(), 0..40).prop_map(Payload::bin)]
}

fn task() -> impl Strategy<Value = TaskId> {
    (1..=TaskId::MAX).prop_map(|id| TaskId::new(id).unwrap())
}

fn kind() -> impl Strategy<Value = Kind> {
    "[a-zé]{1,60}".prop_map(|name| Kind::new(name).unwrap())
}

prop_compose! {
    fn new_task()(
        kind in kind(),
        payload in option::of(payload()),
        run_at in option::of(any::<i64>()),
        unique_key in option::of(".{0,20}"),
        max_attempts in option::of(any::<u32>()),
        timeout_ms in option::of(any::<u64>()),
    ) -> NewTask {
        NewTask { run_at, unique_key, max_attempts, timeout_ms, ..NewTask::new(kind, payload) }
    }
}

prop_compose! {
    fn outcome()(
        task in task(),
        lease in any::<i64>(),
        end in select(vec![End::Done, End::Fail, End::Snooze, End::Release, End::Cancelled, End::Already]),
        result in option::of(payload()),
        error in option::of(".{0,40}"),
        after_ms in option::of(any::<u64>()),
        dead in any::<bool>(),
        spawn in vec(new_task(), 0..3),
    ) -> Outcome {
        Outcome { result, error, after_ms, dead, spawn, ..Outcome::new(task, Lease::new(lease), end) }
    }
}

prop_compose! {
    fn handed_task()(
        task in task(),
        lease in any::<i64>(),
        kind in kind(),
        (run, attempt, max_attempts) in any::<(u32, u32, u32)>(),
        timeout_ms in any::<u64>(),
        payload in option::of(payload()),
        trace in option::of(".{0,20}"),
        checkpoint in option::of(payload()),
    ) -> HandedTask {
        let (lease, lane) = (Lease::new(lease), samples::lane("low"));
        HandedTask { task, lease, kind, lane, run, attempt, max_attempts, timeout_ms, payload, trace, checkpoint }
    }
}

fn request() -> impl Strategy<Value = Request> {
    let ready = (option::of(any::<u64>()), option::of(any::<u64>()), any::<bool>(), vec(outcome(), 0..40));
    let progress = (task(), any::<i64>(), option::of(any::<u64>()), option::of(payload()), option::of(payload()));
    let hello = (vec(kind(), 0..4), ".{0,30}", any::<u32>(), vec((task(), any::<i64>()), 0..BATCH_MAX), any::<bool>());
    prop_oneof![
        ready.prop_map(|(epoch, batch, committed, outcomes)| {
            let epoch = epoch.map(Epoch);
            Request::Ready(Ready { epoch, batch, committed, outcomes, ..samples::plain_ready() })
        }),
        progress.prop_map(|(task, lease, done, data, checkpoint)| Request::Progress(Progress {
            session: samples::session(),
            task,
            lease: Lease::new(lease),
            done,
            total: None,
            note: None,
            extend_ms: None,
            data,
            log: None,
            checkpoint,
            parents: None,
        })),
        hello.prop_map(|(kinds, name, pid, resume, more)| Request::Hello(Hello {
            session: samples::session(),
            host: name.clone(),
            sdk: name.clone(),
            name,
            pid,
            kinds,
            lanes: None,
            slots: pid,
            resume: resume.into_iter().map(|(task, lease)| samples::held(task.value(), lease)).collect(),
            more,
        })),
        (any::<[u8; 16]>(), vec(new_task(), 0..40), any::<u64>()).prop_map(|(request, tasks, wait_ms)| {
            Request::Submit(Submit { request: RequestId(request), tasks, wait_ms, abandon: false, group: None })
        }),
        vec(task(), 0..=BATCH_MAX).prop_map(|tasks| Request::Cancel(Tasks { tasks })),
    ]
}

/// What may reach a decoder: a real message with some bytes overwritten, frames cut, dropped or added.
fn damaged() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let mut pristine: Vec<Vec<Vec<u8>>> =
        samples::requests().into_iter().map(|(.., request)| codec::encode_request(request).unwrap()).collect();
    pristine.extend(samples::answers().into_iter().map(|(.., answer)| codec::encode_answer(answer).unwrap()));
    let overwrites = vec((any::<Index>(), any::<Index>(), any::<u8>()), 1..6);
    let cut = option::of((any::<Index>(), any::<Index>()));
    (select(pristine), overwrites, cut, option::weighted(0.1, vec(any::<u8>(), 0..20))).prop_map(
        |(mut frames, overwrites, cut, extra)| {
            for (frame, place, byte) in overwrites {
                let frame = frame.get_mut(&mut frames);
                // The header stays valid, most of the time, so that the body is reached.
                if frame.len() != codec::HEADER_BYTES || byte < 8 {
                    let place = place.index(frame.len().max(1));
                    frame.splice(place..(place + 1).min(frame.len()), [byte]);
                }
            }
            if let Some((frame, place)) = cut {
                let frame = frame.get_mut(&mut frames);
                frame.truncate(place.index(frame.len() + 1));
            }
            frames.extend(extra);
            frames
        },
    )
}

proptest! {
    #[test]
    fn a_request_comes_back_as_it_went(request in request()) {
        // Nothing is lost, and no payload ends up at another task.
        let frames = codec::encode_request(request.clone()).unwrap();
        prop_assert_eq!(codec::decode_request(frames).unwrap(), request);
    }

    #[test]
    fn handed_tasks_come_back_as_they_went(tasks in vec(handed_task(), 0..64), seq in any::<u64>()) {
        // The one answer with many payloads, two kinds of them for each task.
        let outcomes = vec![OutcomeCode::Ok; tasks.len()];
        let answer = Answer::Tasks(HandOut { epoch: Epoch(1), seq, tasks, outcomes, settled: seq });
        let frames = codec::encode_answer(answer.clone()).unwrap();
        prop_assert_eq!(codec::decode_answer(frames).unwrap(), answer);
    }

    #[test]
    fn no_bytes_make_decoding_panic(frames in vec(vec(any::<u8>(), 0..200), 0..5)) {
        // Random frames, and random bodies behind a valid header.
        for message_type in [None, Some(0x02), Some(0x10), Some(0x82), Some(0xff)] {
            let mut frames = frames.clone();
            if let Some(message_type) = message_type {
                frames.insert(0, vec![b'L', b'W', 1, message_type]);
            }
            drop(codec::decode_request(frames.clone()));
            drop(codec::decode_answer(frames));
        }
    }

    #[test]
    fn a_trace_context_comes_back_from_its_text(
        trace_id in 1..=u128::MAX, span_id in 1..=u64::MAX, flags in 0..4_u8, state in "([a-d]{1,9}=[x -]{0,90},){0,12}",
    ) {
        // What is written fits the column and is read as it was, whatever of the state had no room.
        let context = TraceContext::new(trace_id, span_id, flags, &state).unwrap();
        let text = context.to_string();
        prop_assert!(text.len() <= TRACE_BYTES_MAX);
        prop_assert_eq!(TraceContext::parse(&text), Some(context));
    }

    #[test]
    fn no_text_makes_reading_a_trace_context_panic(text in ".{0,80}", digits in "[0-9a-f-]{50,60}( .{0,40})?") {
        // Random text, and text that is nearly one.
        for text in [&text, &digits] {
            prop_assert!(TraceContext::parse(text).is_none_or(|context| context.to_string().starts_with("00-")));
        }
    }

    #[test]
    fn no_damage_makes_decoding_panic(frames in damaged()) {
        // What is refused is refused with an answer that fits its frame; what is accepted can be said again.
        match codec::decode_request(frames.clone()) {
            Ok(request) => prop_assert!(codec::encode_request(request).is_ok()),
            Err(error) => prop_assert!(codec::encode_answer(Answer::Error(error)).is_ok()),
        }
        drop(codec::decode_answer(frames));
    }
}

#[test]
fn payload_bytes_are_moved_and_not_copied() {
    // The frame's memory is the payload's own, in both directions.
    let payload = Payload::bin(vec![7; 1000]);
    let place = payload.bytes.as_ptr();
    let new_task = NewTask::new(samples::kind("echo"), Some(payload));
    let submit = Submit { request: RequestId([1; 16]), tasks: vec![new_task], wait_ms: 0, abandon: false, group: None };
    let frames = codec::encode_request(Request::Submit(submit)).unwrap();
    assert_eq!(frames[2].as_ptr(), place);
    let Request::Submit(submit) = codec::decode_request(frames).unwrap() else { panic!("not a SUBMIT") };
    assert_eq!(submit.tasks[0].payload.as_ref().unwrap().bytes.as_ptr(), place);
}

#[test]
fn sizes_are_refused_before_the_body_is_read() {
    // The body here is no MessagePack at all, and the error is about the sizes.
    let refusal = |payloads: Vec<Vec<u8>>| {
        let mut frames = vec![b"LW\x01\x02".to_vec(), vec![0xc1]];
        frames.extend(payloads);
        codec::decode_request(frames).unwrap_err()
    };
    let error = refusal(vec![vec![0; PAYLOAD_BYTES_MAX + 1]]);
    assert_eq!(error.code, Code::TooLarge);
    assert!(error.text.contains("16777217"), "{error}");
    assert_eq!(refusal(vec![Vec::new(); PAYLOAD_FRAMES_MAX + 1]).code, Code::TooMany);
    assert_eq!(refusal(vec![vec![0; PAYLOAD_BYTES_MAX]; 5]).code, Code::TooLarge);
}

#[test]
fn what_is_over_a_bound_is_not_sent() {
    // The sender hears it at once, with the code that the other end would have answered.
    let running = vec![samples::held(1 << 40, i64::MAX); BODY_BYTES_MAX / 18];
    let beat = Beat { session: samples::session(), epoch: None, running, wait_ms: 0 };
    assert_eq!(codec::encode_request(Request::Beat(beat)).unwrap_err().code(), Code::TooLarge);
    let outcome = Outcome::new(samples::task(1), Lease::new(1), End::Done);
    let large = Outcome { result: Some(Payload::bin(vec![0; PAYLOAD_BYTES_MAX + 1])), ..outcome };
    let error = codec::encode_request(Request::Ready(Ready { outcomes: vec![large], ..samples::plain_ready() }));
    let text = error.unwrap_err().to_string();
    assert!(text.starts_with("payload 0 has 16777217 bytes, at most 16777216 are allowed"), "{text}");
}

#[test]
fn a_refusal_that_repeats_the_peers_words_stays_short() {
    // A field name of 60 kB comes back cut, so that the ERR fits its frame.
    let mut body = vec![0x81, 0xda];
    body.extend(60_000_u16.to_be_bytes());
    body.extend([b'x'].repeat(60_000));
    body.push(0xc1);
    let error = codec::decode_request(vec![b"LW\x01\x02".to_vec(), body]).unwrap_err();
    assert!(error.field.unwrap().len() < 600);
}

#[test]
fn an_answer_of_a_newer_broker_is_understood() {
    // Unknown keys are passed over, unknown words read as `Unknown`, and lists may be longer than ours.
    let codes = [vec![0x92], b"\xa2ok".to_vec(), b"\xa8deferred".to_vec()].concat();
    let mut tasks = b"\x85\xa5epoch\x01\xa3seq\x02\xa5tasks\x90\xa3new\x81\xa1k\x90\xa8outcomes".to_vec();
    tasks.extend(&codes);
    let answer = codec::decode_answer(vec![b"LW\x01\x82".to_vec(), tasks]).unwrap();
    let Answer::Tasks(hand_out) = answer else { panic!("not TASKS: {answer:?}") };
    assert_eq!(hand_out.outcomes, [OutcomeCode::Ok, OutcomeCode::Unknown]);

    let stored = vec![laneway_protocol::message::Stored::new(samples::task(1)); BATCH_MAX + 1];
    let long = Answer::Submit(Submitted { tasks: stored, finals: Vec::new(), group: None });
    assert_eq!(codec::decode_answer(codec::encode_answer(long.clone()).unwrap()).unwrap(), long);
}

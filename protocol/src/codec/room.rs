//! How much fits one answer, for those who build answers from lists of any length: what finds no room is left for the
//! next question instead of making a message that nobody takes.

use serde::Serialize;

use super::payloads::Carries;
use crate::limits::{BODY_BYTES_MAX, MESSAGE_BYTES_MAX, PAYLOAD_FRAMES_MAX};
use crate::message::{FairKeyRow, Final, KindState, ProgressEvent, ScheduleRow, TaskRow, WorkerRow};

/// The room that is left in one answer: bytes of the body, bytes and number of the payloads.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    body: usize,
    payloads: usize,
    frames: usize,
}

impl Room {
    /// That of an answer whose other fields take up to `reserved` bytes of the body.
    pub fn with_reserved(reserved: usize) -> Self {
        Self { body: BODY_BYTES_MAX.saturating_sub(reserved), payloads: MESSAGE_BYTES_MAX, frames: PAYLOAD_FRAMES_MAX }
    }

    /// Takes the room of a row. False, and nothing is taken, when there is too little.
    pub fn take_row(&mut self, row: &mut TaskRow) -> bool {
        self.take(row)
    }

    /// Takes the room of an end, like [`Room::take_row`].
    pub fn take_final(&mut self, ended: &mut Final) -> bool {
        self.take(ended)
    }

    /// Takes the room of a word of progress, like [`Room::take_row`].
    pub fn take_event(&mut self, event: &mut ProgressEvent) -> bool {
        self.take(event)
    }

    /// Takes the room of a worker process, like [`Room::take_row`].
    pub fn take_worker(&mut self, worker: &mut WorkerRow) -> bool {
        self.take(worker)
    }

    /// Takes the room of a kind, like [`Room::take_row`].
    pub fn take_kind(&mut self, kind: &mut KindState) -> bool {
        self.take(kind)
    }

    /// Takes the room of a fair key, like [`Room::take_row`].
    pub fn take_fair_key(&mut self, row: &mut FairKeyRow) -> bool {
        self.take(row)
    }

    /// Takes the room of a schedule, like [`Room::take_row`].
    pub fn take_schedule(&mut self, schedule: &mut ScheduleRow) -> bool {
        self.take(schedule)
    }

    fn take<M: Serialize + Carries>(&mut self, part: &mut M) -> bool {
        let (mut payloads, mut frames) = (0, 0);
        part.payloads(&mut |payload| {
            payloads += payload.bytes.len();
            frames += 1;
        });
        let body = body_bytes(part);
        if body > self.body || payloads > self.payloads || frames > self.frames {
            return false;
        }
        self.body -= body;
        self.payloads -= payloads;
        self.frames -= frames;
        true
    }
}

/// What a part adds to the body of its message. Written to nowhere: these are lists for people, not the way of a task.
fn body_bytes<M: Serialize>(part: &M) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    part.serialize(&mut rmp_serde::Serializer::new(&mut count).with_struct_map())
        .expect("a message is plain data and counting takes every write");
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode_answer;
    use crate::limits::PAYLOAD_BYTES_MAX;
    use crate::message::{Answer, Cursor, Payload, TaskState, Waited};
    use crate::{Epoch, TaskId};

    fn ended(error_bytes: usize, result: Option<Payload>) -> Final {
        let task = TaskId::new(TaskId::MAX).unwrap();
        Final { task, state: TaskState::Dead, result, error: Some("x".repeat(error_bytes)) }
    }

    #[test]
    fn an_answer_filled_to_the_last_place_is_taken_by_the_codec() {
        // Proves that the room is that of a real message: by body, by payload bytes and by number of payloads.
        for (error_bytes, result) in [
            (8_000, None),
            (1, None),
            (1, Some(Payload::bin(vec![0; PAYLOAD_BYTES_MAX / 3]))),
            (1, Some(Payload::bin(vec![0; 1]))),
        ] {
            let mut waited = Waited {
                cursor: Cursor { epoch: Epoch(1), n: 1 },
                gap: false,
                events: vec![],
                finals: vec![],
                pending: vec![],
                not_found: vec![],
                pruned: vec![],
                group: None,
            };
            let mut room = Room::with_reserved(128);
            loop {
                let mut next = ended(error_bytes, result.clone());
                if !room.take_final(&mut next) {
                    break;
                }
                waited.finals.push(next);
            }
            assert!(waited.finals.len() >= 8, "{} of {error_bytes} bytes", waited.finals.len());
            encode_answer(Answer::WaitFor(waited)).unwrap();
        }
    }
}

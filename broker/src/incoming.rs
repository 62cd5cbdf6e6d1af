//! One message off the ROUTER socket, frame by frame, within bounds: envelope, then header, body and payloads.
//!
//! Knows nothing of sockets: the router hands it each frame behind the routing id, in whatever number and order they come.
//! What is over a bound is read on to its end without being kept, and answered; what has no valid envelope has nobody to
//! answer.

use laneway_protocol::limits::{MESSAGE_BYTES_MAX, PAYLOAD_FRAMES_MAX};
use laneway_protocol::{Code, Request, WireError, codec};

/// Correlation, delimiter, header, body and payloads.
const FRAMES_MAX: usize = PAYLOAD_FRAMES_MAX + 4;

/// The frames between routing id and header, to be echoed byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// The 4 bytes by which a correlating REQ knows its answers.
    pub(crate) correlation: Option<[u8; 4]>,
}

/// What has been read of a message so far.
#[derive(Debug)]
pub(crate) struct Incoming {
    opening: Opening,
    /// From the header on.
    frames: Vec<Vec<u8>>,
    n_frames: usize,
    bytes: usize,
    refused: Option<WireError>,
}

/// How far the envelope is.
#[derive(Debug, Clone, Copy)]
enum Opening {
    /// No frame came yet.
    Nothing,
    Correlation([u8; 4]),
    Complete(Envelope),
    /// It cannot become one any more.
    Bad,
}

impl Incoming {
    pub(crate) fn new() -> Self {
        Self { opening: Opening::Nothing, frames: Vec::new(), n_frames: 0, bytes: 0, refused: None }
    }

    /// Takes the next frame.
    pub(crate) fn take(&mut self, frame: &[u8]) {
        self.n_frames = self.n_frames.saturating_add(1);
        self.opening = match self.opening {
            Opening::Complete(_) => return self.keep(frame),
            Opening::Nothing if frame.is_empty() => Opening::Complete(Envelope { correlation: None }),
            Opening::Nothing => <[u8; 4]>::try_from(frame).map_or(Opening::Bad, Opening::Correlation),
            Opening::Correlation(id) if frame.is_empty() => Opening::Complete(Envelope { correlation: Some(id) }),
            Opening::Correlation(_) | Opening::Bad => Opening::Bad,
        };
    }

    /// `None`: there is nobody to answer.
    pub(crate) fn envelope(&self) -> Option<Envelope> {
        match self.opening {
            Opening::Complete(envelope) => Some(envelope),
            _ => None,
        }
    }

    /// The question, or what to answer instead. Call it when the last frame was taken.
    pub(crate) fn into_request(self) -> Result<Request, WireError> {
        match self.refused {
            Some(error) => Err(error),
            None => codec::decode_request(self.frames),
        }
    }

    fn keep(&mut self, frame: &[u8]) {
        self.bytes = self.bytes.saturating_add(frame.len());
        if self.refused.is_some() {
            return;
        }
        if self.bytes > MESSAGE_BYTES_MAX {
            self.refuse(
                Code::TooLarge,
                format!("{} bytes and more in one message, at most {MESSAGE_BYTES_MAX}", self.bytes),
            );
        } else if self.n_frames > FRAMES_MAX {
            self.refuse(
                Code::TooMany,
                format!("{} frames and more in one message, at most {FRAMES_MAX}", self.n_frames),
            );
        } else {
            self.frames.push(frame.to_vec());
        }
    }

    fn refuse(&mut self, code: Code, text: String) {
        // The memory goes back now, not at the end of a message that may have none.
        self.frames = Vec::new();
        self.refused = Some(WireError::new(code, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(frames: &[&[u8]]) -> Incoming {
        let mut incoming = Incoming::new();
        for frame in frames {
            incoming.take(frame);
        }
        incoming
    }

    #[test]
    fn an_envelope_is_an_empty_frame_behind_at_most_four_bytes() {
        // Every shape that a peer may send, and every neighbour of one that it may not.
        let envelope = |frames: &[&[u8]]| read(frames).envelope().map(|envelope| envelope.correlation);
        assert_eq!(envelope(&[b""]), Some(None));
        assert_eq!(envelope(&[b"", b"header"]), Some(None));
        assert_eq!(envelope(&[b"four", b""]), Some(Some(*b"four")));
        assert_eq!(envelope(&[b"four", b"", b"", b""]), Some(Some(*b"four")));
        let bad: [&[&[u8]]; 5] = [&[], &[b"four"], &[b"five5", b""], &[b"four", b"four", b""], &[b"x", b"", b""]];
        for frames in bad {
            assert_eq!(envelope(frames), None, "{frames:?}");
        }
    }

    #[test]
    fn a_message_over_a_bound_is_answered_and_not_kept() {
        // The number of frames and the bytes are bounded while they come, not once they are all there.
        let mut many = read(&[b"", b"LW\x01\x7e", b"\x80"]);
        let mut large = read(&[b"", b"LW\x01\x7e", b"\x80"]);
        let frame = vec![0; MESSAGE_BYTES_MAX / 8];
        for _ in 0..2 * FRAMES_MAX {
            many.take(b"");
        }
        for _ in 0..9 {
            large.take(&frame);
        }
        assert!(many.frames.is_empty() && large.frames.is_empty());
        assert_eq!(many.into_request().unwrap_err().code, Code::TooMany);
        assert_eq!(large.into_request().unwrap_err().code, Code::TooLarge);
        let full: Vec<&[u8]> =
            [&[b"four".as_slice(), b"", b"LW\x01\x7e", b"\x80"][..], &[b"".as_slice(); PAYLOAD_FRAMES_MAX]].concat();
        assert_eq!(read(&full).into_request().unwrap_err().code, Code::BadFrames, "the codec's own bound comes next");
    }
}

//! What the end of a process means for its task.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use laneway::{Failure, Payload};
use laneway_protocol::limits::{PAYLOAD_BYTES_MAX, TEXT_BYTES_MAX};

/// `EX_DATAERR` of sysexits.h: the input is wrong, and will be the next time.
pub(crate) const EXIT_DEAD: i32 = 65;

/// What standard output holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ResultFormat {
    /// JSON where it is JSON, else text as a JSON string, else bytes.
    Auto,
    Json,
    Text,
    Bytes,
    /// Nothing is kept.
    None,
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(super) struct End {
    pub(super) status: ExitStatus,
    pub(super) out: Vec<u8>,
    /// It said more than a result may have, and was ended for it.
    pub(super) is_over: bool,
    /// The end of standard error.
    pub(super) err: String,
}

pub(super) fn outcome(end: End, format: ResultFormat, cancelled: bool) -> Result<Option<Payload>, Failure> {
    if end.is_over {
        return Err(Failure::dead(format!("it wrote a result of over {PAYLOAD_BYTES_MAX} bytes")));
    }
    match end.status.code() {
        Some(0) => result(end.out, format),
        _ if cancelled => Err(Failure::cancelled()),
        Some(EXIT_DEAD) => Err(Failure::dead(text(&end, "exit code 65"))),
        Some(code) => Err(Failure::new(text(&end, &format!("exit code {code}")))),
        None => {
            let signal = end.status.signal().unwrap_or_default();
            let killed = if signal == libc::SIGKILL { ", perhaps for want of memory" } else { "" };
            Err(Failure::new(text(&end, &format!("killed by signal {signal}{killed}"))))
        }
    }
}

/// The cause and the last words, which mostly say why.
fn text(end: &End, cause: &str) -> String {
    let last = end.err.trim();
    if last.is_empty() {
        return cause.into();
    }
    let room = TEXT_BYTES_MAX - cause.len() - 2;
    let from = (last.len().saturating_sub(room)..=last.len()).find(|&at| last.is_char_boundary(at)).unwrap_or_default();
    format!("{cause}: {}", last[from..].trim_start())
}

fn result(out: Vec<u8>, format: ResultFormat) -> Result<Option<Payload>, Failure> {
    if out.is_empty() || format == ResultFormat::None {
        return Ok(None);
    }
    let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    let quoted = |text: &str| {
        let text = text.strip_suffix('\n').unwrap_or(text);
        Payload::json(serde_json::to_string(text).expect("a text is JSON"))
    };
    let payload = match (format, std::str::from_utf8(&out)) {
        (ResultFormat::Bytes, _) => Payload::bin(out),
        (ResultFormat::Auto | ResultFormat::Json, Ok(text)) if is_json(text) => Payload::json(text.trim()),
        (ResultFormat::Json, _) => return Err(Failure::new("its standard output is no JSON, as --result json has it")),
        (_, Ok(text)) => quoted(text),
        (ResultFormat::Text, Err(_)) => {
            return Err(Failure::new("its standard output is no text, as --result text has it"));
        }
        (_, Err(_)) => Payload::bin(out),
    };
    // Quotes and escapes come on top of what was written.
    if payload.bytes.len() > PAYLOAD_BYTES_MAX {
        return Err(Failure::dead(format!("it wrote a result of over {PAYLOAD_BYTES_MAX} bytes")));
    }
    Ok(Some(payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(raw: i32, out: &[u8], err: &str) -> End {
        End { status: ExitStatus::from_raw(raw), out: out.into(), is_over: false, err: err.into() }
    }

    #[test]
    fn what_was_written_is_kept_as_what_it_is() {
        // Proves each format with each sort of output: JSON stays JSON, text becomes a JSON string, the rest bytes or an error.
        let read = |out: &[u8], format| {
            let kept = outcome(end(0, out, ""), format, false);
            kept.map(|payload| payload.map(|payload| String::from_utf8_lossy(&payload.bytes).into_owned()))
        };
        let kept = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(read(b" {\"a\": 1}\n", ResultFormat::Auto), kept("{\"a\": 1}"));
        assert_eq!(read(b"12 words\n", ResultFormat::Auto), kept("\"12 words\""));
        assert_eq!(read(b"12\n", ResultFormat::Text), kept("\"12\""));
        assert_eq!(read(b"12\n", ResultFormat::Bytes), kept("12\n"));
        assert_eq!(read(b"12\n", ResultFormat::None), Ok(None));
        assert_eq!(read(b"", ResultFormat::Json), Ok(None));
        assert!(read(b"\xff\n", ResultFormat::Auto).is_ok());
        for format in [ResultFormat::Json, ResultFormat::Text] {
            assert!(read(b"\xff\n", format).is_err());
        }
    }

    #[test]
    fn an_end_without_success_says_how_and_why() {
        // Proves the table of exit codes, and that the last words are kept within the bound of an error, cut at a character.
        let failure =
            |raw, err: &str, cancelled| outcome(end(raw, b"out", err), ResultFormat::Auto, cancelled).unwrap_err();
        assert_eq!(failure(65 << 8, "no such file\n", false), Failure::dead("exit code 65: no such file"));
        assert_eq!(failure(1 << 8, "", false), Failure::new("exit code 1"));
        assert_eq!(failure(9, "", false), Failure::new("killed by signal 9, perhaps for want of memory"));
        assert_eq!(failure(15, "", true), Failure::cancelled());
        assert!(outcome(end(0, b"1", ""), ResultFormat::Auto, true).is_ok(), "done wins over a wish to end");
        let long = format!("{}the end", "ä".repeat(TEXT_BYTES_MAX));
        let Failure { .. } = failure(1 << 8, &long, false);
        let cut = text(&end(1 << 8, b"", &long), "exit code 1");
        assert!(
            cut.len() <= TEXT_BYTES_MAX && cut.len() > TEXT_BYTES_MAX - 4 && cut.ends_with("the end"),
            "{}",
            cut.len()
        );
        let mut over = end(9, b"", "");
        over.is_over = true;
        assert!(format!("{:?}", outcome(over, ResultFormat::Auto, false)).contains("dead: true"));
    }
}

//! The trace context of a task, as W3C Trace Context writes it: the trace that the task belongs to, and the span that made it.
//!
//! The column `trace` holds a `traceparent` and behind it, if there is one, its `tracestate`. It is read as strictly as the
//! standard says; anything else in the column is carried along and is no trace context. The spans of the SDK, `laneway work`,
//! `laneway submit` and the dashboard read it here; nothing that hands tasks out does.

use std::fmt;

use crate::limits::TRACE_BYTES_MAX;

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const PARENT_BYTES: usize = 55;
/// A `tracestate` with more members is no `tracestate`.
const MEMBERS_MAX: usize = 32;
/// Of a member's key, and of its value.
const MEMBER_PART_BYTES_MAX: usize = 256;
/// Members over this go first where there is too little room.
const LONG_MEMBER_BYTES: usize = 128;
/// Sampled, and random trace id; others are for later versions and are not passed on.
const FLAGS: u8 = 0b11;

/// A trace and a span in it. Neither id is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
    /// Members with a comma between them, or empty.
    state: String,
}

impl TraceContext {
    /// `None` when an id is zero. A `state` that is no `tracestate` is left out; of one that has no room beside the ids in
    /// [`TRACE_BYTES_MAX`], members over 128 bytes are left out first, then the last ones.
    pub fn new(trace_id: u128, span_id: u64, flags: u8, state: &str) -> Option<Self> {
        let state = fitted(members(state).unwrap_or_default());
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags: flags & FLAGS, state })
    }

    /// Reads the column: a `traceparent`, and behind a space or a line end its `tracestate`.
    pub fn parse(text: &str) -> Option<Self> {
        let (parent, state) = text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""));
        Self::from_headers(parent, state)
    }

    /// Reads the two headers, of which `state` may be empty. A later version is read as far as version 00 goes.
    pub fn from_headers(parent: &str, state: &str) -> Option<Self> {
        let (head, rest) = (parent.get(..PARENT_BYTES)?, parent.get(PARENT_BYTES..)?);
        let mut parts = head.split('-');
        let mut number = |digits| parts.next().and_then(|part| hexadecimal(part, digits));
        let (version, trace_id, span_id, flags) = (number(2)?, number(32)?, number(16)?, number(2)?);
        let is_whole = rest.is_empty() || (version > 0 && rest.starts_with('-'));
        if version == 0xff || !is_whole {
            return None;
        }
        Self::new(trace_id, span_id.try_into().ok()?, flags.try_into().ok()?, state)
    }

    /// Not zero.
    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// Not zero.
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    /// Bit 0: sampled. Bit 1: the trace id is random.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The header `traceparent`, in version 00.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }

    /// The header `tracestate`; empty when there is none.
    pub fn tracestate(&self) -> &str {
        &self.state
    }
}

/// As the column has it, at most [`TRACE_BYTES_MAX`] bytes.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent())?;
        if self.state.is_empty() { Ok(()) } else { write!(f, " {}", self.state) }
    }
}

/// Exactly so many digits, none of them a capital.
fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_number = text.len() == digits && text.bytes().all(is_digit);
    if is_number { u128::from_str_radix(text, 16).ok() } else { None }
}

/// `None` when one is wrong: a part of a `tracestate` says nothing.
fn members(state: &str) -> Option<Vec<&str>> {
    let members: Vec<&str> = state.split(',').map(str::trim_ascii).filter(|member| !member.is_empty()).collect();
    (members.len() <= MEMBERS_MAX && members.iter().all(|member| is_member(member))).then_some(members)
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let is_begin = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_key = |byte| is_begin(byte) || b"_-*/@".contains(&byte);
    let is_value = |byte| matches!(byte, b' '..=b'~') && byte != b'=';
    let fits = |part: &str| (1..=MEMBER_PART_BYTES_MAX).contains(&part.len());
    fits(key)
        && fits(value)
        && key.bytes().take(1).all(is_begin)
        && key.bytes().all(is_key)
        && value.bytes().all(is_value)
}

/// What of it has room behind a `traceparent`, in the order in which W3C wants members to be given up.
fn fitted(mut members: Vec<&str>) -> String {
    let has_room =
        |members: &[&str]| PARENT_BYTES + members.iter().map(|m| m.len() + 1).sum::<usize>() <= TRACE_BYTES_MAX;
    while !has_room(&members) {
        let long = members.iter().rposition(|member| member.len() > LONG_MEMBER_BYTES);
        members.remove(long.unwrap_or(members.len() - 1));
    }
    members.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        // Proves version, lengths, small letters and ids that are not zero; a later version counts as far as it is known.
        let parsed = TraceContext::parse(PARENT).unwrap();
        assert_eq!(
            (parsed.trace_id(), parsed.span_id()),
            (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7)
        );
        assert_eq!((parsed.flags(), parsed.to_string().as_str()), (1, PARENT));
        let again = |text: &str| TraceContext::parse(text).map(|context| context.to_string());
        for (text, read) in [
            ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(PARENT)),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09-what-is-to-come", Some(PARENT)),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", None),
            ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x", None),
            ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01", None),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1", None),
            ("00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902bé-01", None),
            (" 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("{\"traceparent\": \"00-4bf92f35\"}", None),
            ("", None),
        ] {
            assert_eq!(again(text).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn a_tracestate_stands_behind_it_and_never_spoils_it() {
        // Proves both separators, blanks around members, and that a wrong or too long state leaves the ids as they are.
        let state = |behind: &str| TraceContext::parse(&format!("{PARENT}{behind}")).unwrap().tracestate().to_owned();
        for (behind, read) in [
            (" rojo=1,congo=t61", "rojo=1,congo=t61"),
            ("\nrojo=1, ,\tcongo=a b", "rojo=1,congo=a b"),
            ("\r\nt1@v=x\r\n", "t1@v=x"),
            ("", ""),
            (" rojo", ""),
            (" Rojo=1", ""),
            (" =1", ""),
            (" rojo=", ""),
            (" rojo=a=b", ""),
            (" rojo=ä", ""),
        ] {
            assert_eq!(state(behind), read, "{behind:?}");
        }
        let many = |n: usize| (0..n).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(state(&format!(" {}", many(32))), many(32));
        assert_eq!(state(&format!(" {}", many(33))), "");
        let (short, long) = ("s=".to_owned() + &"x".repeat(120), "l=".to_owned() + &"x".repeat(200));
        let full = format!(" {short},{long},{short},{short},{short}");
        assert_eq!(state(&full), format!("{short},{short},{short}"), "the long one first, then the last");
        assert!(TraceContext::parse(&format!("{PARENT}{full}")).unwrap().to_string().len() <= TRACE_BYTES_MAX);
    }
}

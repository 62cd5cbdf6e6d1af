//! Where people look at traces: an address with a place for the id of one. Checked once, when the settings are read.

use std::fmt;
use std::str::FromStr;

const PLACE: &str = "{trace_id}";
const BYTES_MAX: usize = 2_048;

/// An address of http or https with `{trace_id}` in it, at most 2,048 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceUrl(String);

impl TraceUrl {
    /// Of one trace.
    pub(crate) fn of(&self, trace_id: &str) -> String {
        self.0.replace(PLACE, trace_id)
    }
}

/// The text says what it must be.
impl FromStr for TraceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`".contains(&byte));
        let has_host = host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
        if !has_host || !text.contains(PLACE) || !is_plain || text.len() > BYTES_MAX {
            return Err(format!(
                "must be an address of http or https with {PLACE} in it and at most {BYTES_MAX} bytes, without blanks, \
                 as in https://jaeger.example/trace/{PLACE}"
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TraceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leads_to_a_trace_is_taken() {
        // Proves that a link can neither run a script nor lead nowhere, and that each place for the id is filled.
        let url: TraceUrl = "https://grafana.example/explore?left={trace_id}&name={trace_id}".parse().unwrap();
        assert_eq!(url.of("4bf9"), "https://grafana.example/explore?left=4bf9&name=4bf9");
        assert!("http://[::1]:16686/trace/{trace_id}".parse::<TraceUrl>().is_ok());
        let long = format!("https://a/{{trace_id}}{}", "x".repeat(BYTES_MAX));
        for text in [
            "javascript:alert('{trace_id}')",
            "jaeger.example/trace/{trace_id}",
            "https:///{trace_id}",
            "https://jaeger.example/trace/",
            "https://jaeger.example/trace/{traceid}",
            "https://jaeger.example/a b/{trace_id}",
            "https://jaeger.example/\"{trace_id}",
            "https://jaeger.example/é/{trace_id}",
            &long,
            "",
        ] {
            assert!(text.parse::<TraceUrl>().unwrap_err().contains("as in https://jaeger.example"), "{text}");
        }
    }
}

//! The trace that a task belongs to: its id, and a link to it where the settings know a place for traces.

use laneway_protocol::TraceContext;

use crate::trace_url::TraceUrl;

pub(super) struct Trace {
    /// The id of the trace; the column as it is where it holds no trace context.
    pub(super) text: String,
    pub(super) link: Option<String>,
}

impl Trace {
    pub(super) fn of(column: &str, url: Option<&TraceUrl>) -> Self {
        let Some(context) = TraceContext::parse(column) else { return Self { text: column.into(), link: None } };
        let id = format!("{:032x}", context.trace_id());
        Self { link: url.map(|url| url.of(&id)), text: id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_shown_and_nothing_else_becomes_a_link() {
        // Proves that what an app wrote into the column reaches an address only as 32 hexadecimal digits.
        let url = "https://jaeger.example/trace/{trace_id}".parse().unwrap();
        let shown = |column: &str, url| {
            let Trace { text, link } = Trace::of(column, url);
            (text, link.unwrap_or_default())
        };
        let id = "4bf92f3577b34da6a3ce929d0e0e4736".to_owned();
        let column = format!("00-{id}-00f067aa0ba902b7-01 rojo=1");
        assert_eq!(shown(&column, Some(&url)), (id.clone(), format!("https://jaeger.example/trace/{id}")));
        assert_eq!(shown(&column, None), (id, String::new()));
        assert_eq!(shown("../?x=\"", Some(&url)), ("../?x=\"".into(), String::new()));
    }
}

//! What runs and submits share: a span's context as the column `trace` has it and back, the tracer, and the attributes that
//! OpenTelemetry's conventions for messaging want of both.

use std::borrow::Cow;

use laneway_protocol::TraceContext;
use opentelemetry::global::{self, BoxedTracer};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};

/// Of the program's provider, asked for each time: a program may set it after it has built its worker.
pub(super) fn tracer() -> BoxedTracer {
    let scope = InstrumentationScope::builder("laneway").with_version(env!("CARGO_PKG_VERSION"));
    global::tracer_with_scope(scope.build())
}

/// `None` for a column that holds no trace context.
pub(super) fn read(column: Option<&str>) -> Option<SpanContext> {
    let context = TraceContext::parse(column?)?;
    let (trace_id, span_id) = (TraceId::from(context.trace_id()), SpanId::from(context.span_id()));
    // OpenTelemetry knows this flag alone, and a state that it does not like never costs the ids.
    let flags = TraceFlags::new(context.flags()) & TraceFlags::SAMPLED;
    let state: TraceState = context.tracestate().parse().unwrap_or_default();
    Some(SpanContext::new(trace_id, span_id, flags, true, state))
}

/// `None` for a span that belongs to no trace, as all do while there is no provider.
pub(super) fn written(span: &SpanContext) -> Option<String> {
    let (trace_id, span_id) =
        (u128::from_be_bytes(span.trace_id().to_bytes()), u64::from_be_bytes(span.span_id().to_bytes()));
    let context = TraceContext::new(trace_id, span_id, span.trace_flags().to_u8(), &span.trace_state().header())?;
    Some(context.to_string())
}

/// Of `process` and `send`, which the conventions know by the same words.
pub(super) fn operation(word: &'static str, endpoint: &str) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("messaging.system", "laneway"),
        KeyValue::new("messaging.operation.name", word),
        KeyValue::new("messaging.operation.type", word),
    ];
    let (address, port) = server(endpoint);
    attributes.push(KeyValue::new("server.address", address.to_owned()));
    attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
    attributes
}

/// Host and port, or the path of a socket.
fn server(endpoint: &str) -> (&str, Option<u16>) {
    let place = endpoint.split_once("://").map_or(endpoint, |(_, place)| place);
    let split = place.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match split.filter(|_| endpoint.starts_with("tcp://")) {
        Some((host, port)) => (host.trim_start_matches('[').trim_end_matches(']'), Some(port)),
        None => (place, None),
    }
}

/// What a span's status has room for.
pub(super) fn first_line(text: &str) -> Cow<'static, str> {
    text.lines().next().unwrap_or_default().to_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_comes_back_from_the_column_as_it_went() {
        // Proves ids, flag and state in both directions, and that what is no trace context is none.
        let column = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 rojo=1,congo=t61";
        let span = read(Some(column)).unwrap();
        assert!(span.is_remote() && span.is_sampled());
        assert_eq!((span.trace_state().get("congo"), written(&span).as_deref()), (Some("t61"), Some(column)));
        assert_eq!(read(Some("00-0-0-0")).or(read(None)), None);
        assert_eq!(written(&SpanContext::NONE), None);
    }

    #[test]
    fn an_endpoint_is_told_as_address_and_port() {
        // Proves each form that an endpoint can have.
        for (endpoint, told) in [
            ("tcp://127.0.0.1:7733", ("127.0.0.1", Some(7733))),
            ("tcp://[::1]:7733", ("::1", Some(7733))),
            ("ipc:///srv/app.db.sock", ("/srv/app.db.sock", None)),
            ("ipc://a:1", ("a:1", None)),
        ] {
            assert_eq!(server(endpoint), told);
        }
    }
}

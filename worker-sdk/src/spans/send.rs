//! The span of a submit, `send KIND`: a child of whatever span the caller is in. Its context is what the tasks carry, but for those
//! that have a trace of their own, to which it has a link.

use std::collections::BTreeSet;

use laneway_protocol::message::{NewTask, Stored};
use opentelemetry::KeyValue;
use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Link, Span as _, SpanBuilder, SpanKind, Status, Tracer as _};

use super::carried::{first_line, operation, read, tracer, written};
use crate::error::Error;

/// More links than this in one span are of no use to anybody, and most providers drop them.
const LINKS_MAX: usize = 128;

/// A submit on its way.
pub(crate) struct Sending(BoxedSpan);

impl Sending {
    /// Gives the tasks what they carry; said again, a submit carries the same.
    pub(crate) fn begin(endpoint: &str, tasks: &mut [NewTask]) -> Self {
        let mut attributes = operation("send", endpoint);
        let kinds: BTreeSet<&str> = tasks.iter().map(|task| task.kind.as_str()).collect();
        let only = kinds.first().filter(|_| kinds.len() == 1);
        attributes.extend(only.map(|kind| KeyValue::new("messaging.destination.name", (*kind).to_owned())));
        match &*tasks {
            [task] => attributes.extend(task.lane.iter().map(|lane| KeyValue::new("laneway.lane", lane.to_string()))),
            many => {
                let count = i64::try_from(many.len()).unwrap_or(i64::MAX);
                attributes.push(KeyValue::new("messaging.batch.message_count", count));
            }
        }
        let own = tasks.iter().filter_map(|task| read(task.trace.as_deref())).take(LINKS_MAX);
        let builder = SpanBuilder::from_name(only.map_or("send".into(), |kind| format!("send {kind}")))
            .with_kind(SpanKind::Producer)
            .with_links(own.map(Link::with_context).collect())
            .with_attributes(attributes);
        let span = tracer().build(builder);
        if let Some(carried) = written(span.span_context()) {
            for task in tasks {
                task.trace.get_or_insert_with(|| carried.clone());
            }
        }
        Self(span)
    }

    /// What the broker made of it.
    pub(crate) fn end(mut self, answered: Result<&[Stored], &Error>) {
        match answered {
            Ok([stored]) => self.0.set_attribute(KeyValue::new("messaging.message.id", stored.task.to_string())),
            Ok(_) => {}
            Err(error) => {
                self.0.set_attribute(KeyValue::new("error.type", class(error)));
                self.0.set_status(Status::error(first_line(&error.to_string())));
            }
        }
        self.0.end();
    }
}

/// One of few words, as the conventions want it: the broker's code where it refused.
fn class(error: &Error) -> String {
    match error {
        Error::Refused(refusal) => refusal.code.to_string(),
        Error::NoBroker { .. } => "no_broker".into(),
        Error::NotAdmitted { .. } => "not_admitted".into(),
        _ => "_OTHER".into(),
    }
}

//! The span of a run, `process KIND`: a child of the span that submitted the task in the first run, and in each later one the first
//! span of a new trace. Either way it has a link to the span that submitted.
//!
//! A retry may come hours later, when the trace of its submit has long been looked at and put away, and a trace with ten tries
//! in it tells nobody how long the work took. So each try is a trace of its own, and the link leads back.

use laneway_protocol::limits::TEXT_BYTES_MAX;
use laneway_protocol::message::{End, HandedTask, Hello, Outcome};
use opentelemetry::trace::{Link, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, ContextGuard, KeyValue};

use super::carried::{first_line, operation, read, tracer, written};

/// What the spans of all runs of a worker have in common.
pub(crate) struct Runs {
    common: Vec<KeyValue>,
}

impl Runs {
    pub(crate) fn new(identity: &Hello, endpoint: &str) -> Self {
        let mut common = operation("process", endpoint);
        common.push(KeyValue::new("messaging.client.id", identity.session.to_string()));
        common.push(KeyValue::new("laneway.worker", identity.name.clone()));
        Self { common }
    }

    /// The clock of the span begins to run.
    pub(crate) fn begin(&self, task: &HandedTask) -> Run {
        let origin = read(task.trace.as_deref());
        let attempt = KeyValue::new("laneway.task.attempt", i64::from(task.attempt));
        let links = origin.iter().map(|origin| Link::new(origin.clone(), vec![attempt.clone()], 0)).collect();
        let mut attributes = self.common.clone();
        // The kind is what a task is sent to, as it picks the handler; a lane is how urgent it is.
        attributes.extend([
            KeyValue::new("messaging.destination.name", task.kind.to_string()),
            KeyValue::new("messaging.message.id", task.task.to_string()),
            KeyValue::new("laneway.kind", task.kind.to_string()),
            KeyValue::new("laneway.lane", task.lane.to_string()),
            KeyValue::new("laneway.task.run", i64::from(task.run)),
            KeyValue::new("laneway.task.max_attempts", i64::from(task.max_attempts)),
            attempt,
        ]);
        let builder = SpanBuilder::from_name(format!("process {}", task.kind))
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .with_links(links);
        let parent = match origin {
            Some(origin) if task.run == 1 => Context::new().with_remote_span_context(origin),
            _ => Context::new(),
        };
        Run(parent.with_span(tracer().build_with_context(builder, &parent)))
    }
}

/// A span that lasts as long as its handler.
#[derive(Clone)]
pub(crate) struct Run(Context);

impl Run {
    /// Spans that this thread makes are children of this one, until the guard is dropped.
    pub(crate) fn enter(&self) -> ContextGuard {
        self.0.clone().attach()
    }

    /// What a task carries that is spawned here: the innermost span of this thread, or the run's own where it has none.
    pub(crate) fn carried(&self) -> Option<String> {
        let innermost = Context::map_current(|current| written(current.span().span_context()));
        innermost.or_else(|| written(self.0.span().span_context()))
    }

    /// How the handler ended. Only a failure is an error: a snooze, a release and a cancel are not.
    pub(crate) fn tell(&self, outcome: &Outcome) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("laneway.task.outcome", word(outcome.end)));
        if outcome.end == End::Fail {
            let text = outcome.error.as_deref().unwrap_or_default();
            let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
            span.set_attribute(KeyValue::new("error.type", if outcome.dead { "dead" } else { "failed" }));
            span.add_event("exception", vec![KeyValue::new("exception.message", text.to_owned())]);
            span.set_status(Status::error(first_line(text)));
        }
    }

    /// `is_taken`: the outcome is on its way to the broker. Else the task went elsewhere meanwhile.
    pub(crate) fn end(&self, is_taken: bool) {
        let span = self.0.span();
        if !is_taken {
            span.set_attribute(KeyValue::new("laneway.task.stale", true));
        }
        span.end();
    }
}

/// As on the wire.
fn word(end: End) -> &'static str {
    match end {
        End::Done => "done",
        End::Fail => "fail",
        End::Snooze => "snooze",
        End::Release => "release",
        End::Cancelled => "cancelled",
        End::Already => "already",
    }
}

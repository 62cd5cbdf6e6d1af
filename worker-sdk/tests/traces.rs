//! Spans of a worker and a client against the fake broker: every end of a run, every way to submit, and what is told of errors.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;
#[path = "../../tests/traces/spans.rs"]
mod spans;
#[path = "../../tests/traces/working.rs"]
mod working;

use std::time::Duration;

use fake::Broker;
use laneway::protocol::message::HandedTask;
use laneway::{Client, Context, Failure, Task, snooze};
use opentelemetry::trace::{SpanId, SpanKind, Status, Tracer as _};
use opentelemetry_sdk::trace::SpanData;
use spans::{Spans, attribute, traceparent};
use working::Working;

/// A task of a kind, changed before a worker can ask for it.
fn add(broker: &Broker, kind: &str, change: impl FnOnce(&mut HandedTask)) -> u64 {
    let id = broker.add("none", "low", None);
    let mut state = broker.state();
    let task = state.queue.iter_mut().find(|task| task.task.value() == id).unwrap();
    task.kind = kind.parse().unwrap();
    change(task);
    id
}

fn description(span: &SpanData) -> Option<&str> {
    match &span.status {
        Status::Error { description } => Some(description),
        _ => None,
    }
}

#[test]
fn every_end_of_a_run_is_told_in_its_span() {
    // Proves outcome, status, error class and the text of the error for each way in which a handler can end, panics included; and
    // that neither a snooze nor a release is an error.
    let spans = Spans::kept();
    let broker = Broker::start();
    for kind in ["ends-done", "ends-fail", "ends-dead", "ends-panic", "ends-snooze", "ends-release"] {
        add(&broker, kind, |_| {});
    }
    let _working = Working::start(&broker.endpoint, |builder| {
        builder
            .handle("ends-done", |(): (), _: &Context| Ok::<_, Failure>(1))
            .handle("ends-fail", |(): (), _: &Context| Err::<(), _>(Failure::new("no route\nto host")))
            .handle("ends-dead", |(): (), _: &Context| Err::<(), _>(Failure::dead("never")))
            .handle("ends-panic", |(): (), _: &Context| -> Result<(), Failure> { panic!("out of cheese") })
            .handle("ends-snooze", |(): (), _: &Context| Err::<(), _>(snooze(Duration::from_secs(7))))
            .handle("ends-release", |(): (), _: &Context| Err::<(), _>(Failure::release()))
    });
    for (kind, outcome, class, line) in [
        ("done", "done", "", None),
        ("fail", "fail", "failed", Some("no route")),
        ("dead", "fail", "dead", Some("never")),
        ("panic", "fail", "failed", Some("the handler panicked: out of cheese")),
        ("snooze", "snooze", "", None),
        ("release", "release", "", None),
    ] {
        let span = spans.one(&format!("process ends-{kind}"));
        assert_eq!(attribute(&span, "laneway.task.outcome"), outcome, "{kind}");
        assert_eq!((attribute(&span, "error.type").as_str(), description(&span)), (class, line), "{kind}");
        assert_eq!(span.events.iter().any(|event| event.name == "exception"), line.is_some(), "{kind}");
    }
    let failed = spans.one("process ends-fail");
    assert_eq!(failed.events[0].attributes[0].value.as_str(), "no route\nto host");
}

#[test]
fn the_attributes_are_those_of_the_conventions() {
    // Proves kind of span, name and attributes of a run as the conventions for messaging have them, and ours beside them.
    let spans = Spans::kept();
    let broker = Broker::start();
    let task = add(&broker, "named", |task| (task.run, task.attempt) = (4, 2));
    let _working =
        Working::start(&broker.endpoint, |builder| builder.handle("named", |(): (), _: &Context| Ok::<_, Failure>(())));
    let span = spans.one("process named");
    assert_eq!(span.span_kind, SpanKind::Consumer);
    assert_eq!(span.instrumentation_scope.name(), "laneway");
    let session = broker.state().hellos[0].session.to_string();
    for (name, value) in [
        ("messaging.system", "laneway"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.destination.name", "named"),
        ("messaging.message.id", &task.to_string()),
        ("messaging.client.id", &session),
        ("server.address", broker.endpoint.trim_start_matches("ipc://")),
        ("laneway.kind", "named"),
        ("laneway.lane", "low"),
        ("laneway.worker", "test"),
        ("laneway.task.run", "4"),
        ("laneway.task.attempt", "2"),
        ("laneway.task.max_attempts", "3"),
        ("laneway.task.outcome", "done"),
    ] {
        assert_eq!(attribute(&span, name), value, "{name}");
    }
}

#[test]
fn the_first_run_is_a_child_and_a_later_one_a_trace_of_its_own() {
    // Proves parent and link of a first run, of a run after a loss (in the first attempt all the same), and of a task whose column
    // holds no trace context.
    const ORIGIN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let spans = Spans::kept();
    let broker = Broker::start();
    add(&broker, "first-run", |task| task.trace = Some(format!("{ORIGIN} rojo=1")));
    add(&broker, "lost-run", |task| (task.run, task.trace) = (2, Some(ORIGIN.into())));
    add(&broker, "odd-run", |task| task.trace = Some("what is this".into()));
    let _working = Working::start(&broker.endpoint, |builder| {
        let handler = |(): (), ctx: &Context| Ok::<_, Failure>(ctx.trace().map(str::to_owned));
        builder.handle("first-run", handler).handle("lost-run", handler).handle("odd-run", handler)
    });
    let (first, lost, odd) =
        (spans.one("process first-run"), spans.one("process lost-run"), spans.one("process odd-run"));
    let linked = |span: &SpanData| span.links.iter().map(|link| traceparent(&link.span_context)).collect::<Vec<_>>();
    assert_eq!(first.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((first.parent_span_id.to_string().as_str(), first.parent_span_is_remote), ("00f067aa0ba902b7", true));
    assert_eq!(first.span_context.trace_state().get("rojo"), Some("1"));
    assert_eq!((lost.parent_span_id, linked(&lost)), (SpanId::INVALID, vec![ORIGIN.to_owned()]));
    assert_ne!(lost.span_context.trace_id(), first.span_context.trace_id());
    assert_eq!(linked(&first), [ORIGIN]);
    assert_eq!((odd.parent_span_id, linked(&odd).len()), (SpanId::INVALID, 0));
    broker.wait_until("three outcomes", |state| state.outcomes.len() == 3);
    let results = broker.state().outcomes.iter().filter_map(|outcome| outcome.result.clone()).collect::<Vec<_>>();
    assert!(results.iter().any(|result| result.bytes == *b"\"what is this\""), "a handler sees the column as it is");
}

#[test]
fn each_way_to_submit_is_one_span_that_its_tasks_carry() {
    // Proves that a submit is a child of the span around it and what it carries, that many tasks share one span also over several
    // messages, and that a task with a trace of its own keeps it and is linked to.
    const OWN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let spans = Spans::kept();
    let broker = Broker::start();
    let client = Client::connect(&broker.endpoint).unwrap();
    let tracer = opentelemetry::global::tracer("test");
    let stored = tracer.in_span("request alone", |_| client.submit(Task::new("alone").lane("high")).unwrap());
    let (request, sent) = (spans.one("request alone"), spans.one("send alone"));
    assert_eq!(sent.parent_span_id, request.span_context.span_id());
    assert_eq!(
        (sent.span_kind.clone(), attribute(&sent, "messaging.operation.type")),
        (SpanKind::Producer, "send".into())
    );
    assert_eq!(
        (attribute(&sent, "messaging.message.id"), attribute(&sent, "laneway.lane")),
        (stored.task.to_string(), "high".into())
    );
    let carried = |at: usize| {
        let state = broker.state();
        state.submits[at].tasks.iter().map(|task| task.trace.clone().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(carried(0), [traceparent(&sent.span_context)]);

    // More bodies than one message has room for.
    let long = "k".repeat(400);
    let many = (0..300).map(|n| Task::new("many").unique_key(format!("{n}{long}")));
    client.submit_many(many.chain([Task::new("many").trace(OWN)])).unwrap();
    let sent = spans.one("send many");
    assert_eq!(attribute(&sent, "messaging.batch.message_count"), "301");
    assert_eq!(sent.links.iter().map(|link| traceparent(&link.span_context)).collect::<Vec<_>>(), [OWN]);
    let n_submits = broker.state().submits.len();
    let mut all: Vec<String> = (1..n_submits).flat_map(carried).collect();
    assert!(n_submits > 2 && all.pop().as_deref() == Some(OWN));
    assert!(all.iter().all(|trace| *trace == traceparent(&sent.span_context)) && all.len() == 300);

    client.submit_together([Task::new("mixed"), Task::new("other")]).unwrap();
    let sent = spans.one("send");
    assert_eq!((attribute(&sent, "messaging.destination.name"), description(&sent)), (String::new(), None));
}

#[test]
fn a_submit_that_fails_says_so_in_its_span() {
    // Proves that a broker which is away is an error of the span, with its class and its words.
    let spans = Spans::kept();
    let mut broker = Broker::start();
    let client = Client::connect_with(&broker.endpoint, Duration::from_millis(300)).unwrap();
    broker.down();
    let error = client.submit(Task::new("in-vain")).unwrap_err();
    let sent = spans.one("send in-vain");
    assert_eq!(
        (attribute(&sent, "error.type"), description(&sent)),
        ("no_broker".into(), Some(error.to_string().as_str()))
    );
}

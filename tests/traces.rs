//! A trace leads from whoever submits a task, by SQL, over the wire, over HTTP or on the command line, through the broker to the span
//! of its run, in a worker of the library and in any program; and a second try is a trace of its own that leads back.
//!
//! The workers run in this very process, so that their spans can be looked at; the broker is a process as always.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;
#[path = "traces/spans.rs"]
mod spans;
#[path = "traces/working.rs"]
mod working;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use harness::{Broker, Http, Place, Program, Said, Table};
use laneway::{Context, Failure, Task};
use opentelemetry::global;
use opentelemetry::trace::{SpanId, Status, Tracer as _};
use opentelemetry_sdk::trace::SpanData;
use serde_json::json;
use spans::{Spans, attribute, traceparent};
use working::Working;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ORIGIN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn insert(table: &Table, kind: &str, trace: &str) -> i64 {
    table.execute("INSERT INTO tasks(kind, trace) VALUES (?1, ?2)", [kind, trace]);
    table.0.last_insert_rowid()
}

fn linked(span: &SpanData) -> Vec<String> {
    span.links.iter().map(|link| traceparent(&link.span_context)).collect()
}

#[test]
fn a_row_inserted_with_a_trace_runs_in_a_child_of_that_span() {
    // Proves the whole way from an app's INSERT to the worker's span: same trace, that parent, the state beside it; and that what the
    // handler itself does is a child of the run.
    let spans = Spans::kept();
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _working = Working::start(broker.endpoint(), |builder| {
        builder.handle("by-sql", |(): (), _: &Context| {
            global::tracer("app").in_span("resize by-sql", |_| Ok::<_, Failure>(()))
        })
    });
    let task = insert(&table, "by-sql", &format!("{ORIGIN} rojo=1"));
    table.wait_for_state(task, "done");
    let (run, inner) = (spans.one("process by-sql"), spans.one("resize by-sql"));
    assert_eq!(
        (run.span_context.trace_id().to_string().as_str(), inner.span_context.trace_id()),
        (TRACE_ID, run.span_context.trace_id())
    );
    assert_eq!((run.parent_span_id.to_string().as_str(), run.parent_span_is_remote), ("00f067aa0ba902b7", true));
    assert_eq!(inner.parent_span_id, run.span_context.span_id());
    assert_eq!((run.span_context.trace_state().get("rojo"), linked(&run)), (Some("1"), vec![ORIGIN.into()]));
    assert_eq!(
        (attribute(&run, "messaging.message.id"), attribute(&run, "laneway.lane")),
        (task.to_string(), "normal".into())
    );
}

#[test]
fn a_second_try_is_a_trace_of_its_own_linked_to_the_first_context() {
    // Proves parent, link, attempt and status of a run that fails and of the one that does it.
    let spans = Spans::kept();
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _working = Working::start(broker.endpoint(), |builder| {
        builder.handle("flaky", |(): (), ctx: &Context| match ctx.attempt() {
            1 => Err(Failure::retry_after(Duration::from_millis(1), "no route\nto host")),
            _ => Ok(()),
        })
    });
    let task = insert(&table, "flaky", ORIGIN);
    table.wait_for_state(task, "done");
    let runs = spans.named("process flaky", 2);
    let [first, second] = &runs[..] else { panic!("{runs:#?}") };
    assert_eq!(first.span_context.trace_id().to_string(), TRACE_ID);
    assert_eq!(first.status, Status::error("no route"));
    assert_eq!(first.events[0].attributes[0].value.as_str(), "no route\nto host");
    assert_ne!(second.span_context.trace_id(), first.span_context.trace_id());
    assert_eq!((second.parent_span_id, linked(second)), (SpanId::INVALID, vec![ORIGIN.to_owned()]));
    assert_eq!((attribute(second, "laneway.task.attempt"), &second.status), ("2".into(), &Status::Unset));
    assert_eq!(second.links[0].attributes[0].value.to_string(), "2");
}

#[test]
fn a_submit_from_within_a_span_and_what_its_run_spawns_are_one_trace() {
    // Proves request, submit, run, spawned task and its run as one chain, with the column saying at each step what is carried; and
    // that a task with a trace of its own keeps it.
    let spans = Spans::kept();
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let _working = Working::start(broker.endpoint(), |builder| {
        builder
            .handle("parent", |(): (), ctx: &Context| {
                ctx.spawn(Task::new("child"))?;
                global::tracer("app").in_span("inner parent", |_| ctx.spawn(Task::new("inner-child")))?;
                // A thread that knows nothing of the span.
                let other = thread::scope(|scope| scope.spawn(|| ctx.spawn(Task::new("other-child"))).join());
                other.unwrap()?;
                ctx.spawn(Task::new("own-child").trace(ORIGIN)).map(drop)
            })
            .handle("child", |(): (), _: &Context| Ok::<_, Failure>(()))
    });
    let client = broker.client();
    let stored =
        global::tracer("app").in_span("request", |_| client.submit_and_wait(Task::new("parent")).unwrap()).task;
    let column = |kind: &str| table.one::<String>("SELECT trace FROM tasks WHERE kind = ?1", [kind]);
    let (request, sent, run) = (spans.one("request"), spans.one("send parent"), spans.one("process parent"));
    let child = spans.one("process child");
    for (of, parent) in [(&sent, &request), (&run, &sent), (&child, &run)] {
        assert_eq!(of.parent_span_id, parent.span_context.span_id(), "{of:#?}");
        assert_eq!(of.span_context.trace_id(), request.span_context.trace_id());
    }
    assert_eq!(attribute(&sent, "messaging.message.id"), stored.to_string());
    assert_eq!((column("parent"), column("child")), (traceparent(&sent.span_context), traceparent(&run.span_context)));
    assert_eq!(column("inner-child"), traceparent(&spans.one("inner parent").span_context));
    assert_eq!((column("other-child"), column("own-child")), (traceparent(&run.span_context), ORIGIN.to_owned()));
}

#[test]
fn any_program_finds_its_trace_in_its_environment() {
    // Proves the variables that `laneway work` sets, that those of the worker itself are no task's, and that nothing which an app can
    // write into the column keeps the program from being started.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let table = Table::open(&place);
    let path = place.path("handler.sh");
    std::fs::write(&path, "#!/bin/sh\necho \"$TRACEPARENT|$TRACESTATE|${LANEWAY_TRACE-none}\"\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
    command.args(["work", "job", "--result", "text", "--endpoint", &place.endpoint(), "--"]).arg(&path);
    command
        .env("TRACEPARENT", ORIGIN.replace("4bf9", "aaaa"))
        .env("TRACESTATE", "worker=1")
        .env("LANEWAY_TRACE", "old");
    let _work = Program::start_with(&mut command);
    let with_state = format!("{ORIGIN}\nrojo=1, congo=2");
    for (trace, says) in [
        (Some(ORIGIN), format!("{ORIGIN}||{ORIGIN}")),
        (Some(with_state.as_str()), format!("{ORIGIN}|rojo=1,congo=2|{with_state}")),
        (Some("b3=1"), "||b3=1".into()),
        (Some("a\0b"), "||none".into()),
        (None, "||none".into()),
    ] {
        table.execute("INSERT INTO tasks(kind, trace) VALUES ('job', ?1)", [trace]);
        let task = table.0.last_insert_rowid();
        table.wait_for_state(task, "done");
        assert_eq!(table.column::<String>(task, "result"), json!(says).to_string());
    }
}

#[test]
fn the_command_line_submits_and_shows_a_trace() {
    // Proves --trace, that a surrounding trace of the environment is taken where it is valid, and that `task show` tells it.
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    let endpoint = ("LANEWAY_ENDPOINT", broker.endpoint());
    let other = ORIGIN.replace("4bf9", "aaaa");
    let said = |environment: &[(&str, &str)], words: &[&str]| {
        let environment = [&[endpoint], environment].concat();
        Said::by(&place, &environment, &[&["submit", "job", "-o", "json"], words].concat())
    };
    let trace = |said: Said| {
        said.is(0, "");
        table.column::<Option<String>>(said.json()[0]["task"].as_i64().unwrap(), "trace")
    };
    let around = [("TRACEPARENT", other.as_str()), ("TRACESTATE", "rojo=1")];
    assert_eq!(trace(said(&around, &["--trace", ORIGIN])).as_deref(), Some(ORIGIN));
    assert_eq!(trace(said(&around, &[])), Some(format!("{other} rojo=1")));
    assert_eq!(trace(said(&[("TRACEPARENT", "00-what")], &[])), None);
    said(&[], &["--trace", &ORIGIN.to_uppercase()]).is(2, "must be a traceparent, as in 00-4bf9");
    let shown = Said::by(&place, &[endpoint], &["task", "show", "1"]);
    assert!(shown.out.contains(ORIGIN), "{}", shown.out);
}

#[test]
fn a_trace_comes_in_by_http_and_leads_out_by_a_link() {
    // Proves the header `traceparent` of a submit, that a task's own trace wins, and the id and the link on the task's page.
    let place = Place::new();
    let url = "web.trace_url=https://jaeger.example/trace/{trace_id}?ui=1";
    let broker = Broker::start_as(&place, &["--web", "127.0.0.1:0", "--set", url]);
    let http = Http::of(&broker);
    let traced = http.with("traceparent", ORIGIN).with("tracestate", "rojo=1");
    let own = ORIGIN.replace("4bf9", "aaaa");
    let many = json!({"tasks": [{"kind": "nobody"}, {"kind": "nobody", "trace": own}]});
    traced.post_json("/api/v1/tasks", &many).is(200);
    http.with("traceparent", &ORIGIN.to_uppercase()).post_json("/api/v1/tasks", &json!({"kind": "nobody"})).is(200);
    let trace = |task: i64| http.get(&format!("/api/v1/tasks/{task}")).is(200).json()["trace"].clone();
    assert_eq!((trace(1), trace(2), trace(3)), (json!(format!("{ORIGIN} rojo=1")), json!(own), json!(null)));

    let page = http.get("/tasks/1").is(200).body;
    let link = format!("href=\"https://jaeger.example/trace/{TRACE_ID}?ui=1\" rel=\"noreferrer\">{TRACE_ID}</a>");
    assert!(page.contains(&link) && page.contains("data-copy=\"trace\""), "{page}");
    assert!(!http.get("/tasks/3").is(200).body.contains("<dt>Trace</dt>"));
    Table::open(&place).execute("UPDATE tasks SET trace = '<i>odd' WHERE id = 3", []);
    assert!(http.get("/tasks/3").is(200).body.contains("<span id=\"trace\">&#60;i&#62;odd</span>"));
    assert_eq!(broker.stop(), 0);

    // What is no place for traces is told where it is said.
    let mut web = Command::new(env!("CARGO_BIN_EXE_laneway"));
    web.args(["web", "--listen", "127.0.0.1:0", "--trace-url", "https://jaeger.example/"]).current_dir(place.dir());
    let refused = web.output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("with {trace_id} in it"), "{said}");
    let set = "web.trace_url=javascript:alert({trace_id})";
    let refused = Said::by(&place, &[], &["broker", "--db", "x.db", "--check-config", "--set", set]);
    refused
        .is(7, "web.trace_url is \"javascript:alert({trace_id})\" (flag --set): must be an address of http or https");
}

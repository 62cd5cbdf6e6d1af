//! An app and a worker whose spans show on standard output: a submit and the run of its task are one trace. The first try fails; the
//! second is a trace of its own with a link to the first.
//!
//!     cargo run -p laneway-examples --example traces [ENDPOINT]      default: tcp://127.0.0.1:7733
//!
//! With the exporter of `opentelemetry-otlp` in place of this one they go to a collector or to Jaeger; nothing else changes.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::thread;
use std::time::Duration;

use laneway::{Client, Context, Failure, Task, Worker};
use opentelemetry::global;
use opentelemetry::trace::Tracer as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

/// Runs in the span `process welcome`; what it makes itself is a child of that.
#[expect(clippy::needless_pass_by_value, reason = "a handler is given its payload")]
fn welcome(name: String, ctx: &Context) -> Result<String, Failure> {
    if ctx.attempt() == 1 {
        return Err(Failure::retry_after(Duration::from_millis(100), "the printer is out of paper"));
    }
    Ok(global::tracer("printer").in_span("print", |_| format!("welcome, {name}")))
}

fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:7733".into());
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name("reception").build())
        .with_simple_exporter(opentelemetry_stdout::SpanExporter::default())
        .build();
    global::set_tracer_provider(provider.clone());

    let worker = Worker::builder(&endpoint).handle("welcome", welcome).build()?;
    let stopper = worker.stopper();
    let working = thread::spawn(move || worker.run());

    let client = Client::connect(endpoint)?;
    let submit = || client.submit_and_wait(Task::new("welcome").payload("ann"));
    let ended = global::tracer("reception").in_span("GET /welcome", |_| submit())?;
    println!("{}", ended.result::<String>()?);

    stopper.stop();
    working.join().map_err(|_| "the worker panicked")??;
    provider.shutdown()?;
    Ok(())
}

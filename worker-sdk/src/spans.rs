//! Spans of OpenTelemetry: one for each run of a handler and one for each submit, and the trace context that leads from the one to
//! the other. They go to the tracer provider that the program has set; while there is none, nobody hears of them.
//!
//! Without the feature `opentelemetry` the same names are empty (`off.rs`), so that nobody pays for what nobody looks at. The
//! worker, the handler's [`Context`](crate::Context) and the client call them.

#[cfg(feature = "opentelemetry")]
mod carried;
#[cfg(not(feature = "opentelemetry"))]
mod off;
#[cfg(feature = "opentelemetry")]
mod run;
#[cfg(feature = "opentelemetry")]
mod send;

#[cfg(not(feature = "opentelemetry"))]
pub(crate) use off::{Run, Runs, Sending};
#[cfg(feature = "opentelemetry")]
pub(crate) use {
    run::{Run, Runs},
    send::Sending,
};

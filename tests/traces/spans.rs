//! A tracer provider that keeps its spans, for a test to look at. There is one in a process: tests tell their spans apart by the
//! trace, the task or the kind.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use opentelemetry::global;
use opentelemetry::trace::SpanContext;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};

const DEADLINE: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, Default)]
pub(crate) struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Spans {
    /// The one of this process; sets it as the program's provider the first time.
    pub(crate) fn kept() -> &'static Self {
        static SPANS: OnceLock<Spans> = OnceLock::new();
        SPANS.get_or_init(|| {
            let spans = Self::default();
            global::set_tracer_provider(SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build());
            spans
        })
    }

    /// Waits until `n` spans with this name have ended, and gives them in the order in which they began.
    #[track_caller]
    pub(crate) fn named(&self, name: &str, n: usize) -> Vec<SpanData> {
        let until = Instant::now() + DEADLINE;
        loop {
            let mut found: Vec<SpanData> =
                self.0.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect();
            if found.len() >= n {
                assert_eq!(found.len(), n, "{found:#?}");
                found.sort_by_key(|span| span.start_time);
                return found;
            }
            assert!(Instant::now() < until, "waited in vain for {n} spans '{name}': {found:#?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> SpanData {
        self.named(name, 1).remove(0)
    }
}

/// An attribute as text; empty when the span does not have it.
pub(crate) fn attribute(span: &SpanData, name: &str) -> String {
    let found = span.attributes.iter().find(|pair| pair.key.as_str() == name);
    found.map(|pair| pair.value.to_string()).unwrap_or_default()
}

/// As the column `trace` has it, without a state.
pub(crate) fn traceparent(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8())
}

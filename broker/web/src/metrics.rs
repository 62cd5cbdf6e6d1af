//! For programs that watch: health, metrics in the Prometheus text, and plain columns for awk.
//!
//! Names, units and labels follow the conventions of Prometheus; a lane, a kind or a state is a label, an id never is.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::app::Shared;
use crate::failure::Failure;
use crate::limits::{METRIC_KINDS_MAX, UNSEEN_TIME};
use crate::rows::schema;
use crate::snapshot::{Facts, Snapshot};
use crate::time::{now_ms, span};

/// A broker that has not answered for so long is not alive to those who look through this dashboard: 5 s longer than between two
/// questions while nobody looks, so that a moment in which it takes its time is none in which it is started anew.
const ANSWER_TIME: Duration = UNSEEN_TIME.saturating_add(Duration::from_secs(5));

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>;

fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.into()).into_response()
}

/// The web thread turns, as it says this, and the broker answered a moment ago.
pub(crate) async fn livez(State(app): State<Shared>) -> Response {
    let snapshot = app.live.look().await;
    match snapshot.answered {
        Some(at) if at.elapsed() < ANSWER_TIME => plain(StatusCode::OK, "ok\n"),
        _ => plain(StatusCode::SERVICE_UNAVAILABLE, "the broker does not answer\n"),
    }
}

/// The broker takes work, does not send its workers away, and the table is the one that this program knows. A broker that was told
/// to be quiet is ready: whoever submits is served, and who told it knows.
pub(crate) async fn readyz(State(app): State<Shared>) -> Response {
    let snapshot = app.live.look().await;
    let why = match &snapshot.facts {
        None => Some("the broker does not answer".into()),
        Some(facts) if facts.stats.storage_error.is_some() => Some("the store refuses work".into()),
        Some(facts) if facts.stats.draining => Some("the broker drains".into()),
        Some(_) => wrong_schema(&app).await,
    };
    match why {
        Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        None => plain(StatusCode::OK, "ok\n"),
    }
}

/// Another program, newer or older, has made the table. Tells nothing of where it lies: everybody may ask.
async fn wrong_schema(app: &Shared) -> Option<String> {
    let known = app.settings.schema_known?;
    match app.rows.ask(schema).await {
        Ok(found) if found == known => None,
        Ok(found) => {
            let than = if found > known { "newer" } else { "older" };
            Some(format!("the database has schema {found}, {than} than {known}, which this program knows"))
        }
        // So many look that this look was shed, which says nothing of the table.
        Err(failure) if failure.code == Failure::busy().code => None,
        Err(_) => Some("the database cannot be read".into()),
    }
}

pub(crate) async fn metrics(State(app): State<Shared>) -> Result<Response, Failure> {
    let snapshot = app.live.look().await;
    let text = text(&snapshot, (app.streams_open(), app.observers_open()), app.requests())
        .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics", error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn text(snapshot: &Snapshot, (streams, observers): (usize, usize), requests: u64) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("laneway");
    let up = if snapshot.facts.is_some() { 1.0 } else { 0.0 };
    gauge(&mut registry, "up", "Whether the broker answers", None, up);
    gauge(&mut registry, "web_streams", "Tabs that look at live updates", None, float(streams as u64));
    gauge(&mut registry, "web_observers", "Streams of observer links", None, float(observers as u64));
    counter(&mut registry, "web_requests", "Requests to this dashboard", requests);
    if let Some(facts) = &snapshot.facts {
        broker(&mut registry, facts);
        lanes(&mut registry, facts);
        kinds(&mut registry, facts);
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn gauge(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, value: f64) {
    let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    gauge.set(value);
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, gauge),
        None => registry.register(name, help, gauge),
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn family(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>) -> Gauges {
    let family = Gauges::default();
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, family.clone()),
        None => registry.register(name, help, family.clone()),
    }
    family
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn float(n: u64) -> f64 {
    n as f64
}

fn broker(registry: &mut Registry, facts: &Facts) {
    let stats = &facts.stats;
    for (name, help, value) in [
        ("tasks_submitted", "New tasks since the broker's start", stats.submitted),
        ("tasks_handed_out", "Runs that were handed to a worker since the broker's start", stats.handed_out),
        ("tasks_done", "Tasks that ended as done since the broker's start", stats.done),
        ("tasks_failed", "Runs that failed since the broker's start", stats.failed),
        ("tasks_lost", "Runs whose worker died since the broker's start", stats.lost),
        ("tasks_released", "Runs that were handed back since the broker's start", stats.released),
        ("tasks_cancelled", "Tasks that ended as cancelled since the broker's start", stats.cancelled),
        ("workers_lost", "Worker processes that died since the broker's start", stats.workers_lost),
        ("bad_messages", "Messages that were refused since the broker's start", stats.bad_messages),
    ] {
        counter(registry, name, help, value);
    }
    let is = |is_so: bool| if is_so { 1.0 } else { 0.0 };
    for (name, help, value) in [
        ("tasks_dead", "Dead tasks in the table", float(stats.dead)),
        ("workers", "Worker processes that are connected", float(stats.workers)),
        (
            "workers_away",
            "Worker processes whose connections are gone",
            float(facts.workers.iter().filter(|w| w.away).count() as u64),
        ),
        ("slots", "Slots of all workers", float(facts.slots())),
        ("slots_busy", "Slots that run a task", float(facts.busy())),
        ("draining", "Whether the broker drains", is(stats.draining)),
        ("quiet", "Whether a signal has told the broker to hand nothing out", is(stats.quiet)),
        ("storage_error", "Whether the store refuses work", is(stats.storage_error.is_some())),
    ] {
        gauge(registry, name, help, None, value);
    }
    for (name, help, value) in [
        ("database", "Size of the database file", facts.database_bytes),
        ("wal", "Size of the write-ahead log", stats.wal_bytes),
        ("wal_pinned", "Size of a write-ahead log that cannot shrink", stats.wal_pinned_bytes),
    ] {
        gauge(registry, name, help, Some(Unit::Bytes), float(value));
    }
    let commit = family(registry, "commit_duration", "Of the last synced commits", Some(Unit::Seconds));
    // Labelled as a summary is, which the library has no type for.
    for (quantile, us) in [("0.5", stats.commit_p50_us), ("0.99", stats.commit_p99_us)] {
        commit.get_or_create(&vec![("quantile", quantile.to_owned())]).set(float(us) / 1e6);
    }
    gauge(registry, "uptime", "Since the broker's start", Some(Unit::Seconds), float(stats.uptime_ms) / 1e3);
}

fn lanes(registry: &mut Registry, facts: &Facts) {
    let queued = family(registry, "tasks_queued", "Queued tasks of each lane, those for later included", None);
    let running = family(registry, "tasks_running", "Running tasks of each lane", None);
    let paused = family(registry, "lane_paused", "Whether the lane hands nothing out", None);
    let oldest = family(registry, "oldest_due_age", "How long the oldest due task has waited", Some(Unit::Seconds));
    for lane in &facts.lanes {
        let labels = vec![("lane", lane.lane.clone())];
        queued.get_or_create(&labels).set(float(lane.queued));
        running.get_or_create(&labels).set(float(lane.running));
        paused.get_or_create(&labels).set(if lane.paused { 1.0 } else { 0.0 });
        let since = facts.oldest.since(&lane.lane);
        let age = since.map_or(0, |since| u64::try_from(now_ms() - since).unwrap_or(0));
        oldest.get_or_create(&labels).set(float(age) / 1e3);
    }
}

/// At most [`METRIC_KINDS_MAX`]: those with the most to do by name, the others as one.
fn kinds(registry: &mut Registry, facts: &Facts) {
    let queued = family(registry, "kind_tasks_queued", "Queued tasks of each kind", None);
    let workers = family(registry, "kind_workers", "Workers that offer each kind", None);
    let mut kinds: Vec<_> = facts.kinds.iter().collect();
    kinds.sort_by(|a, b| (b.queued, &a.kind).cmp(&(a.queued, &b.kind)));
    let (named, others) = kinds.split_at(kinds.len().min(METRIC_KINDS_MAX));
    for kind in named {
        let labels = vec![("kind", kind.kind.to_string())];
        queued.get_or_create(&labels).set(float(kind.queued));
        workers.get_or_create(&labels).set(float(kind.workers));
    }
    if !others.is_empty() {
        let rest = others.iter().map(|kind| kind.queued).sum();
        queued.get_or_create(&vec![("kind", "(others)".to_owned())]).set(float(rest));
    }
}

/// One thing a line, the first word says what.
pub(crate) async fn status(State(app): State<Shared>) -> Response {
    let snapshot = app.live.look().await;
    let Some(facts) = &snapshot.facts else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "broker away\n");
    };
    plain(StatusCode::OK, columns(facts, &snapshot).join("\n") + "\n")
}

fn columns(facts: &Facts, snapshot: &Snapshot) -> Vec<String> {
    let stats = &facts.stats;
    let uptime = span(i64::try_from(stats.uptime_ms).unwrap_or(i64::MAX)).replace(' ', "");
    let storage = if stats.storage_error.is_some() { "refuses" } else { "ok" };
    let mut lines = vec![
        format!("broker up version {} epoch {} uptime {uptime}", stats.version, stats.epoch),
        format!(
            "tasks queued {} running {} dead {} done {} failed {}",
            stats.queued, stats.running, stats.dead, stats.done, stats.failed
        ),
        format!("slots busy {} of {} workers {}", facts.busy(), facts.slots(), stats.workers),
        format!(
            "store database_bytes {} wal_bytes {} commit_p99_us {} {storage}",
            facts.database_bytes, stats.wal_bytes, stats.commit_p99_us
        ),
    ];
    lines.extend(facts.lanes.iter().map(|lane| {
        let age = facts.oldest.since(&lane.lane).map_or(0, |since| (now_ms() - since) / 1_000);
        let paused = if lane.paused { "paused" } else { "open" };
        format!("lane {} queued {} running {} oldest_s {age} {paused}", lane.lane, lane.queued, lane.running)
    }));
    let notice = |notice: &crate::snapshot::Notice| format!("notice {} {}", notice.level.word(), notice.text);
    lines.extend(snapshot.notices.iter().map(notice));
    lines
}

#[cfg(test)]
mod tests {
    use laneway_protocol::message::LaneRow;

    use super::*;
    use crate::snapshot::tests::kind;

    #[test]
    fn every_metric_stands_in_the_guide() {
        // Proves that the table of docs/dashboard.md leaves none out, and that the text is what collectors read.
        let lanes = vec![LaneRow { queued: 3, ..LaneRow::new("high".into()) }];
        let facts = Facts { lanes, kinds: vec![kind("mail", 3, 0)], ..Facts::default() };
        let text = text(&Snapshot::of(facts, &std::collections::VecDeque::new()), (1, 0), 2).unwrap();
        assert!(text.contains("laneway_commit_duration_seconds{quantile=\"0.99\"} 0.0"), "{text}");
        assert!(text.contains("laneway_tasks_queued{lane=\"high\"} 3") && text.ends_with("# EOF\n"), "{text}");
        let guide = include_str!("../../../docs/dashboard.md");
        for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
            // Of the counters of tasks the guide names the first in full.
            let short = name.trim_start_matches("laneway_tasks");
            assert!(guide.contains(&format!("`{name}")) || guide.contains(&format!("`{short}_total`")), "{name}");
        }
    }

    #[test]
    fn kinds_are_bounded() {
        // Proves that an app with a kind for each customer makes one series for all beyond the bound.
        let names = 0..METRIC_KINDS_MAX + 5;
        let kinds = names.map(|n| kind(&format!("k{n}"), 1, 0)).collect();
        let facts = Facts { kinds, ..Facts::default() };
        let text = text(&Snapshot::of(facts, &std::collections::VecDeque::new()), (0, 0), 0).unwrap();
        assert_eq!(text.matches("laneway_kind_tasks_queued{").count(), METRIC_KINDS_MAX + 1);
        assert!(text.contains("kind=\"(others)\"} 5"));
    }
}

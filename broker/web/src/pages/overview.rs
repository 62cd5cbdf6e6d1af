//! Overview: what wants attention, the numbers of the whole broker, and each lane.

use askama::Template;

use super::{Frame, Part, Shown, Visit, bar, html, oldest, page, rate, spark};
use crate::snapshot::{Facts, Notice, Snapshot};
use crate::time::{At, bytes, grouped, micros, now_ms};

/// Kinds that are shown; the page of lanes has more.
const KINDS_SHOWN: usize = 12;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    attention: String,
    totals: String,
    lanes: String,
    kinds: String,
    system: String,
    /// History of rates for the chart, as JSON.
    rates: String,
}

pub(crate) async fn show(visit: Visit) -> Shown {
    let snapshot = visit.app.live.glance().await;
    let mut parts = parts(&snapshot, &visit.app.settings.base_path).into_iter().map(|part| part.html);
    let mut next = || parts.next().unwrap_or_default();
    let rates = serde_json::to_string(&snapshot.rates).unwrap_or_default();
    page(&OverviewPage {
        attention: next(),
        totals: next(),
        lanes: next(),
        kinds: next(),
        system: next(),
        rates,
        frame: visit.frame("overview", "Overview").live("overview"),
    })
}

pub(super) fn parts(snapshot: &Snapshot, base: &str) -> Vec<Part> {
    let attention = AttentionPart { base, notices: &snapshot.notices };
    let facts = snapshot.facts.as_ref();
    vec![
        Part::new("p-attention", &attention),
        Part::new("p-totals", &TotalsPart::of(snapshot, base)),
        Part::new("p-lanes", &LanesPart { base, lanes: facts.map_or_else(Vec::new, |facts| lanes(facts, snapshot)) }),
        Part::new("p-kinds", &KindsPart { base, kinds: facts.map_or_else(Vec::new, kinds) }),
        Part::new("p-system", &SystemPart::of(snapshot)),
    ]
}

#[derive(Template)]
#[template(path = "part_attention.html")]
pub(super) struct AttentionPart<'a> {
    pub(super) base: &'a str,
    pub(super) notices: &'a [Notice],
}

/// Only that the broker does not answer, for pages that have no strip of their own.
pub(super) fn trouble(snapshot: &Snapshot, base: &str) -> String {
    if snapshot.facts.is_some() || !snapshot.is_taken {
        return String::new();
    }
    html(&AttentionPart { base, notices: &snapshot.notices })
}

#[derive(Template)]
#[template(path = "part_totals.html")]
struct TotalsPart<'a> {
    base: &'a str,
    is_there: bool,
    queued: String,
    running: String,
    slots: String,
    slots_bar: String,
    done_rate: String,
    done: String,
    failed_rate: String,
    failed: String,
    is_failing: bool,
    dead: String,
    dead_n: u64,
    p50: String,
    p99: String,
}

impl<'a> TotalsPart<'a> {
    fn of(snapshot: &Snapshot, base: &'a str) -> Self {
        let nothing = Facts::default();
        let facts = snapshot.facts.as_ref().unwrap_or(&nothing);
        let (stats, now) = (&facts.stats, snapshot.rate_now());
        let (busy, slots) = (facts.busy(), facts.slots());
        Self {
            base,
            is_there: snapshot.facts.is_some(),
            queued: grouped(stats.queued),
            running: grouped(stats.running),
            slots: format!("{} of {} slots busy", grouped(busy), grouped(slots)),
            slots_bar: bar(busy, slots, "s-running"),
            done_rate: rate(now.done),
            done: grouped(stats.done),
            failed_rate: rate(now.failed),
            failed: grouped(stats.failed),
            is_failing: now.failed >= 0.05,
            dead: grouped(stats.dead),
            dead_n: stats.dead,
            p50: micros(stats.commit_p50_us),
            p99: micros(stats.commit_p99_us),
        }
    }
}

#[derive(Template)]
#[template(path = "part_lanes.html")]
struct LanesPart<'a> {
    base: &'a str,
    lanes: Vec<Lane>,
}

struct Lane {
    name: String,
    is_paused: bool,
    is_configured: bool,
    queued: String,
    running: String,
    ready: String,
    oldest: String,
    is_old: bool,
    bounds: String,
    spark: String,
    rate: String,
}

fn lanes(facts: &Facts, snapshot: &Snapshot) -> Vec<Lane> {
    let lane = |lane: &laneway_protocol::message::LaneRow| {
        let age = facts.oldest.since(&lane.lane).map(|since| now_ms() - since);
        let bounds = [
            lane.share.map(|share| format!("share {share} %")),
            lane.cap.map(|cap| format!("cap {cap}")),
            lane.rate.map(|rate| format!("rate {rate}")),
        ];
        Lane {
            name: lane.lane.clone(),
            is_paused: lane.paused,
            is_configured: lane.configured,
            queued: grouped(lane.queued),
            running: grouped(lane.running),
            ready: grouped(lane.ready),
            oldest: oldest(facts, &lane.lane),
            is_old: age.is_some_and(|age| age > 60_000),
            bounds: bounds.into_iter().flatten().collect::<Vec<_>>().join(", "),
            spark: snapshot.paces.get(&lane.lane).map_or_else(String::new, |points| spark(points)),
            rate: snapshot.lane_rates.get(&lane.lane).map_or_else(String::new, |per_second| rate(*per_second)),
        }
    };
    facts.lanes.iter().map(lane).collect()
}

#[derive(Template)]
#[template(path = "part_kinds.html")]
struct KindsPart<'a> {
    base: &'a str,
    kinds: Vec<Kind>,
}

struct Kind {
    name: String,
    queued: String,
    running: String,
    workers: u64,
    is_stuck: bool,
    is_paused: bool,
}

fn kinds(facts: &Facts) -> Vec<Kind> {
    let mut kinds: Vec<_> = facts.kinds.iter().collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse((kind.queued + kind.running, kind.workers)));
    let kind = |kind: &laneway_protocol::message::KindState| Kind {
        name: kind.kind.to_string(),
        queued: grouped(kind.queued),
        running: grouped(kind.running),
        workers: kind.workers,
        is_stuck: kind.queued > 0 && kind.workers == 0,
        is_paused: kind.paused,
    };
    kinds.into_iter().take(KINDS_SHOWN).map(kind).collect()
}

#[derive(Template)]
#[template(path = "part_system.html")]
struct SystemPart {
    is_there: bool,
    database: String,
    wal: String,
    is_pinned: bool,
    workers: String,
    submitted: String,
    lost: String,
    version: String,
    epoch: u64,
    since: String,
}

impl SystemPart {
    fn of(snapshot: &Snapshot) -> Self {
        let nothing = Facts::default();
        let facts = snapshot.facts.as_ref().unwrap_or(&nothing);
        let stats = &facts.stats;
        let started = snapshot.at - i64::try_from(stats.uptime_ms).unwrap_or(0);
        Self {
            is_there: snapshot.facts.is_some(),
            database: bytes(snapshot.database_bytes),
            wal: bytes(stats.wal_bytes),
            is_pinned: stats.wal_pinned_bytes > 0,
            workers: grouped(stats.workers),
            submitted: grouped(stats.submitted),
            lost: grouped(stats.lost),
            version: stats.version.clone(),
            epoch: stats.epoch,
            // To the second, so that the part does not change with every look.
            since: At(started / 10_000 * 10_000).html(),
        }
    }
}

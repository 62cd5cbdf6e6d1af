//! Lanes and kinds: what waits in each, and pause, resume, share, cap and rate.

use askama::Template;
use laneway::{Kind, LaneName};
use laneway_protocol::message::{KindState, KindValues, Kinds, LaneValues, Lanes, SetKind, SetLane};

use super::overview::trouble;
use super::{Frame, Part, Shown, Visit, oldest, page, spark};
use crate::failure::Failure;
use crate::limits::KINDS_SHOWN;
use crate::request::{Fields, Form, Query};
use crate::snapshot::{Facts, Snapshot, encode};
use crate::time::{grouped, span};

#[derive(Template)]
#[template(path = "lanes.html")]
struct LanesPage {
    frame: Frame,
    trouble: String,
    table: String,
    kinds: String,
    /// What the names of the kinds shown have in them.
    find: String,
}

pub(crate) async fn show(visit: Visit, Query(fields): Query) -> Shown {
    let snapshot = visit.app.live.glance().await;
    let live = address(&fields);
    let frame = visit.frame("lanes", "Lanes and kinds").live(live.trim_start_matches('/'));
    let mut parts = parts(&snapshot, &frame.base, &fields, frame.may_change).into_iter().map(|part| part.html);
    let (trouble, table, kinds) = (trouble(&snapshot, &frame.base), parts.next(), parts.next());
    let find = find(&fields).to_owned();
    page(&LanesPage { trouble, table: table.unwrap_or_default(), kinds: kinds.unwrap_or_default(), find, frame })
}

fn find(fields: &Fields) -> &str {
    fields.text("find").unwrap_or_default()
}

/// Of this page, with the kinds that are looked for.
fn address(fields: &Fields) -> String {
    match find(fields) {
        "" => "/lanes".into(),
        find => format!("/lanes?find={}", encode(find)),
    }
}

/// Kinds whose names have this text, those with the most to do first; and how many there are.
fn busiest<'a>(facts: &'a Facts, find: &str) -> (Vec<&'a KindState>, usize) {
    let mut kinds: Vec<_> = facts.kinds.iter().filter(|kind| kind.kind.as_str().contains(find)).collect();
    let n = kinds.len();
    if n > KINDS_SHOWN {
        kinds.sort_by_key(|kind| std::cmp::Reverse((kind.queued + kind.running, kind.workers)));
        kinds.truncate(KINDS_SHOWN);
    }
    (kinds, n)
}

pub(super) fn parts(snapshot: &Snapshot, base: &str, fields: &Fields, may_change: bool) -> Vec<Part> {
    let nothing = Facts::default();
    let facts = snapshot.facts.as_ref().unwrap_or(&nothing);
    let lane = |lane: &laneway_protocol::message::LaneRow| LaneRow {
        name: lane.lane.clone(),
        is_paused: lane.paused,
        is_configured: lane.configured,
        queued: grouped(lane.queued),
        running: grouped(lane.running),
        ready: grouped(lane.ready),
        oldest: oldest(facts, &lane.lane),
        share: lane.share.map_or_else(String::new, |share| share.to_string()),
        one_of: lane.one_of,
        cap: lane.cap.map_or_else(String::new, |cap| cap.to_string()),
        rate: lane.rate.map_or_else(String::new, |rate| rate.to_string()),
        spark: snapshot.paces.get(&lane.lane).map_or_else(String::new, |points| spark(points)),
    };
    let kind = |kind: &KindState| KindRow {
        name: kind.kind.to_string(),
        lane: kind.lane.to_string(),
        is_paused: kind.paused,
        queued: grouped(kind.queued),
        running: grouped(kind.running),
        workers: kind.workers,
        is_stuck: kind.queued > 0 && kind.workers == 0,
        cap: kind.cap.map_or_else(String::new, |cap| cap.to_string()),
        rate: kind.rate.map_or_else(String::new, |rate| rate.to_string()),
        max_attempts: kind.max_attempts,
        timeout: span(i64::try_from(kind.timeout_ms).unwrap_or(i64::MAX)),
    };
    let lanes = facts.lanes.iter().map(lane).collect();
    let find = find(fields);
    let (kinds, n) = busiest(facts, find);
    let more = if n > kinds.len() { format!("{} of {}", kinds.len(), grouped(n as u64)) } else { String::new() };
    let kinds = kinds.into_iter().map(kind).collect();
    vec![
        Part::new("p-lane-table", &LaneTable { base, may_change, lanes }),
        Part::new("p-kind-table", &KindTable { base, may_change, find, more, kinds }),
    ]
}

#[derive(Template)]
#[template(path = "part_lane_table.html")]
struct LaneTable<'a> {
    base: &'a str,
    may_change: bool,
    lanes: Vec<LaneRow>,
}

struct LaneRow {
    name: String,
    is_paused: bool,
    is_configured: bool,
    queued: String,
    running: String,
    ready: String,
    oldest: String,
    share: String,
    one_of: Option<u32>,
    cap: String,
    rate: String,
    spark: String,
}

#[derive(Template)]
#[template(path = "part_kind_table.html")]
struct KindTable<'a> {
    base: &'a str,
    may_change: bool,
    find: &'a str,
    /// How many of how many, where that is not all.
    more: String,
    kinds: Vec<KindRow>,
}

struct KindRow {
    name: String,
    lane: String,
    is_paused: bool,
    queued: String,
    running: String,
    workers: u64,
    is_stuck: bool,
    cap: String,
    rate: String,
    max_attempts: u32,
    timeout: String,
}

pub(crate) async fn change(visit: Visit, Form(fields): Form) -> Shown {
    let question = lane_question(&fields)?;
    visit.app.live.change(move |client| client.change_lanes(question)).await?;
    Ok(visit.to("/lanes"))
}

fn lane_question(fields: &Fields) -> Result<Lanes, Failure> {
    let lane = fields.text("lane").unwrap_or_default();
    let lane = LaneName::new(lane).map_err(|error| Failure::bad("lane", error.to_string()))?;
    Ok(match fields.text("change") {
        Some("pause") => Lanes { pause: vec![lane], ..Lanes::default() },
        Some("resume") => Lanes { resume: vec![lane], ..Lanes::default() },
        Some("reset") => Lanes { reset: vec![lane], ..Lanes::default() },
        Some("set") => {
            let values = LaneValues {
                share: small(fields, "share")?.or(Some(0)),
                cap: small(fields, "cap")?.or(Some(0)),
                rate: Some(rate(fields)?.unwrap_or(laneway_protocol::Rate::NONE)),
                rate_burst: None,
            };
            Lanes { set: vec![SetLane { lane, values }], ..Lanes::default() }
        }
        other => return Err(unknown(other)),
    })
}

pub(crate) async fn change_kind(visit: Visit, Form(fields): Form) -> Shown {
    let kind = fields.text("kind").unwrap_or_default();
    let kind = Kind::new(kind).map_err(|error| Failure::bad("kind", error.to_string()))?;
    let question = match fields.text("change") {
        Some("pause") => Kinds { pause: vec![kind], ..Kinds::default() },
        Some("resume") => Kinds { resume: vec![kind], ..Kinds::default() },
        Some("reset") => Kinds { reset: vec![kind], ..Kinds::default() },
        Some("set") => {
            let values = KindValues {
                cap: small(&fields, "cap")?.or(Some(0)),
                rate: Some(rate(&fields)?.unwrap_or(laneway_protocol::Rate::NONE)),
                ..KindValues::default()
            };
            Kinds { set: vec![SetKind { kind, values }], ..Kinds::default() }
        }
        other => return Err(unknown(other)),
    };
    visit.app.live.change(move |client| client.change_kinds(question)).await?;
    Ok(visit.to(&address(&fields)))
}

fn unknown(change: Option<&str>) -> Failure {
    Failure::bad("change", format!("'{}' must be pause, resume, reset or set", change.unwrap_or_default()))
}

fn small(fields: &Fields, name: &str) -> Result<Option<u32>, Failure> {
    let out_of_range = |_| Failure::bad(name, "is out of range");
    fields.number(name)?.map(|n| u32::try_from(n).map_err(out_of_range)).transpose()
}

fn rate(fields: &Fields) -> Result<Option<laneway_protocol::Rate>, Failure> {
    let wrong = |error: laneway_protocol::InvalidName| Failure::bad("rate", error.to_string());
    fields.text("rate").map(|text| text.parse().map_err(wrong)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::kind;

    #[test]
    fn the_busiest_kinds_are_shown_and_the_others_found_by_name() {
        // Proves the bound of the page, that what waits comes first, and that few kinds stay in the order of their names.
        let mut facts = Facts { kinds: (0..5).map(|n| kind(&format!("k{n}"), n, 0)).collect(), ..Facts::default() };
        let names = |facts: &Facts, find: &str| -> Vec<String> {
            busiest(facts, find).0.iter().map(|kind| kind.kind.to_string()).collect()
        };
        assert_eq!(names(&facts, ""), ["k0", "k1", "k2", "k3", "k4"]);
        assert_eq!(names(&facts, "3"), ["k3"]);
        let many = (0..KINDS_SHOWN as u64 + 50).map(|n| kind(&format!("many{n}"), n, 0));
        facts.kinds.extend(many);
        assert_eq!((names(&facts, "").len(), names(&facts, "many")[0].as_str()), (KINDS_SHOWN, "many149"));
        let facts = Facts { kinds: facts.kinds, ..Facts::default() };
        let snapshot = Snapshot::of(facts, &std::collections::VecDeque::new());
        let html = |query: &str| parts(&snapshot, "", &Fields::parse(query.as_bytes()), true).remove(1).html;
        assert!(html("").contains("100 of 155 kinds") && !html("find=k").contains("those with the most"));
        assert!(html("find=none").contains("No kind has none in its name"));
    }
}

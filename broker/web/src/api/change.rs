//! What can be changed: tasks by id or by filter, lanes, kinds, workers, groups and schedules.

use laneway::{Drain, Kind, LaneName};
use laneway_protocol::message::{BulkFilter, KindValues, Kinds, LaneValues, Lanes, SetKind, SetLane};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answered, answer};
use crate::failure::Failure;
use crate::filter::Filter;
use crate::json::{strict, take};
use crate::pages::Visit;
use crate::pages::change::{apply, change, lane as lane_of, task_id};
use crate::pages::change_all::meant;
use crate::pages::schedules;
use crate::pages::tasks::connected;
use crate::request::{Json, Path};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskChange {
    /// Of a move.
    lane: Option<String>,
}

pub(crate) async fn task(
    visit: Visit,
    Path((id, word)): Path<(i64, String)>,
    Json(body): Json<TaskChange>,
) -> Answered {
    let (task, change) = (task_id(id)?, change(&word)?);
    let lane = lane_of(change, body.lane.as_deref())?;
    let verdicts = visit.app.live.change(move |client| apply(client, change, lane.as_ref(), &[task])).await?;
    let verdict = verdicts.first().copied().unwrap_or(laneway::Verdict::NotFound);
    if verdict == laneway::Verdict::NotFound {
        return Err(Failure::not_found(format!("there is no task {id}")));
    }
    answer(&json!({ "task": id, "verdict": verdict }))
}

/// The filter language, or its fields one by one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkChange {
    change: String,
    lane: Option<String>,
    q: Option<String>,
    filter: Option<BulkFilter>,
    #[serde(default)]
    dry_run: bool,
}

pub(crate) async fn bulk(visit: Visit, Json(body): Json<BulkChange>) -> Answered {
    let change = change(&body.change)?;
    let lane = lane_of(change, body.lane.as_deref())?;
    let is_words = body.q.is_some();
    let filter = match (body.q, body.filter) {
        (Some(q), None) => {
            let workers = connected(&visit.app.live.last());
            let filter = Filter::parse(&q).and_then(|filter| meant(change, filter).to_bulk(&workers));
            let filter = filter.map_err(|wrong| Failure::bad("q", wrong.to_string()))?;
            if filter.is_open() {
                return Err(Failure::bad("q", "meets every task: say so with {\"filter\": {\"all\": true}}"));
            }
            filter
        }
        (None, Some(filter)) => filter,
        _ => return Err(Failure::bad("filter", "say which tasks, by q or by filter")),
    };
    let dry_run = body.dry_run;
    // The broker itself refuses a filter without a condition that does not say `all`.
    let batch = visit.app.live.ask(move |client| client.change_all(change, lane.as_ref(), filter, dry_run)).await;
    let of_words =
        |failure: Failure| failure.in_words(|field| if is_words && field.starts_with("filter") { "q" } else { field });
    answer(&batch.map_err(of_words)?)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchChange {
    #[serde(default)]
    stop: bool,
}

pub(crate) async fn stop_batch(visit: Visit, Path(n): Path<u64>, Json(body): Json<BatchChange>) -> Answered {
    let batch = visit.app.live.ask(move |client| client.batch(n, body.stop)).await;
    answer(&batch.map_err(|failure| failure.in_words(|_| "n"))?)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LaneChange {
    paused: Option<bool>,
    #[serde(default)]
    reset: bool,
    share: Option<u32>,
    cap: Option<u32>,
    rate: Option<laneway_protocol::Rate>,
    rate_burst: Option<u32>,
}

pub(crate) async fn lane(visit: Visit, Path(name): Path<String>, Json(body): Json<LaneChange>) -> Answered {
    let lane = LaneName::new(&name).map_err(|error| Failure::bad("name", error.to_string()))?;
    let one = |is_so: bool| if is_so { vec![lane.clone()] } else { Vec::new() };
    let values = LaneValues { cap: body.cap, rate: body.rate, rate_burst: body.rate_burst, share: body.share };
    let set = if values == LaneValues::default() { Vec::new() } else { vec![SetLane { lane: lane.clone(), values }] };
    let question = Lanes {
        pause: one(body.paused == Some(true)),
        resume: one(body.paused == Some(false)),
        reset: one(body.reset),
        set,
    };
    if question.changes_nothing() {
        return Err(Failure::bad("body", "changes nothing: say paused, share, cap, rate, rate_burst or reset"));
    }
    let rows = match visit.app.live.change(move |client| client.change_lanes(question)).await {
        Err(failure) if failure.code == "unknown_lane" => return Err(no_such_path(failure)),
        rows => rows.map_err(|failure| failure.in_words(of_values))?,
    };
    let row = rows.into_iter().find(|row| row.lane == name);
    answer(&row.ok_or_else(|| Failure::not_found(format!("there is no lane {name}")))?)
}

/// `paused`, `reset` and the values of a kind, in one object.
pub(crate) async fn kind(visit: Visit, Path(name): Path<String>, Json(mut body): Json<Map<String, Value>>) -> Answered {
    let kind = Kind::new(&name).map_err(|error| Failure::bad("name", error.to_string()))?;
    let one = |is_so: bool| if is_so { vec![kind.clone()] } else { Vec::new() };
    let (paused, reset) = (take::<bool>(&mut body, "paused")?, take::<bool>(&mut body, "reset")?);
    let values: KindValues = strict(Value::Object(body).to_string().as_bytes(), "body")?;
    let set = if values == KindValues::default() { Vec::new() } else { vec![SetKind { kind: kind.clone(), values }] };
    let question = Kinds {
        pause: one(paused == Some(true)),
        resume: one(paused == Some(false)),
        reset: one(reset == Some(true)),
        set,
        after: None,
    };
    if question.changes_nothing() {
        return Err(Failure::bad("body", "changes nothing: say paused, reset or a value"));
    }
    let rows = visit.app.live.change(move |client| client.change_kinds(question)).await;
    let rows = rows.map_err(|failure| failure.in_words(of_values))?;
    let row = rows.into_iter().find(|row| row.kind.as_str() == name);
    answer(&row.ok_or_else(|| Failure::not_found(format!("there is no kind {name}")))?)
}

/// The values of one lane or one kind, which here are the body. All of `set` is refused for the sum of the shares alone.
fn of_values(field: &str) -> &str {
    if field == "set" { "share" } else { field.strip_prefix("set[0].values.").unwrap_or(field) }
}

/// The broker refuses a name in a body; here it is the path that leads nowhere.
fn no_such_path(failure: Failure) -> Failure {
    Failure { field: Some("name".into()), next: failure.next, ..Failure::not_found(failure.message) }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainChange {
    #[serde(default)]
    release: bool,
    #[serde(default)]
    off: bool,
}

pub(crate) async fn drain(visit: Visit, Path(session): Path<String>, Json(body): Json<DrainChange>) -> Answered {
    drained(visit, body, Some(session)).await
}

pub(crate) async fn drain_all(visit: Visit, Json(body): Json<DrainChange>) -> Answered {
    drained(visit, body, None).await
}

async fn drained(visit: Visit, body: DrainChange, worker: Option<String>) -> Answered {
    let drain = Drain { release: body.release, off: body.off, worker };
    let told = visit.app.live.change(move |client| client.drain(drain)).await;
    let of_path = |failure: Failure| failure.in_words(|field| if field == "worker" { "session" } else { field });
    answer(&told.map_err(of_path)?)
}

pub(crate) async fn cancel_group(visit: Visit, Path(id): Path<u64>) -> Answered {
    answer(&visit.app.live.change(move |client| client.cancel_group(id)).await?)
}

pub(crate) async fn schedule(visit: Visit, Path((name, change)): Path<(String, String)>) -> Answered {
    let change = schedules::checked(&change)?;
    let asked = name.clone();
    let made = visit.app.live.change(move |client| schedules::apply(client, &asked, change)).await?;
    answer(&json!({ "schedule": name, "change": change, "made": made }))
}

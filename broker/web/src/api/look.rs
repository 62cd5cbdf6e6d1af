//! What can be asked: lanes, kinds, workers, tasks, batches, groups, schedules.

use std::time::Duration;

use laneway::Client;
use laneway_protocol::message::{ScheduleRow, Schedules};
use laneway_protocol::{Answer, Request};
use serde_json::{Value, json};

use super::{Answered, answer, object, task_json};
use crate::failure::Failure;
use crate::limits::{PAGE_ROWS, PAGE_ROWS_MAX};
use crate::pages::Visit;
use crate::pages::change::task_id;
use crate::pages::groups;
use crate::pages::tasks::{filter, query};
use crate::request::{Fields, Path, Query};
use crate::rows;
use crate::snapshot::Facts;

/// The last picture of the broker, or that there is none.
pub(super) async fn facts<T>(visit: &Visit, of: impl FnOnce(&Facts) -> T) -> Result<T, Failure> {
    let snapshot = visit.app.live.look().await;
    snapshot.facts.as_ref().map(of).ok_or_else(|| {
        let why = snapshot.trouble.clone().unwrap_or_else(|| "the broker did not answer in time".into());
        Failure::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "no_broker", why).next("ask again in a second")
    })
}

pub(crate) async fn lanes(visit: Visit) -> Answered {
    let lanes = facts(&visit, |facts| {
        let lane = |lane: &laneway_protocol::message::LaneRow| {
            let mut value = object(lane);
            if let Some(since) = facts.oldest.since(&lane.lane) {
                value.insert("oldest_due_at".into(), since.into());
            }
            value.insert("oldest_due_partial".into(), facts.oldest.is_partial(&lane.lane).into());
            Value::Object(value)
        };
        facts.lanes.iter().map(lane).collect::<Vec<_>>()
    });
    answer(&json!({ "lanes": lanes.await? }))
}

/// By name; the next page begins after the last name of this one.
pub(crate) async fn kinds(visit: Visit, Query(fields): Query) -> Answered {
    let limit = limit(&fields, PAGE_ROWS_MAX)?;
    let page = facts(&visit, |facts| {
        let (kinds, next) = behind(&facts.kinds, |kind| kind.kind.as_str(), &fields, limit);
        json!({ "kinds": kinds, "next": next })
    });
    answer(&page.await?)
}

/// The rows of a page in the order of their names, and what the next page begins after, if there is one.
fn behind<'a, T>(
    all: &'a [T],
    name: impl Fn(&T) -> &str,
    fields: &Fields,
    limit: usize,
) -> (Vec<&'a T>, Option<&'a str>) {
    let after = fields.text("after").unwrap_or_default();
    let mut rows: Vec<&T> = all.iter().filter(|row| name(row) > after).collect();
    rows.sort_by_key(|row| name(row));
    let is_cut = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| is_cut).map(|row| name(row));
    (rows, next)
}

/// How many rows a page of a list is to have.
fn limit(fields: &Fields, unless_said: usize) -> Result<usize, Failure> {
    let limit = fields.number("limit")?.map_or(Ok(unless_said), usize::try_from);
    let limit = limit.ok().filter(|n| (1..=PAGE_ROWS_MAX).contains(n));
    limit.ok_or_else(|| Failure::bad("limit", format!("must be 1 to {PAGE_ROWS_MAX}")))
}

/// By session, as kinds are by name.
pub(crate) async fn workers(visit: Visit, Query(fields): Query) -> Answered {
    let limit = limit(&fields, PAGE_ROWS_MAX)?;
    let page = facts(&visit, |facts| {
        let (workers, next) = behind(&facts.workers, |worker| worker.session.as_str(), &fields, limit);
        json!({ "workers": workers, "next": next })
    });
    answer(&page.await?)
}

pub(crate) async fn tasks(visit: Visit, Query(fields): Query) -> Answered {
    let filter = filter(&fields)?;
    // Of the picture only the names of lanes and workers are used, which change seldom.
    let snapshot = visit.app.live.glance().await;
    let rows_max = limit(&fields, PAGE_ROWS)?;
    let query = query(filter, fields.number("before")?, rows_max, &snapshot);
    let page = visit.app.rows.ask(move |table| rows::page(table, &query)).await?;
    answer(&json!({ "tasks": page.rows, "next": page.next, "partial": page.is_partial }))
}

pub(crate) async fn task(visit: Visit, Path(id): Path<i64>) -> Answered {
    let task = task_id(id)?;
    let rows = visit.app.live.ask(move |client| client.status(&[task], true)).await?.rows;
    let row = rows.first().ok_or_else(|| Failure::not_found(format!("there is no task {id}")))?;
    let around = visit.app.rows.ask(move |table| rows::relations(table, id)).await.unwrap_or_default();
    let mut value = task_json(row, visit.sees_payloads());
    value["parents"] = json!(around.parents);
    value["children"] = json!(around.children);
    answer(&value)
}

/// What its run has logged, or its last one, for as long as the broker keeps it.
pub(crate) async fn log(visit: Visit, Path(id): Path<i64>) -> Answered {
    answer(&json!({ "task": id, "lines": crate::pages::task::log(&visit.app, id).await? }))
}

pub(crate) async fn batch(visit: Visit, Path(n): Path<u64>) -> Answered {
    let batch = visit.app.live.ask(move |client| client.batch(n, false)).await;
    answer(&batch.map_err(|failure| failure.in_words(|_| "n"))?)
}

pub(crate) async fn dead(visit: Visit) -> Answered {
    answer(&visit.app.rows.ask(rows::dead_groups).await?)
}

pub(crate) async fn groups(visit: Visit, Query(fields): Query) -> Answered {
    let (groups, next) = groups::list(&visit.app, fields.number("before")?, PAGE_ROWS).await?;
    answer(&json!({ "groups": groups, "next": next }))
}

/// With the words of the wire, though the table is asked and not the broker.
pub(crate) async fn group(visit: Visit, Path(id): Path<u64>) -> Answered {
    let (line, counts) = groups::find(&visit.app, id).await?;
    let mut value = object(&counts);
    value.insert("group".into(), id.into());
    value.insert("created_at".into(), line.created_at.into());
    value.extend(line.name.map(|name| ("name".into(), name.into())));
    value.extend(line.last_task.map(|task| ("last".into(), task.into())));
    answer(&value)
}

/// By name, as kinds are.
pub(crate) async fn schedules(visit: Visit, Query(fields): Query) -> Answered {
    let (after, limit) = (fields.text("after").map(Into::into), limit(&fields, PAGE_ROWS_MAX)?);
    let (schedules, next) = visit.app.live.ask(move |client| schedules_behind(client, after, limit)).await?;
    answer(&json!({ "schedules": schedules, "next": next }))
}

/// Asks for no more pages of the wire than a page of ours needs.
fn schedules_behind(
    client: &Client,
    mut after: Option<String>,
    limit: usize,
) -> Result<(Vec<ScheduleRow>, Option<String>), laneway::Error> {
    let mut rows = Vec::new();
    loop {
        let question = Request::Schedules(Schedules { after, ..Schedules::default() });
        let page = match client.ask(&question, Duration::ZERO)? {
            Answer::Schedules(page) => page,
            other => return Err(laneway::Error::BadAnswer(format!("{other:?}"))),
        };
        rows.extend(page.schedules);
        after = page.next;
        if after.is_none() || rows.len() >= limit {
            break;
        }
    }
    let is_cut = after.is_some() || rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| is_cut).map(|row| row.name.clone());
    Ok((rows, next))
}

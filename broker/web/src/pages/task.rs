//! One task: why it is where it is, its runs on a line of time, payload and result, what it waits for, and what can be done.

mod timeline;
mod trace;

use askama::Template;
use laneway::{Payload, TaskState};
use laneway_protocol::message::{TaskRow, WaitFor};
use laneway_protocol::{Answer, Request};

use self::timeline::{Step, Timeline, timeline};
use self::trace::Trace;
use super::tasks::lane_names;
use super::{Frame, Part, Shown, Visit, html, page};
use crate::app::App;
use crate::failure::Failure;
use crate::payload::{self, Shown as ShownPayload};
use crate::request::Path;
use crate::rows::{self, Edge, Relations, TaskDetail};
use crate::snapshot::Snapshot;
use crate::time::{At, now_ms, span};

/// Lines of its log that are shown, the newest.
const LOG_LINES_MAX: usize = 200;

#[derive(Template)]
#[template(path = "task.html")]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of the template")]
struct TaskPage {
    frame: Frame,
    id: i64,
    kind: String,
    main: String,
    payload: Option<ShownPayload>,
    result: Option<ShownPayload>,
    has_payload: bool,
    has_result: bool,
    is_over: bool,
    sees_payloads: bool,
    sql: String,
    cli: String,
    parents: Vec<Edge>,
    children: Vec<Edge>,
    more_edges: bool,
}

/// What changes while it is looked at.
#[derive(Template)]
#[template(path = "part_task.html")]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of the template")]
struct TaskPart {
    base: String,
    may_change: bool,
    id: i64,
    kind: String,
    state: &'static str,
    /// Whether it is code, and the words.
    explain: Vec<(bool, String)>,
    is_from_table: bool,
    is_cancel_requested: bool,
    facts: Vec<(&'static str, String)>,
    links: Vec<(&'static str, String, String)>,
    trace: Option<Trace>,
    error: String,
    bar: String,
    waited: String,
    ran: String,
    steps: Vec<Step>,
    has_progress: bool,
    progress_bar: String,
    progress: String,
    note: String,
    log: Vec<String>,
    actions: Vec<(&'static str, &'static str)>,
    lanes: Vec<String>,
}

struct Found {
    row: TaskRow,
    log: Vec<String>,
    is_from_table: bool,
}

pub(crate) async fn show(visit: Visit, Path(id): Path<i64>) -> Shown {
    let app = &visit.app;
    app.live.glance().await;
    let found = find(app, id).await?;
    let relations: Relations = app.rows.ask(move |table| rows::relations(table, id)).await.unwrap_or_default();
    let frame = visit.frame("tasks", &format!("Task {id}")).live(format!("task:{id}"));
    let sees_payloads = visit.sees_payloads();
    let shown = |payload: &Option<Payload>| payload.as_ref().filter(|_| sees_payloads).map(payload::shown);
    let row = &found.row;
    page(&TaskPage {
        id,
        kind: row.kind.clone(),
        payload: shown(&row.payload),
        result: shown(&row.result),
        has_payload: row.payload.is_some(),
        has_result: row.result.is_some(),
        is_over: row.state.is_final(),
        sees_payloads,
        sql: format!("SELECT * FROM task_view WHERE id = {id};\nSELECT * FROM failures WHERE task = {id} ORDER BY id;"),
        cli: cli(id, row.state, &app.settings.endpoint),
        parents: relations.parents,
        children: relations.children,
        more_edges: relations.more,
        main: html(&part(app, &found, frame.may_change)),
        frame,
    })
}

pub(super) async fn parts(app: &App, id: i64, may_change: bool) -> Result<Vec<Part>, Failure> {
    let found = find(app, id).await?;
    Ok(vec![Part::new("p-task", &part(app, &found, may_change))])
}

/// Lines of its log, the newest last.
pub(crate) async fn log(app: &App, id: i64) -> Result<Vec<String>, Failure> {
    let found = find(app, id).await?;
    if found.is_from_table {
        let text = "the broker alone has the lines, and it does not answer";
        return Err(Failure::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "no_broker", text));
    }
    Ok(found.log)
}

/// As the broker sees it, with its reasons; as the table has it where no broker answers.
async fn find(app: &App, id: i64) -> Result<Found, Failure> {
    let task = super::change::task_id(id)?;
    let asked = app.live.ask(move |client| {
        let row = client.status(&[task], true)?.rows.pop();
        // The broker keeps the words of a run for a while after its end.
        let has_log = row.as_ref().is_some_and(|row| row.state == TaskState::Running || row.state.is_final());
        let question = WaitFor {
            tasks: vec![task],
            kind: None,
            unique_key: None,
            cursor: None,
            wait_ms: 0,
            abandon: false,
            group: None,
        };
        let mut log = Vec::new();
        if has_log
            && let Answer::WaitFor(waited) = client.ask(&Request::WaitFor(question), std::time::Duration::ZERO)?
        {
            log.extend(waited.events.into_iter().filter_map(|event| event.log));
        }
        Ok((row, log))
    });
    let gone =
        || Failure::not_found(format!("there is no task {id} (any more)")).next("look for it by its key or kind");
    match asked.await {
        Ok((row, mut log)) => {
            log.drain(..log.len().saturating_sub(LOG_LINES_MAX));
            Ok(Found { row: row.ok_or_else(gone)?, log, is_from_table: false })
        }
        Err(failure) if failure.code == "no_broker" => {
            let detail = app.rows.ask(move |table| rows::task(table, id)).await?.ok_or_else(gone)?;
            let row = from_table(detail, task).ok_or_else(gone)?;
            Ok(Found { row, log: Vec::new(), is_from_table: true })
        }
        Err(failure) => Err(failure),
    }
}

fn from_table(detail: TaskDetail, id: laneway::TaskId) -> Option<TaskRow> {
    let line = detail.line;
    let small = |n: i64| u32::try_from(n).unwrap_or(0);
    let large = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
    Some(TaskRow {
        id,
        state: TaskState::parse(&line.state)?,
        kind: line.kind,
        lane: line.lane,
        run_at: line.run_at,
        unique_key: line.unique_key,
        max_attempts: line.max_attempts.map(small),
        timeout_ms: large(detail.timeout_ms),
        expires_at: detail.expires_at,
        fair_key: line.fair_key,
        trace: detail.trace,
        runs: small(line.runs),
        attempts: small(line.attempts),
        losses: small(line.losses),
        releases: small(line.releases),
        worker: line.worker,
        created_at: line.created_at,
        started_at: line.started_at,
        finished_at: line.finished_at,
        progress_done: large(line.progress_done),
        progress_total: large(line.progress_total),
        progress_note: line.progress_note,
        cancel_requested: line.cancel_requested,
        error: detail.error,
        payload: detail.payload,
        result: detail.result,
        failures: detail.failures,
        explain: None,
        ahead: None,
        twin: None,
        group: large(line.group),
        waits_for: Vec::new(),
        waits_for_n: 0,
    })
}

fn part(app: &App, found: &Found, may_change: bool) -> TaskPart {
    let row = &found.row;
    let snapshot = app.live.last();
    let Timeline { bar, waited, ran, steps } = timeline(row, now_ms());
    let progress = match (row.progress_done, row.progress_total) {
        (Some(done), Some(total)) => format!("{done} of {total}"),
        (Some(done), None) => done.to_string(),
        _ => String::new(),
    };
    TaskPart {
        base: app.settings.base_path.clone(),
        may_change,
        id: i64::try_from(row.id.value()).unwrap_or(0),
        kind: row.kind.clone(),
        state: row.state.as_str(),
        explain: row.explain.as_deref().map(explained).unwrap_or_default(),
        is_from_table: found.is_from_table,
        is_cancel_requested: row.cancel_requested,
        facts: facts(row),
        links: links(row, &app.settings.base_path),
        trace: row.trace.as_deref().map(|text| Trace::of(text, app.settings.trace_url.as_ref())),
        error: row.error.clone().filter(|_| row.state != TaskState::Done).unwrap_or_default(),
        bar,
        waited,
        ran,
        steps,
        has_progress: row.progress_done.is_some() && !row.state.is_final(),
        progress_bar: super::bar(row.progress_done.unwrap_or(0), row.progress_total.unwrap_or(0), "s-running"),
        progress,
        note: row.progress_note.clone().unwrap_or_default(),
        log: found.log.clone(),
        actions: actions(row),
        lanes: other_lanes(row, &snapshot),
    }
}

/// Where it can be moved to.
fn other_lanes(row: &TaskRow, snapshot: &Snapshot) -> Vec<String> {
    let mut lanes = lane_names(snapshot);
    let of_kind = snapshot.kind_lanes.iter().find(|(kind, _)| *kind == row.kind).map(|(_, lane)| lane);
    lanes.retain(|lane| row.lane.as_ref().or(of_kind) != Some(lane));
    lanes
}

/// The broker's sentence, cut at its back quotes.
fn explained(text: &str) -> Vec<(bool, String)> {
    text.split('`').enumerate().map(|(n, words)| (n % 2 == 1, words.to_owned())).collect()
}

fn facts(row: &TaskRow) -> Vec<(&'static str, String)> {
    let count = |n: u32, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let mut counts = count(row.runs, "run", "runs");
    if row.losses > 0 {
        counts = format!("{counts}, {}", count(row.losses, "loss", "losses"));
    }
    if row.releases > 0 {
        counts = format!("{counts}, {}", count(row.releases, "release", "releases"));
    }
    let max = row.max_attempts.map_or_else(String::new, |max| format!(" of {max}"));
    let all = [
        ("Lane", row.lane.clone()),
        ("Attempts", Some(format!("{}{max} ({counts})", row.attempts))),
        ("Timeout", row.timeout_ms.map(|ms| span(i64::try_from(ms).unwrap_or(i64::MAX)))),
        ("Worker", row.worker.clone()),
        ("Unique key", row.unique_key.clone()),
        ("Fair key", row.fair_key.clone()),
        ("Ahead of it", row.ahead.map(|n| n.to_string())),
    ];
    all.into_iter().filter_map(|(name, text)| text.map(|text| (name, text))).collect()
}

fn links(row: &TaskRow, base: &str) -> Vec<(&'static str, String, String)> {
    let task = |name, id: &laneway::TaskId| (name, id.to_string(), format!("{base}/tasks/{id}"));
    let mut links = Vec::new();
    links.extend(row.group.map(|group| ("Group", group.to_string(), format!("{base}/groups/{group}"))));
    links.extend(row.twin.iter().map(|id| task("Its key is live in", id)));
    links.extend(row.waits_for.iter().map(|id| task("Waits for", id)));
    links
}

/// Words and labels of what makes sense now.
fn actions(row: &TaskRow) -> Vec<(&'static str, &'static str)> {
    match row.state {
        TaskState::Queued if row.run_at.is_some_and(|at| at > now_ms()) => {
            vec![("run-now", "Run now"), ("cancel", "Cancel")]
        }
        TaskState::Queued | TaskState::Waiting | TaskState::Running => vec![("cancel", "Cancel")],
        TaskState::Dead | TaskState::Cancelled => vec![("requeue", "Requeue"), ("purge", "Purge")],
        TaskState::Done => vec![("purge", "Purge")],
    }
}

fn cli(id: i64, state: TaskState, endpoint: &str) -> String {
    let act = match state {
        TaskState::Dead | TaskState::Cancelled => "retry",
        TaskState::Done => "purge",
        _ => "cancel",
    };
    let to = format!("--endpoint {endpoint}");
    format!("laneway task show {id} {to}\nlaneway task explain {id} {to}\nlaneway task {act} {id} {to}")
}

/// When something was, for the timeline.
fn when(at: i64) -> String {
    At(at).html()
}

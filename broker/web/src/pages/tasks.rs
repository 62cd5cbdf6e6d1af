//! Tasks: tabs by state, the filter language, pages by id, and what can be done with those that are selected or meet the filter.

use askama::Template;
use laneway::TaskState;

use super::overview::trouble;
use super::{Frame, Part, Shown, Visit, html, page};
use crate::app::App;
use crate::failure::Failure;
use crate::filter::{FIELDS, Filter};
use crate::limits::PAGE_ROWS;
use crate::request::{Fields, Query};
use crate::rows::{self, Page, PageQuery, TaskLine};
use crate::snapshot::{Facts, Snapshot, encode};
use crate::time::{At, grouped, span};

#[derive(Template)]
#[template(path = "tasks.html")]
struct TasksPage {
    frame: Frame,
    trouble: String,
    list: String,
    /// Whose parts are sent again while this list is shown: another one takes its place without a new page.
    live: String,
}

/// Everything about the tasks that meet the filter.
#[derive(Template)]
#[template(path = "part_list.html")]
struct ListPart<'a> {
    base: &'a str,
    may_change: bool,
    tabs: Vec<Tab>,
    fields: [(&'static str, &'static str); 11],
    state: &'static str,
    text: String,
    wrong: String,
    rows: Vec<Line>,
    next: String,
    newest: String,
    is_first: bool,
    /// Where a walk was broken off.
    partial_at: i64,
    is_partial: bool,
    lanes: Vec<String>,
    /// What can be done with all that match, when that can be said to the broker.
    all: Vec<(&'static str, String)>,
    why_not_all: String,
}

struct Tab {
    name: &'static str,
    link: String,
    count: String,
    is_active: bool,
}

/// A row of the table.
pub(super) struct Line {
    pub(super) id: i64,
    pub(super) kind: String,
    pub(super) lane: String,
    pub(super) state: String,
    pub(super) when: String,
    pub(super) took: String,
    pub(super) attempts: String,
    pub(super) note: String,
    pub(super) is_error: bool,
    pub(super) progress: String,
}

pub(crate) async fn show(visit: Visit, Query(fields): Query) -> Shown {
    let app = &visit.app;
    let snapshot = app.live.glance().await;
    let frame = visit.frame("tasks", "Tasks");
    let list = list(app, &snapshot, &fields, frame.may_change).await?;
    // A search that was broken off stays where it is: the same again each second would lead no further.
    let live = if list.is_partial || !list.wrong.is_empty() { "none".into() } else { live(&fields) };
    page(&TasksPage { trouble: trouble(&snapshot, &frame.base), list: html(&list), frame: frame.live(&*live), live })
}

pub(super) async fn parts(
    app: &App,
    snapshot: &Snapshot,
    fields: &Fields,
    may_change: bool,
) -> Result<Vec<Part>, Failure> {
    Ok(vec![Part::new("list", &list(app, snapshot, fields, may_change).await?)])
}

/// The list that these fields of the address lead to, for [`super::parts`].
fn live(fields: &Fields) -> String {
    let mut words = form_urlencoded::Serializer::new("tasks?".to_owned());
    for name in ["state", "q", "before"] {
        if let Some(text) = fields.text(name) {
            words.append_pair(name, text);
        }
    }
    words.finish()
}

async fn list<'a>(
    app: &'a App,
    snapshot: &Snapshot,
    fields: &Fields,
    may_change: bool,
) -> Result<ListPart<'a>, Failure> {
    let (filter, wrong) = match filter(fields) {
        Ok(filter) => (filter, String::new()),
        Err(failure) => (Filter::default(), failure.message),
    };
    let before = fields.number("before")?;
    let found = if wrong.is_empty() {
        let query = query(filter.clone(), before, PAGE_ROWS, snapshot);
        app.rows.ask(move |table| rows::page(table, &query)).await?
    } else {
        Page::default()
    };
    let base = app.settings.base_path.as_str();
    let text = if wrong.is_empty() { filter.to_string() } else { fields.text("q").unwrap_or_default().to_owned() };
    let link = |state: &str, before: Option<i64>| link(base, state, &text, before);
    let state = filter.state.map_or("", TaskState::as_str);
    let bulk = filter.to_bulk(&connected(snapshot));
    let why_not_all = bulk.as_ref().err().map_or_else(String::new, ToString::to_string);
    let all_link = |change: &str| format!("{base}/tasks/change-all?change={change}&state={state}&q={}", encode(&text));
    let all = if bulk.is_ok() { changes_for(filter.state) } else { Vec::new() };
    Ok(ListPart {
        base,
        may_change,
        tabs: tabs(snapshot, filter.state, link),
        fields: FIELDS,
        state,
        wrong,
        next: found.next.map_or_else(String::new, |next| link(state, Some(next))),
        newest: link(state, None),
        is_first: before.is_none(),
        partial_at: found.next.unwrap_or(0),
        is_partial: found.is_partial,
        rows: found.rows.iter().map(|row| line(row, snapshot)).collect(),
        lanes: lane_names(snapshot),
        all: all.into_iter().map(|change| (change, all_link(change))).collect(),
        why_not_all,
        text,
    })
}

/// Of the fields `q` and `state`; a state in the text goes before the tab's.
pub(crate) fn filter(fields: &Fields) -> Result<Filter, Failure> {
    let mut filter = Filter::parse(fields.text("q").unwrap_or_default()).map_err(|wrong| Failure {
        field: Some("q".into()),
        next: Some("words like kind:resize lane:low attempt>2, joined by spaces".into()),
        ..Failure::new(axum::http::StatusCode::BAD_REQUEST, "bad_filter", wrong.to_string())
    })?;
    if filter.state.is_none()
        && let Some(word) = fields.text("state")
    {
        let states = TaskState::ALL.map(TaskState::as_str).join(", ");
        let unknown = || Failure::bad("state", format!("'{word}' is no state: they are {states}"));
        filter.state = Some(TaskState::parse(word).ok_or_else(unknown)?);
    }
    Ok(filter)
}

/// With what the last look at the broker knows.
pub(crate) fn query(filter: Filter, before: Option<i64>, rows_max: usize, snapshot: &Snapshot) -> PageQuery {
    PageQuery { filter, before, rows_max, kind_lanes: snapshot.kind_lanes.clone(), workers: connected(snapshot) }
}

/// Sessions and names of the workers that are.
pub(crate) fn connected(snapshot: &Snapshot) -> Vec<(String, String)> {
    let workers = snapshot.facts.iter().flat_map(|facts| &facts.workers);
    workers.map(|worker| (worker.session.to_string(), worker.name.clone())).collect()
}

pub(super) fn lane_names(snapshot: &Snapshot) -> Vec<String> {
    let lanes = snapshot.facts.iter().flat_map(|facts| &facts.lanes);
    lanes.filter(|lane| lane.configured).map(|lane| lane.lane.clone()).collect()
}

/// What makes sense for tasks of this state.
fn changes_for(state: Option<TaskState>) -> Vec<&'static str> {
    match state {
        Some(TaskState::Queued) => vec!["run-now", "move", "cancel"],
        Some(TaskState::Waiting) => vec!["move", "cancel"],
        Some(TaskState::Running) => vec!["cancel"],
        Some(TaskState::Dead | TaskState::Cancelled) => vec!["requeue", "purge"],
        Some(TaskState::Done) => vec!["purge"],
        None => vec!["requeue", "cancel"],
    }
}

fn link(base: &str, state: &str, text: &str, before: Option<i64>) -> String {
    let mut words = Vec::new();
    if !state.is_empty() {
        words.push(format!("state={state}"));
    }
    if !text.is_empty() {
        words.push(format!("q={}", encode(text)));
    }
    if let Some(before) = before {
        words.push(format!("before={before}"));
    }
    if words.is_empty() { format!("{base}/tasks") } else { format!("{base}/tasks?{}", words.join("&")) }
}

fn tabs(snapshot: &Snapshot, state: Option<TaskState>, link: impl Fn(&str, Option<i64>) -> String) -> Vec<Tab> {
    let nothing = Facts::default();
    let numbers = snapshot.facts.as_ref().map_or(&nothing.stats, |facts| &facts.stats);
    // What is not counted by the broker is not counted here either: that would be a walk through the table.
    let count = |state| match state {
        Some(TaskState::Queued) => grouped(numbers.queued),
        Some(TaskState::Running) => grouped(numbers.running),
        Some(TaskState::Dead) => grouped(numbers.dead),
        _ => String::new(),
    };
    let order = [
        None,
        Some(TaskState::Queued),
        Some(TaskState::Running),
        Some(TaskState::Waiting),
        Some(TaskState::Done),
        Some(TaskState::Dead),
        Some(TaskState::Cancelled),
    ];
    let tab = |of: Option<TaskState>| Tab {
        name: of.map_or("all", TaskState::as_str),
        link: link(of.map_or("", TaskState::as_str), None),
        count: if snapshot.facts.is_some() { count(of) } else { String::new() },
        is_active: of == state,
    };
    order.into_iter().map(tab).collect()
}

pub(super) fn line(row: &TaskLine, snapshot: &Snapshot) -> Line {
    let default_lane = || snapshot.kind_lanes.iter().find(|(kind, _)| *kind == row.kind).map(|(_, lane)| lane.clone());
    let now = snapshot.at;
    let took = match (row.started_at, row.finished_at) {
        (Some(started), Some(finished)) => span(finished - started),
        (Some(started), None) if row.state == "running" => span(now - started),
        _ => String::new(),
    };
    let is_later = row.state == "queued" && row.run_at.is_some_and(|at| at > now);
    let when = match row.run_at.filter(|_| is_later) {
        Some(at) => format!("due {}", At(at).html()),
        None => At(row.finished_at.or(row.started_at).unwrap_or(row.created_at)).html(),
    };
    let progress = match (row.progress_done, row.progress_total) {
        (Some(done), Some(total)) if total > 0 => format!("{} %", done.saturating_mul(100) / total),
        (Some(done), _) => grouped(u64::try_from(done).unwrap_or(0)),
        _ => String::new(),
    };
    let error = row.error.as_deref().and_then(|error| error.lines().next());
    let note = match (error, &row.progress_note) {
        (Some(error), _) => error.to_owned(),
        (None, Some(note)) if row.state == "running" => note.clone(),
        _ => row.unique_key.as_ref().map_or_else(String::new, |key| format!("key {key}")),
    };
    Line {
        id: row.id,
        kind: row.kind.clone(),
        lane: row.lane.clone().or_else(default_lane).unwrap_or_default(),
        state: row.state.clone(),
        when,
        took,
        attempts: match row.max_attempts {
            Some(max) => format!("{}/{max}", row.attempts),
            None => row.attempts.to_string(),
        },
        is_error: error.is_some() && row.state != "done",
        note,
        progress: if row.state == "running" { progress } else { String::new() },
    }
}

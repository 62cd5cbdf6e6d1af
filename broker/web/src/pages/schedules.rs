//! Schedules: when each fires next, what it made last, and pause, resume, run now and remove.

use askama::Template;
use laneway::{Client, Code};
use laneway_protocol::WireError;

use super::confirm::{Question, is_sure};
use super::overview::trouble;
use super::{Frame, Part, Shown, Visit, html, page};
use crate::app::App;
use crate::failure::Failure;
use crate::limits::SCHEDULE_ROWS;
use crate::request::{Fields, Form, Query};
use crate::rows::{self, ScheduleLine};
use crate::snapshot::encode;
use crate::time::At;

#[derive(Template)]
#[template(path = "schedules.html")]
struct SchedulesPage {
    frame: Frame,
    trouble: String,
    list: String,
}

#[derive(Template)]
#[template(path = "part_schedules.html")]
struct SchedulesPart<'a> {
    base: &'a str,
    may_change: bool,
    schedules: Vec<Schedule>,
    next: String,
    is_first: bool,
}

struct Schedule {
    name: String,
    cron: String,
    time_zone: String,
    kind: String,
    lane: String,
    is_paused: bool,
    next: String,
    last: String,
    last_task: String,
    error: String,
    remove_question: String,
}

impl From<ScheduleLine> for Schedule {
    fn from(row: ScheduleLine) -> Self {
        let when = |at: Option<i64>| at.map_or_else(String::new, |at| At(at).html());
        Self {
            next: when(row.next_at),
            last: when(row.last_at),
            last_task: row.last_task.map_or_else(String::new, |task| task.to_string()),
            remove_question: remove_question(&row.name),
            name: row.name,
            cron: row.cron,
            time_zone: row.time_zone,
            kind: row.kind,
            lane: row.lane.unwrap_or_default(),
            is_paused: row.is_paused,
            error: row.error.unwrap_or_default(),
        }
    }
}

pub(crate) async fn show(visit: Visit, Query(fields): Query) -> Shown {
    let snapshot = visit.app.live.glance().await;
    let live =
        fields.text("after").map_or_else(|| "schedules".into(), |after| format!("schedules?after={}", encode(after)));
    let frame = visit.frame("schedules", "Schedules").live(live);
    let list = html(&some(&visit.app, &fields, frame.may_change).await?);
    page(&SchedulesPage { trouble: trouble(&snapshot, &frame.base), list, frame })
}

pub(super) async fn parts(app: &App, fields: &Fields, may_change: bool) -> Result<Vec<Part>, Failure> {
    Ok(vec![Part::new("p-schedules", &some(app, fields, may_change).await?)])
}

async fn some<'a>(app: &'a App, fields: &Fields, may_change: bool) -> Result<SchedulesPart<'a>, Failure> {
    let after = fields.text("after").unwrap_or_default().to_owned();
    let is_first = after.is_empty();
    let mut lines = app.rows.ask(move |table| rows::schedules(table, &after, SCHEDULE_ROWS + 1)).await?;
    let base = app.settings.base_path.as_str();
    let more = lines.len() > SCHEDULE_ROWS;
    lines.truncate(SCHEDULE_ROWS);
    let last = lines.last().filter(|_| more);
    Ok(SchedulesPart {
        base,
        may_change,
        next: last.map_or_else(String::new, |last| format!("{base}/schedules?after={}", encode(&last.name))),
        is_first,
        schedules: lines.into_iter().map(Schedule::from).collect(),
    })
}

/// Does one of the things that can be done with a schedule that is there, for the pages and the API alike. Gives what a run made.
pub(crate) fn apply(client: &Client, name: &str, change: &str) -> Result<Option<laneway::Stored>, laneway::Error> {
    let one = || vec![name.to_owned()];
    let missing = || laneway::Error::Refused(WireError::new(Code::NotFound, format!("there is no schedule {name}")));
    let changed = match change {
        "pause" => client.change_schedules(one(), Vec::new(), Vec::new())?,
        "resume" => client.change_schedules(Vec::new(), one(), Vec::new())?,
        "remove" => client.change_schedules(Vec::new(), Vec::new(), one())?,
        _ => return client.run_schedule(name)?.map(Some).ok_or_else(missing),
    };
    if changed.not_found.is_empty() { Ok(None) } else { Err(missing()) }
}

pub(crate) const CHANGES: [&str; 4] = ["pause", "resume", "remove", "run-now"];

/// One of [`CHANGES`].
pub(crate) fn checked(change: &str) -> Result<&'static str, Failure> {
    let known = CHANGES.into_iter().find(|known| *known == change);
    known.ok_or_else(|| Failure::bad("change", format!("'{change}' must be pause, resume, remove or run-now")))
}

fn remove_question(name: &str) -> String {
    format!("Remove schedule {name}? What it has made stays.")
}

pub(crate) async fn change(visit: Visit, Form(fields): Form) -> Shown {
    let change = checked(fields.text("change").unwrap_or_default())?;
    let name = fields.text("name").ok_or_else(|| Failure::bad("name", "is missing"))?.to_owned();
    if change == "remove" && !is_sure(&fields) {
        let (text, action) = (&remove_question(&name), "/schedules/change");
        return Question { text, yes: "remove", action, back: "/schedules", page: "schedules" }.ask(&visit, &fields);
    }
    let made = visit.app.live.change(move |client| apply(client, &name, change)).await?;
    Ok(visit.to(&made.map_or_else(|| "/schedules".into(), |stored| format!("/tasks/{}", stored.task))))
}

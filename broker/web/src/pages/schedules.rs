//! Schedules: when each fires next, what it made last, and pause, resume, run now and remove.

use askama::Template;
use laneway::Client;
use laneway_protocol::message::ScheduleRow;

use super::{Frame, Shown, Visit, page};
use crate::failure::Failure;
use crate::request::Form;
use crate::time::At;

#[derive(Template)]
#[template(path = "schedules.html")]
struct SchedulesPage {
    frame: Frame,
    schedules: Vec<Schedule>,
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
}

impl From<ScheduleRow> for Schedule {
    fn from(row: ScheduleRow) -> Self {
        let when = |at: Option<i64>| at.map_or_else(String::new, |at| At(at).html());
        Self {
            next: when(row.next_at),
            last: when(row.last_at),
            last_task: row.last_task.map_or_else(String::new, |task| task.to_string()),
            name: row.name,
            cron: row.cron,
            time_zone: row.time_zone,
            kind: row.kind,
            lane: row.lane.unwrap_or_default(),
            is_paused: row.paused,
            error: row.error.unwrap_or_default(),
        }
    }
}

pub(crate) async fn show(visit: Visit) -> Shown {
    let rows = visit.app.live.ask(Client::schedules).await?;
    let schedules = rows.into_iter().map(Schedule::from).collect();
    page(&SchedulesPage { schedules, frame: visit.frame("schedules", "Schedules") })
}

/// Does one of the things that can be done with a schedule, for the pages and the API alike. Gives what a run made.
pub(crate) fn apply(client: &Client, name: &str, change: &str) -> Result<Option<laneway::Stored>, laneway::Error> {
    let one = || vec![name.to_owned()];
    match change {
        "pause" => client.change_schedules(one(), Vec::new(), Vec::new())?,
        "resume" => client.change_schedules(Vec::new(), one(), Vec::new())?,
        "remove" => client.change_schedules(Vec::new(), Vec::new(), one())?,
        _ => return client.run_schedule(name),
    };
    Ok(None)
}

pub(crate) const CHANGES: [&str; 4] = ["pause", "resume", "remove", "run-now"];

/// One of [`CHANGES`].
pub(crate) fn checked(change: &str) -> Result<&'static str, Failure> {
    let known = CHANGES.into_iter().find(|known| *known == change);
    known.ok_or_else(|| Failure::bad("change", format!("'{change}' must be pause, resume, remove or run-now")))
}

pub(crate) async fn change(visit: Visit, Form(fields): Form) -> Shown {
    let change = checked(fields.text("change").unwrap_or_default())?;
    let name = fields.text("name").ok_or_else(|| Failure::bad("name", "is missing"))?.to_owned();
    let made = visit.app.live.change(move |client| apply(client, &name, change)).await?;
    Ok(visit.to(&made.map_or_else(|| "/schedules".into(), |stored| format!("/tasks/{}", stored.task))))
}

//! Workers: who is there, what each offers and runs, and sending one home.

use std::collections::HashMap;

use askama::Template;
use laneway::{Drain, TaskState};

use super::confirm::{Question, is_sure};
use super::overview::trouble;
use super::{Frame, Part, Shown, Visit, bar, page, short};
use crate::app::App;
use crate::failure::Failure;
use crate::filter::Filter;
use crate::request::Form;
use crate::rows::{self, PageQuery, TaskLine};
use crate::snapshot::{Facts, Snapshot};
use crate::time::{grouped, now_ms, span};

/// Running tasks whose age is looked up.
const RUNNING_MAX: usize = 500;
/// Tasks that are listed beside a worker.
const TASKS_SHOWN: usize = 8;
const KINDS_SHOWN: usize = 12;

#[derive(Template)]
#[template(path = "workers.html")]
struct WorkersPage {
    frame: Frame,
    trouble: String,
    table: String,
}

#[derive(Template)]
#[template(path = "part_workers.html")]
struct WorkersPart<'a> {
    base: &'a str,
    may_change: bool,
    is_there: bool,
    is_draining: bool,
    drain_all: &'static str,
    total: String,
    slots: String,
    workers: Vec<Worker>,
}

struct Worker {
    session: String,
    short: String,
    name: String,
    host: String,
    pid: u32,
    sdk: String,
    kinds: Vec<String>,
    more_kinds: usize,
    lanes: String,
    busy: u32,
    slots: u32,
    bar: String,
    tasks: Vec<(String, String, String)>,
    more_tasks: usize,
    since: String,
    stop_question: String,
    is_away: bool,
    is_draining: bool,
}

pub(crate) async fn show(visit: Visit) -> Shown {
    let snapshot = visit.app.live.glance().await;
    let frame = visit.frame("workers", "Workers").live("workers");
    let mut parts = parts(&visit.app, &snapshot, frame.may_change).await.into_iter().map(|part| part.html);
    page(&WorkersPage { trouble: trouble(&snapshot, &frame.base), table: parts.next().unwrap_or_default(), frame })
}

pub(super) async fn parts(app: &App, snapshot: &Snapshot, may_change: bool) -> Vec<Part> {
    let nothing = Facts::default();
    let facts = snapshot.facts.as_ref().unwrap_or(&nothing);
    let running = if facts.stats.running == 0 { HashMap::new() } else { running(app).await.unwrap_or_default() };
    let worker = |worker: &laneway_protocol::message::WorkerRow| {
        let task = |id: &laneway::TaskId| {
            let line = i64::try_from(id.value()).ok().and_then(|id| running.get(&id));
            let age = line.and_then(|line| line.started_at).map_or_else(String::new, |at| span(now_ms() - at));
            (id.to_string(), line.map_or_else(String::new, |line| line.kind.clone()), age)
        };
        Worker {
            session: worker.session.to_string(),
            short: short(worker.session.as_str()),
            name: worker.name.clone(),
            host: worker.host.clone(),
            pid: worker.pid,
            sdk: worker.sdk.clone(),
            kinds: worker.kinds.iter().take(KINDS_SHOWN).map(ToString::to_string).collect(),
            more_kinds: worker.kinds.len().saturating_sub(KINDS_SHOWN),
            lanes: worker.lanes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            busy: worker.busy(),
            slots: worker.slots,
            bar: bar(worker.busy().into(), worker.slots.into(), "s-running"),
            tasks: worker.running.iter().take(TASKS_SHOWN).map(task).collect(),
            more_tasks: worker.running.len().saturating_sub(TASKS_SHOWN),
            since: span(i64::try_from(worker.connected_ms).unwrap_or(0) / 10_000 * 10_000),
            stop_question: stop_question(&worker.name),
            is_away: worker.away,
            is_draining: worker.draining,
        }
    };
    let part = WorkersPart {
        base: &app.settings.base_path,
        may_change,
        is_there: snapshot.facts.is_some(),
        is_draining: facts.stats.draining,
        drain_all: DRAIN_ALL,
        total: grouped(facts.workers.len() as u64),
        slots: format!("{} of {} slots busy", grouped(facts.busy()), grouped(facts.slots())),
        workers: facts.workers.iter().map(worker).collect(),
    };
    vec![Part::new("p-workers", &part)]
}

async fn running(app: &App) -> Result<HashMap<i64, TaskLine>, Failure> {
    let filter = Filter { state: Some(TaskState::Running), ..Filter::default() };
    let query = PageQuery { filter, rows_max: RUNNING_MAX, ..PageQuery::default() };
    let page = app.rows.ask(move |table| rows::page(table, &query)).await?;
    Ok(page.rows.into_iter().map(|row| (row.id, row)).collect())
}

const DRAIN_ALL: &str = "Drain all? Nothing more is handed out, and the workers leave when they are through.";

fn stop_question(name: &str) -> String {
    format!("Stop {name}? It hands back what it runs, without blame, and leaves.")
}

pub(crate) async fn drain(visit: Visit, Form(fields): Form) -> Shown {
    let drain = Drain {
        release: fields.has("release"),
        off: fields.has("off"),
        worker: fields.text("worker").map(String::from),
    };
    // One that takes no more tasks can be told to go on.
    let is_dangerous = !drain.off && (drain.release || drain.worker.is_none());
    if is_dangerous && !is_sure(&fields) {
        let (text, yes) = match &drain.worker {
            Some(session) => (&*stop_question(&name(&visit, session)), "stop"),
            None => (DRAIN_ALL, "drain all"),
        };
        return Question { text, yes, action: "/workers/drain", back: "/workers", page: "workers" }
            .ask(&visit, &fields);
    }
    visit.app.live.change(move |client| client.drain(drain)).await?;
    Ok(visit.to("/workers"))
}

/// What a session calls itself. A form may have come with the name already.
fn name(visit: &Visit, worker: &str) -> String {
    let snapshot = visit.app.live.last();
    let mut workers = snapshot.facts.iter().flat_map(|facts| &facts.workers);
    workers.find(|known| known.session.as_str() == worker).map_or_else(|| short(worker), |known| known.name.clone())
}

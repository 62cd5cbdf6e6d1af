//! Workers: who is there, what each offers and runs, and sending one home. Of thousands a page has some, and finds the others.

use std::collections::HashMap;

use askama::Template;
use laneway::{Drain, TaskState};
use laneway_protocol::message::WorkerRow;

use super::confirm::{Question, is_sure};
use super::overview::trouble;
use super::{Frame, Part, Shown, Visit, bar, page, short};
use crate::app::App;
use crate::failure::Failure;
use crate::filter::Filter;
use crate::limits::WORKERS_SHOWN;
use crate::request::{Fields, Form, Query};
use crate::rows::{self, PageQuery, TaskLine};
use crate::snapshot::{Facts, Snapshot, encode};
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
    /// What the workers shown have in their name, host or session.
    find: String,
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
    find: &'a str,
    /// How many of how many, where that is not all.
    more: String,
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

pub(crate) async fn show(visit: Visit, Query(fields): Query) -> Shown {
    let snapshot = visit.app.live.glance().await;
    let live = address(&fields);
    let frame = visit.frame("workers", "Workers").live(live.trim_start_matches('/'));
    let mut parts = parts(&visit.app, &snapshot, &fields, frame.may_change).await.into_iter().map(|part| part.html);
    let (trouble, table) = (trouble(&snapshot, &frame.base), parts.next().unwrap_or_default());
    page(&WorkersPage { trouble, table, find: find(&fields).to_owned(), frame })
}

fn find(fields: &Fields) -> &str {
    fields.text("find").unwrap_or_default()
}

/// Of this page, with the workers that are looked for.
fn address(fields: &Fields) -> String {
    match find(fields) {
        "" => "/workers".into(),
        find => format!("/workers?find={}", encode(find)),
    }
}

/// Workers with this text in their name, host or session, and how many there are. When those are too many the ones that are away or
/// leave come first, and the rest stay in their order: rows that change places each second cannot be read.
fn shown<'a>(facts: &'a Facts, find: &str) -> (Vec<&'a WorkerRow>, usize) {
    let has = |worker: &&WorkerRow| {
        [&worker.name, &worker.host, worker.session.as_str()].iter().any(|text| text.contains(find))
    };
    let mut workers: Vec<_> = facts.workers.iter().filter(has).collect();
    let n = workers.len();
    if n > WORKERS_SHOWN {
        workers.sort_by_key(|worker| (!worker.away, !worker.draining));
        workers.truncate(WORKERS_SHOWN);
    }
    (workers, n)
}

pub(super) async fn parts(app: &App, snapshot: &Snapshot, fields: &Fields, may_change: bool) -> Vec<Part> {
    let nothing = Facts::default();
    let facts = snapshot.facts.as_ref().unwrap_or(&nothing);
    let running = if facts.stats.running == 0 { HashMap::new() } else { running(app).await.unwrap_or_default() };
    let worker = |worker: &WorkerRow| {
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
            since: connected(worker.connected_ms),
            stop_question: stop_question(&worker.name),
            is_away: worker.away,
            is_draining: worker.draining,
        }
    };
    let find = find(fields);
    let (workers, n) = shown(facts, find);
    let part = WorkersPart {
        base: &app.settings.base_path,
        may_change,
        is_there: snapshot.facts.is_some(),
        is_draining: facts.stats.draining,
        drain_all: DRAIN_ALL,
        total: grouped(facts.workers.len() as u64),
        slots: format!("{} of {} slots busy", grouped(facts.busy()), grouped(facts.slots())),
        find,
        more: if n > workers.len() { format!("{} of {}", workers.len(), grouped(n as u64)) } else { String::new() },
        workers: workers.into_iter().map(worker).collect(),
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
        let back = address(&fields);
        return Question { text, yes, action: "/workers/drain", back: &back, page: "workers" }.ask(&visit, &fields);
    }
    visit.app.live.change(move |client| client.drain(drain)).await?;
    Ok(visit.to(&address(&fields)))
}

/// In steps of ten seconds, so that a page of workers that only wait stays as it is for as long.
fn connected(ms: u64) -> String {
    match i64::try_from(ms).unwrap_or(0) / 10_000 {
        0 => "just now".into(),
        steps => span(steps * 10_000),
    }
}

/// What a session calls itself. A form may have come with the name already.
fn name(visit: &Visit, worker: &str) -> String {
    let snapshot = visit.app.live.last();
    let mut workers = snapshot.facts.iter().flat_map(|facts| &facts.workers);
    workers.find(|known| known.session.as_str() == worker).map_or_else(|| short(worker), |known| known.name.clone())
}

#[cfg(test)]
mod tests {
    use laneway_protocol::SessionName;

    use super::*;

    #[test]
    fn the_time_since_a_worker_came_moves_in_steps() {
        let told = [0, 9_999, 10_000, 19_999, 60_000].map(connected);
        assert_eq!(told, ["just now", "just now", "10 s", "10 s", "1 min"]);
    }

    #[test]
    fn of_many_workers_some_are_shown_and_the_others_found() {
        // Proves the bound of the page, that those which are away or leave come first, that the rest keep their order, and what is
        // looked at by a text.
        let worker = |n: usize| WorkerRow {
            session: SessionName::new(format!("session-{n:04}")).unwrap(),
            name: format!("worker-{n:04}"),
            host: format!("host{}", n % 7),
            pid: 1,
            sdk: String::new(),
            kinds: Vec::new(),
            lanes: Vec::new(),
            slots: 1,
            ready: 1,
            running: Vec::new(),
            connected_ms: 0,
            away: n == 4_000,
            draining: n == 3_000,
        };
        let names = |facts: &Facts, find: &str| -> Vec<String> {
            shown(facts, find).0.iter().map(|worker| worker.name[7..].to_owned()).collect()
        };
        let mut facts = Facts { workers: (0..5_000).map(worker).collect(), ..Facts::default() };
        let first = names(&facts, "");
        assert_eq!((first.len(), shown(&facts, "").1), (WORKERS_SHOWN, 5_000));
        assert_eq!(first[..4], ["4000", "3000", "0000", "0001"]);
        assert_eq!(
            (names(&facts, "worker-0123"), names(&facts, "session-0124")),
            (vec!["0123".into()], vec!["0124".into()])
        );
        assert_eq!((shown(&facts, "host6").1, shown(&facts, "none").1), (714, 0));
        facts.workers = (2_999..3_001).map(worker).collect();
        assert_eq!(names(&facts, ""), ["2999", "3000"]);
    }
}

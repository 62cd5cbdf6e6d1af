//! Changes of tasks that are named, at once, after a page that asks where nothing brings back what is done.

use askama::Template;
use laneway::{Client, LaneName, TaskId, Verdict};
use laneway_protocol::message::Change;

use super::confirm::{Question, is_sure};
use super::{Frame, Shown, Visit, page};
use crate::failure::Failure;
use crate::request::{Fields, Form};

/// Tasks that can be named at once, in a form or by the API.
const TASKS_MAX: usize = 512;

/// A change by its word in addresses.
pub(crate) fn change(word: &str) -> Result<Change, Failure> {
    match word {
        "requeue" => Ok(Change::Requeue),
        "cancel" => Ok(Change::Cancel),
        "purge" => Ok(Change::Purge),
        "move" => Ok(Change::Move),
        "run-now" => Ok(Change::RunNow),
        other => {
            let text = format!("'{other}' must be requeue, cancel, purge, move or run-now");
            Err(Failure::bad("change", text))
        }
    }
}

pub(crate) fn word(change: Change) -> &'static str {
    match change {
        Change::Requeue => "requeue",
        Change::Cancel => "cancel",
        Change::Purge => "purge",
        Change::Move => "move",
        Change::RunNow => "run-now",
    }
}

/// A task by its number.
pub(crate) fn task_id(id: i64) -> Result<TaskId, Failure> {
    let id = u64::try_from(id).ok().and_then(TaskId::new);
    id.ok_or_else(|| Failure::bad("task", "is no id of a task"))
}

/// Does it, and gives a verdict for each.
pub(crate) fn apply(
    client: &Client,
    change: Change,
    lane: Option<&LaneName>,
    tasks: &[TaskId],
) -> Result<Vec<Verdict>, laneway::Error> {
    match (change, lane) {
        (Change::Requeue, _) => client.requeue(tasks),
        (Change::Cancel, _) => client.cancel(tasks),
        (Change::Purge, _) => client.purge(tasks),
        (Change::RunNow, _) => client.run_now(tasks),
        (Change::Move, Some(lane)) => client.move_to(lane, tasks),
        (Change::Move, None) => Ok(Vec::new()),
    }
}

/// The lane of a move, and nothing for any other change.
pub(crate) fn lane(change: Change, name: Option<&str>) -> Result<Option<LaneName>, Failure> {
    if change != Change::Move {
        return Ok(None);
    }
    let name = name.ok_or_else(|| Failure::bad("lane", "is needed for a move"))?;
    LaneName::new(name).map(Some).map_err(|error| Failure::bad("lane", error.to_string()))
}

/// Nothing brings it back.
pub(super) fn is_dangerous(change: Change) -> bool {
    matches!(change, Change::Cancel | Change::Purge)
}

/// What came of a change of some tasks.
#[derive(Template)]
#[template(path = "verdicts.html")]
struct VerdictsPage {
    frame: Frame,
    change: &'static str,
    verdicts: Vec<(i64, String)>,
    back: String,
}

pub(crate) async fn some(visit: Visit, Form(fields): Form) -> Shown {
    let change = change(fields.text("change").unwrap_or_default())?;
    let ids = fields.numbers("task")?;
    let back = back(&fields, &visit);
    if ids.is_empty() || ids.len() > TASKS_MAX {
        return Err(Failure::bad("task", format!("select 1 to {TASKS_MAX} tasks, not {}", ids.len())));
    }
    let lane = lane(change, fields.text("lane"))?;
    if is_dangerous(change) && !is_sure(&fields) {
        let text = &question(change, ids.len());
        let (yes, action) = (word(change), "/tasks/change");
        return Question { text, yes, action, back: &back, page: "tasks" }.ask(&visit, &fields);
    }
    let tasks = ids.iter().map(|id| task_id(*id)).collect::<Result<Vec<_>, _>>()?;
    let verdicts = visit.app.live.change(move |client| apply(client, change, lane.as_ref(), &tasks)).await?;
    let has_changed = |verdict: &Verdict| !matches!(verdict, Verdict::Unchanged | Verdict::NotFound | Verdict::Needed);
    if verdicts.iter().all(|verdict| has_changed(verdict) && !matches!(verdict, Verdict::Twin(_))) {
        // A purged task has no page to go back to.
        let is_gone = change == Change::Purge && back.contains("/tasks/");
        return Ok(visit.to(if is_gone { "/tasks" } else { &back }));
    }
    let verdicts = ids.into_iter().zip(verdicts.iter().map(|verdict| said(*verdict))).collect();
    page(&VerdictsPage { change: word(change), verdicts, back, frame: visit.frame("tasks", "Not all changed") })
}

fn question(change: Change, n: usize) -> String {
    let tasks = if n == 1 { "1 task".into() } else { format!("{n} tasks") };
    match change {
        // Which of them go is known when they are gone: one may run again by then.
        Change::Purge if n > 1 => {
            format!(
                "Delete up to {tasks}? Nothing brings them back. What has not ended stays, and what is still needed."
            )
        }
        Change::Purge => "Delete 1 task? Nothing brings it back.".into(),
        _ => format!("Cancel {tasks}? Queued ones end at once, running ones are asked to stop."),
    }
}

fn said(verdict: Verdict) -> String {
    match verdict {
        Verdict::Cancelled => "cancelled".into(),
        Verdict::Requested => "its worker was asked to stop".into(),
        Verdict::Requeued => "queued again".into(),
        Verdict::Moved => "moved".into(),
        Verdict::Due => "due at once".into(),
        Verdict::Purged => "deleted".into(),
        Verdict::Needed => "left alone: something still needs it".into(),
        Verdict::Twin(twin) => format!("left alone: its unique key is live again in task {twin}"),
        Verdict::Unchanged => "left alone: it is in no state for this".into(),
        Verdict::NotFound => "there is no such task".into(),
        Verdict::Unknown => "changed in a way that this version does not know".into(),
    }
}

/// A path of this dashboard, wherever the form says it came from.
fn back(fields: &Fields, visit: &Visit) -> String {
    let back = fields.text("back").unwrap_or("/tasks");
    let back = back.strip_prefix(visit.app.settings.base_path.as_str()).unwrap_or(back);
    let is_path = back.starts_with('/') && !back.starts_with("//") && !back.contains(['\\', '\r', '\n']);
    if is_path { back.into() } else { "/tasks".into() }
}

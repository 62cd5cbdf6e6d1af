//! Groups of tasks that belong together, and how far each is. All of it comes from the table, counted up to a bound: a count that
//! was cut off is said to be one.

use askama::Template;
use laneway::TaskState;

use super::confirm::{Question, is_sure};
use super::{Frame, Part, Shown, Visit, html, page};
use crate::app::App;
use crate::failure::Failure;
use crate::request::{Fields, Form, Path, Query};
use crate::rows::{self, GroupCounts, GroupLine};
use crate::time::{At, grouped};

/// Of a page.
const GROUPS_SHOWN: usize = 30;

#[derive(Template)]
#[template(path = "groups.html")]
struct GroupsPage {
    frame: Frame,
    list: String,
}

#[derive(Template)]
#[template(path = "part_groups.html")]
struct GroupsPart<'a> {
    base: &'a str,
    groups: Vec<Group>,
    next: String,
    is_first: bool,
}

#[derive(Template)]
#[template(path = "group.html")]
struct GroupPage {
    frame: Frame,
    id: u64,
    name: String,
    body: String,
}

#[derive(Template)]
#[template(path = "part_group.html")]
struct GroupPart<'a> {
    base: &'a str,
    may_change: bool,
    id: u64,
    created: String,
    last: String,
    bar: String,
    /// Empty when nothing is left to cancel.
    question: String,
    counts: [(&'static str, String); 6],
}

struct Group {
    id: i64,
    name: String,
    created: String,
    bar: String,
    said: String,
}

/// So many groups, and where the next page begins.
pub(crate) async fn list(
    app: &App,
    before: Option<i64>,
    rows_max: usize,
) -> Result<(Vec<GroupLine>, Option<i64>), Failure> {
    let mut lines = app.rows.ask(move |table| rows::groups(table, before, rows_max + 1)).await?;
    let next = if lines.len() > rows_max { Some(lines[rows_max - 1].id) } else { None };
    lines.truncate(rows_max);
    Ok((lines, next))
}

pub(crate) async fn find(app: &App, id: u64) -> Result<(GroupLine, GroupCounts), Failure> {
    let known = i64::try_from(id).unwrap_or(i64::MAX);
    let line = app.rows.ask(move |table| rows::group(table, known)).await?;
    let found = line.and_then(|line| Some((line.counts.clone()?, line)));
    let (counts, line) = found.ok_or_else(|| Failure::not_found(format!("there is no group {id}")))?;
    Ok((line, counts))
}

pub(crate) async fn show(visit: Visit, Query(fields): Query) -> Shown {
    let live = fields.number("before")?.map_or_else(|| "groups".into(), |before| format!("groups?before={before}"));
    let list = html(&some(&visit.app, &fields).await?);
    page(&GroupsPage { list, frame: visit.frame("groups", "Groups").live(live) })
}

pub(super) async fn parts(app: &App, fields: &Fields) -> Result<Vec<Part>, Failure> {
    Ok(vec![Part::new("p-groups", &some(app, fields).await?)])
}

async fn some<'a>(app: &'a App, fields: &Fields) -> Result<GroupsPart<'a>, Failure> {
    let before = fields.number("before")?;
    let (lines, next) = list(app, before, GROUPS_SHOWN).await?;
    let base = app.settings.base_path.as_str();
    let group = |line: GroupLine| Group {
        id: line.id,
        name: line.name.unwrap_or_default(),
        created: At(line.created_at).html(),
        bar: line.counts.as_ref().map_or_else(String::new, bar),
        said: line.counts.as_ref().map_or_else(String::new, said),
    };
    Ok(GroupsPart {
        base,
        groups: lines.into_iter().map(group).collect(),
        next: next.map_or_else(String::new, |next| format!("{base}/groups?before={next}")),
        is_first: before.is_none(),
    })
}

fn said(counts: &GroupCounts) -> String {
    let is_cut = |states: [TaskState; 3]| states.into_iter().any(|state| counts.is_cut(state));
    let ended_cut = is_cut([TaskState::Done, TaskState::Dead, TaskState::Cancelled]);
    let live_cut = is_cut([TaskState::Waiting, TaskState::Queued, TaskState::Running]);
    let mut text = if ended_cut || live_cut {
        let (ended, live) = (number(counts.ended(), ended_cut), number(counts.live(), live_cut));
        format!("{ended} ended, {live} to go")
    } else {
        format!("{} of {} ended", grouped(counts.ended()), grouped(counts.total()))
    };
    if counts.dead > 0 {
        text = format!("{text}, {} dead", number(counts.dead, counts.is_cut(TaskState::Dead)));
    }
    text
}

/// As much as is known of it.
fn number(n: u64, is_cut: bool) -> String {
    if is_cut { format!("at least {}", grouped(n)) } else { grouped(n) }
}

/// Each state with its part of the whole.
fn bar(counts: &GroupCounts) -> String {
    use std::fmt::Write as _;
    let total = counts.total().max(1);
    let mut text =
        String::from("<svg class=\"bar\" viewBox=\"0 0 1000 6\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
    text.push_str("<rect class=\"track\" width=\"1000\" height=\"6\"/>");
    let mut from = 0;
    let parts =
        [("done", counts.done), ("cancelled", counts.cancelled), ("dead", counts.dead), ("running", counts.running)];
    for (class, n) in parts {
        let width = n * 1_000 / total;
        write!(text, "<rect class=\"s-{class}\" x=\"{from}\" width=\"{width}\" height=\"6\"/>")
            .expect("writing to a string cannot fail");
        from += width;
    }
    text + "</svg>"
}

pub(crate) async fn one(visit: Visit, Path(id): Path<u64>) -> Shown {
    let (line, counts) = find(&visit.app, id).await?;
    let frame = visit.frame("groups", &format!("Group {id}")).live(format!("group:{id}"));
    let body = html(&part(&frame.base, frame.may_change, id, &line, &counts));
    page(&GroupPage { id, name: line.name.unwrap_or_default(), body, frame })
}

pub(super) async fn one_parts(app: &App, id: u64, may_change: bool) -> Result<Vec<Part>, Failure> {
    let (line, counts) = find(app, id).await?;
    Ok(vec![Part::new("p-group", &part(&app.settings.base_path, may_change, id, &line, &counts))])
}

fn part<'a>(base: &'a str, may_change: bool, id: u64, line: &GroupLine, counts: &GroupCounts) -> GroupPart<'a> {
    let of = |state: TaskState, n| (state.as_str(), number(n, counts.is_cut(state)));
    GroupPart {
        base,
        may_change,
        id,
        // A number that an app made up has no row of its own.
        created: if line.created_at == 0 { "–".into() } else { At(line.created_at).html() },
        last: line.last_task.map_or_else(String::new, |task| task.to_string()),
        bar: bar(counts),
        question: if counts.live() > 0 { cancel_question(id) } else { String::new() },
        counts: [
            of(TaskState::Waiting, counts.waiting),
            of(TaskState::Queued, counts.queued),
            of(TaskState::Running, counts.running),
            of(TaskState::Done, counts.done),
            of(TaskState::Dead, counts.dead),
            of(TaskState::Cancelled, counts.cancelled),
        ],
    }
}

fn cancel_question(id: u64) -> String {
    format!("Cancel what of group {id} has not ended?")
}

pub(crate) async fn cancel(visit: Visit, Path(id): Path<u64>, Form(fields): Form) -> Shown {
    if !is_sure(&fields) {
        let (text, path) = (&cancel_question(id), &format!("/groups/{id}"));
        return Question { text, yes: "cancel the rest", action: path, back: path, page: "groups" }
            .ask(&visit, &fields);
    }
    visit.app.live.change(move |client| client.cancel_group(id)).await?;
    Ok(visit.to(&format!("/groups/{id}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_is_said_to_be() {
        // Proves that no number looks exact that is not, for what has ended and for what is left.
        let counts = GroupCounts { done: 3, queued: 1, dead: 1, ..GroupCounts::default() };
        assert_eq!(said(&counts), "4 of 5 ended, 1 dead");
        let cut = |at_least| said(&GroupCounts { done: 10_000, at_least, ..counts.clone() });
        assert_eq!(cut(vec!["done"]), "at least 10,001 ended, 1 to go, 1 dead");
        assert_eq!(cut(vec!["queued", "dead"]), "at least 10,001 ended, at least 1 to go, at least 1 dead");
    }
}

//! Groups of tasks that belong together, and how far each is.

use askama::Template;
use axum::extract::Path;
use laneway::GroupRow;

use super::{Frame, Shown, Visit, page};
use crate::request::{Form, Query};
use crate::rows;
use crate::time::{At, grouped};

/// Of a page.
const GROUPS_SHOWN: usize = 30;

#[derive(Template)]
#[template(path = "groups.html")]
struct GroupsPage {
    frame: Frame,
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
    created: String,
    last: String,
    bar: String,
    is_live: bool,
    counts: [(&'static str, String); 6],
}

struct Group {
    id: i64,
    name: String,
    created: String,
    bar: String,
    said: String,
}

pub(crate) async fn show(visit: Visit, Query(fields): Query) -> Shown {
    let before = fields.number("before")?;
    let mut lines = visit.app.rows.ask(move |table| rows::groups(table, before, GROUPS_SHOWN + 1)).await?;
    let next = if lines.len() > GROUPS_SHOWN { Some(lines[GROUPS_SHOWN - 1].id) } else { None };
    lines.truncate(GROUPS_SHOWN);
    let ids: Vec<u64> = lines.iter().filter_map(|line| u64::try_from(line.id).ok()).collect();
    // One question for each; a broker that does not answer leaves them without counts.
    let counts: Vec<GroupRow> = visit
        .app
        .live
        .ask(move |client| ids.into_iter().map(|id| client.group(id)).collect())
        .await
        .unwrap_or_default();
    let frame = visit.frame("groups", "Groups");
    let group = |line: &rows::GroupLine| {
        let row = counts.iter().find(|row| i64::try_from(row.group) == Ok(line.id));
        Group {
            id: line.id,
            name: line.name.clone().unwrap_or_default(),
            created: At(line.created_at).html(),
            bar: row.map_or_else(String::new, bar),
            said: row.map_or_else(String::new, said),
        }
    };
    page(&GroupsPage {
        groups: lines.iter().map(group).collect(),
        next: next.map_or_else(String::new, |next| format!("{}/groups?before={next}", frame.base)),
        is_first: before.is_none(),
        frame,
    })
}

fn said(row: &GroupRow) -> String {
    let ended = row.total() - row.live();
    let mut text = format!("{} of {} ended", grouped(ended), grouped(row.total()));
    if row.dead > 0 {
        text = format!("{text}, {} dead", grouped(row.dead));
    }
    text
}

/// Each state with its part of the whole.
fn bar(row: &GroupRow) -> String {
    use std::fmt::Write as _;
    let total = row.total().max(1);
    let mut text =
        String::from("<svg class=\"bar\" viewBox=\"0 0 1000 6\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
    text.push_str("<rect class=\"track\" width=\"1000\" height=\"6\"/>");
    let mut from = 0;
    for (class, n) in [("done", row.done), ("cancelled", row.cancelled), ("dead", row.dead), ("running", row.running)] {
        let width = n * 1_000 / total;
        write!(text, "<rect class=\"s-{class}\" x=\"{from}\" width=\"{width}\" height=\"6\"/>")
            .expect("writing to a string cannot fail");
        from += width;
    }
    text + "</svg>"
}

pub(crate) async fn one(visit: Visit, Path(id): Path<u64>) -> Shown {
    let row = visit.app.live.ask(move |client| client.group(id)).await?;
    let frame = visit.frame("groups", &format!("Group {id}"));
    page(&GroupPage {
        id,
        name: row.name.clone().unwrap_or_default(),
        created: At(row.created_at).html(),
        last: row.last.map_or_else(String::new, |task| task.to_string()),
        bar: bar(&row),
        is_live: row.live() > 0,
        counts: [
            ("waiting", grouped(row.waiting)),
            ("queued", grouped(row.queued)),
            ("running", grouped(row.running)),
            ("done", grouped(row.done)),
            ("dead", grouped(row.dead)),
            ("cancelled", grouped(row.cancelled)),
        ],
        frame,
    })
}

pub(crate) async fn cancel(visit: Visit, Path(id): Path<u64>, Form(_): Form) -> Shown {
    visit.app.live.change(move |client| client.cancel_group(id)).await?;
    Ok(visit.to(&format!("/groups/{id}")))
}

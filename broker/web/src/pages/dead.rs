//! Dead tasks by what killed them, and requeue or purge of a whole group.

use askama::Template;

use super::overview::trouble;
use super::{Frame, Shown, Visit, page};
use crate::filter::quoted;
use crate::limits::DEAD_ROWS_MAX;
use crate::rows;
use crate::snapshot::encode;
use crate::time::{At, grouped};

#[derive(Template)]
#[template(path = "dead.html")]
struct DeadPage {
    frame: Frame,
    trouble: String,
    groups: Vec<Group>,
    looked_at: String,
    more: bool,
    rows_max: String,
}

struct Group {
    kind: String,
    error: String,
    n: String,
    tasks: Vec<i64>,
    last: String,
    first: String,
    /// The tasks page with all of them.
    link: String,
    requeue: String,
    purge: String,
}

pub(crate) async fn show(visit: Visit) -> Shown {
    let snapshot = visit.app.live.glance().await;
    let found = visit.app.rows.ask(rows::dead_groups).await?;
    let frame = visit.frame("dead", "Dead tasks");
    let group = |group: &rows::DeadGroup| {
        // An error with both kinds of quotes cannot be said; then the kind has to do for the link, and there is no batch.
        let error = quoted(&group.error).filter(|_| !group.error.is_empty());
        let can_say = error.is_some();
        let kind = format!("kind:{}", quoted(&group.kind).unwrap_or_default());
        let words = error.map_or_else(|| kind.clone(), |error| format!("{kind} error:{error}"));
        let all = |change: &str| {
            let link = format!("{}/tasks/change-all?change={change}&state=dead&q={}", frame.base, encode(&words));
            if can_say { link } else { String::new() }
        };
        Group {
            kind: group.kind.clone(),
            error: group.error.clone(),
            n: grouped(group.n as u64),
            tasks: group.tasks.clone(),
            last: group.last_at.map_or_else(String::new, |at| At(at).html()),
            first: group.first_at.map_or_else(String::new, |at| At(at).html()),
            link: format!("{}/tasks?state=dead&q={}", frame.base, encode(&words)),
            requeue: all("requeue"),
            purge: all("purge"),
        }
    };
    page(&DeadPage {
        trouble: trouble(&snapshot, &frame.base),
        groups: found.groups.iter().map(group).collect(),
        looked_at: grouped(found.looked_at as u64),
        more: found.more,
        rows_max: grouped(DEAD_ROWS_MAX as u64),
        frame,
    })
}

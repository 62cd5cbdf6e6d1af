//! Dead tasks by what killed them, and requeue or purge of a whole group.

use askama::Template;

use super::overview::trouble;
use super::{Frame, Part, Shown, Visit, html, page};
use crate::app::App;
use crate::failure::Failure;
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
    groups: String,
}

#[derive(Template)]
#[template(path = "part_dead.html")]
struct DeadPart<'a> {
    base: &'a str,
    may_change: bool,
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
    let frame = visit.frame("dead", "Dead tasks").live("dead");
    let groups = html(&look(&visit.app, frame.may_change).await?);
    page(&DeadPage { trouble: trouble(&snapshot, &frame.base), groups, frame })
}

pub(super) async fn parts(app: &App, may_change: bool) -> Result<Vec<Part>, Failure> {
    Ok(vec![Part::new("p-dead-groups", &look(app, may_change).await?)])
}

async fn look(app: &App, may_change: bool) -> Result<DeadPart<'_>, Failure> {
    let found = app.rows.ask(rows::dead_groups).await?;
    let base = app.settings.base_path.as_str();
    let group = |group: &rows::DeadGroup| {
        let words = format!("kind:{} line:{}", quoted(&group.kind), quoted(&group.error));
        let all = |change: &str| format!("{base}/tasks/change-all?change={change}&state=dead&q={}", encode(&words));
        Group {
            kind: group.kind.clone(),
            error: group.error.clone(),
            n: grouped(group.n as u64),
            tasks: group.tasks.clone(),
            last: group.last_at.map_or_else(String::new, |at| At(at).html()),
            first: group.first_at.map_or_else(String::new, |at| At(at).html()),
            link: format!("{base}/tasks?state=dead&q={}", encode(&words)),
            requeue: all("requeue"),
            purge: all("purge"),
        }
    };
    Ok(DeadPart {
        base,
        may_change,
        groups: found.groups.iter().map(group).collect(),
        looked_at: grouped(found.looked_at as u64),
        more: found.more,
        rows_max: grouped(DEAD_ROWS_MAX as u64),
    })
}

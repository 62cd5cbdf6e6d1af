//! A batch: how far it is, what it changed and left alone, and a way to stop it.

use askama::Template;
use laneway_protocol::message::Batch;

use super::change::word;
use super::{Frame, Part, Shown, Visit, bar, html, page};
use crate::app::App;
use crate::failure::Failure;
use crate::request::Path;
use crate::time::grouped;

#[derive(Template)]
#[template(path = "batch.html")]
struct BatchPage {
    frame: Frame,
    number: u64,
    body: String,
}

#[derive(Template)]
#[template(path = "part_batch.html")]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of the template")]
struct BatchPart {
    base: String,
    number: u64,
    change: &'static str,
    is_dry: bool,
    may_change: bool,
    is_over: bool,
    is_stopped: bool,
    bar: String,
    percent: u64,
    seen: String,
    changed: String,
    unchanged: u64,
    twins: u64,
    needed: u64,
}

impl BatchPart {
    fn of(batch: &Batch, base: &str, may_change: bool) -> Self {
        let whole = batch.until.max(1);
        let at = if batch.over && !batch.stopped { whole } else { batch.at.min(whole) };
        Self {
            base: base.into(),
            number: batch.number,
            change: word(batch.change),
            is_dry: batch.dry_run,
            may_change,
            is_over: batch.over,
            is_stopped: batch.stopped,
            bar: bar(at, whole, "s-accent"),
            percent: at * 100 / whole,
            seen: grouped(batch.seen),
            changed: grouped(batch.changed),
            unchanged: batch.unchanged,
            twins: batch.twins,
            needed: batch.needed,
        }
    }
}

async fn look(app: &App, number: u64, stop: bool) -> Result<Batch, Failure> {
    app.live.ask(move |client| client.batch(number, stop)).await
}

pub(super) async fn parts(app: &App, number: u64, may_change: bool) -> Result<Vec<Part>, Failure> {
    let batch = look(app, number, false).await?;
    Ok(vec![Part::new("p-batch", &BatchPart::of(&batch, &app.settings.base_path, may_change))])
}

pub(crate) async fn show(visit: Visit, Path(number): Path<u64>) -> Shown {
    let batch = look(&visit.app, number, false).await?;
    let frame = visit.frame("tasks", &format!("Batch {number}")).live(format!("batch:{number}"));
    let body = html(&BatchPart::of(&batch, &frame.base, frame.may_change));
    page(&BatchPage { frame, number, body })
}

pub(crate) async fn stop(visit: Visit, Path(number): Path<u64>) -> Shown {
    look(&visit.app, number, true).await?;
    Ok(visit.to(&format!("/batches/{number}")))
}

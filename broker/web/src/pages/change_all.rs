//! Changes of all tasks that meet a filter: a page that counts them and asks, then a batch in the background of the broker.

use std::time::Duration;

use askama::Template;
use laneway::{LaneName, TaskState};
use laneway_protocol::message::{Batch, BulkFilter, Change};

use super::change::{change, is_dangerous, lane, word};
use super::tasks::{connected, filter, lane_names};
use super::{Frame, Shown, Visit, page};
use crate::failure::Failure;
use crate::filter::Filter;
use crate::request::{Fields, Form, Query};
use crate::time::grouped;

/// A count that is not through after so many looks, and so long between two, is shown as it is.
const LOOKS: usize = 10;
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Template)]
#[template(path = "change_all.html")]
struct ChangeAllPage {
    frame: Frame,
    change: &'static str,
    is_dangerous: bool,
    is_move: bool,
    lanes: Vec<String>,
    state: String,
    text: String,
    /// How many would be changed; empty when that was not counted.
    count: String,
    /// How many of those that match stay as they are, and why.
    stay: Vec<String>,
    back: String,
}

struct Wanted {
    change: Change,
    filter: Filter,
    bulk: BulkFilter,
}

fn wanted(visit: &Visit, fields: &Fields) -> Result<Wanted, Failure> {
    let change = change(fields.text("change").unwrap_or_default())?;
    let filter = meant(change, filter(fields)?);
    let bulk =
        filter.to_bulk(&connected(&visit.app.live.last())).map_err(|wrong| Failure::bad("q", wrong.to_string()))?;
    Ok(Wanted { change, filter, bulk })
}

/// Who queues again all that match means the dead ones, as on the command line; cancelled ones only where it is said.
pub(crate) fn meant(change: Change, mut filter: Filter) -> Filter {
    if change == Change::Requeue && filter.state.is_none() {
        filter.state = Some(TaskState::Dead);
    }
    filter
}

/// Asks before anything is done.
pub(crate) async fn ask(visit: Visit, Query(fields): Query) -> Shown {
    let Wanted { change, filter, bulk } = wanted(&visit, &fields)?;
    let frame = visit.frame("tasks", "All that match");
    let (count, stay) = if frame.may_change { count(&visit, change, bulk).await? } else { Default::default() };
    page(&ChangeAllPage {
        change: word(change),
        is_dangerous: is_dangerous(change),
        is_move: change == Change::Move,
        lanes: lane_names(&visit.app.live.last()),
        state: filter.state.map_or_else(String::new, |state| state.to_string()),
        text: filter.to_string(),
        count,
        stay,
        back: format!("{}/tasks", frame.base),
        frame,
    })
}

/// By a batch that changes nothing, which is stopped when it takes its time.
async fn count(visit: &Visit, change: Change, filter: BulkFilter) -> Result<(String, Vec<String>), Failure> {
    let live = &visit.app.live;
    // Where to makes no difference to how many.
    let anywhere = lane_names(&live.last()).first().and_then(|name| LaneName::new(name).ok());
    let lane = anywhere.filter(|_| change == Change::Move);
    let mut batch = live.ask(move |client| client.change_all(change, lane.as_ref(), filter, true)).await?;
    let number = batch.number;
    for _ in 0..LOOKS {
        if batch.over {
            return Ok((grouped(batch.changed), stay(&batch)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        batch = live.ask(move |client| client.batch(number, false)).await?;
    }
    let batch = live.ask(move |client| client.batch(number, true)).await?;
    Ok((format!("{} and more", grouped(batch.changed)), stay(&batch)))
}

fn stay(batch: &Batch) -> Vec<String> {
    let whys = [
        (batch.needed, "still needed by a group, a child or a unique key"),
        (batch.twins, "with a unique key that is live again"),
        (batch.unchanged, "in no state for it"),
    ];
    whys.into_iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{} {why}", grouped(n))).collect()
}

pub(crate) async fn all(visit: Visit, Form(fields): Form) -> Shown {
    let Wanted { change, bulk, .. } = wanted(&visit, &fields)?;
    let lane = lane(change, fields.text("lane"))?;
    let batch = visit.app.live.change(move |client| client.change_all(change, lane.as_ref(), bulk, false)).await?;
    Ok(visit.to(&format!("/batches/{}", batch.number)))
}

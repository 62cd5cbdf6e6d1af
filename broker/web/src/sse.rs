//! Live updates: one stream a tab, at most one message a second, with the parts of its page that have changed.
//!
//! A part is rendered once however many look at it, and travels only when it differs from what the tab has. A hidden tab shuts
//! its stream (`app.js`), so that nobody is asked for what nobody sees.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, http::HeaderValue};
use futures_core::Stream;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::access::{Role, Visitor};
use crate::app::{App, Shared, stopped};
use crate::failure::Failure;
use crate::kept::Kept;
use crate::limits::{FRESH, LIVE_SHARE, PARTS_MAX, STALLED_TIME};
use crate::pages::{self, Part};
use crate::request::Query;
use crate::rows;

/// Between two messages of one stream.
const BEAT: Duration = Duration::from_secs(1);
/// A proxy shuts what is silent for long, and a reader that is gone is noticed by writing.
pub(crate) const SILENT_TIME: Duration = Duration::from_secs(15);

/// Parts by page and by whether the visitor may change things, as they were rendered last.
pub(crate) struct Parts(Kept<(String, bool), Arc<Vec<Part>>>);

impl Default for Parts {
    fn default() -> Self {
        Self(Kept::new(PARTS_MAX))
    }
}

pub(crate) async fn stream(
    State(app): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Query(fields): Query,
) -> Result<Response, Failure> {
    let page = fields.text("page").unwrap_or("none").to_owned();
    if !pages::is_live(&page) {
        return Err(Failure::bad("page", format!("'{page}' has no live parts")));
    }
    let place = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| Failure::busy())?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        feed(&app, &page, visitor.role, &sender).await;
        drop(place);
    });
    Ok(answer(receiver))
}

/// The beginning of a stream of what comes by this channel.
pub(crate) fn answer(receiver: mpsc::Receiver<Bytes>) -> Response {
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // nginx would keep messages back.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (head, Body::from_stream(Messages(receiver))).into_response()
}

/// How fast a stream goes, and how long.
pub(crate) struct Pace {
    beat: tokio::time::Interval,
    stop: watch::Receiver<bool>,
}

impl Pace {
    /// Opens a stream. `None` when its reader is gone already.
    pub(crate) async fn begin(app: &App, sender: &mpsc::Sender<Bytes>) -> Option<Self> {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        send(sender, "retry: 2000\n\n".into()).await.then(|| Self { beat, stop: app.stop.clone() })
    }

    /// Waits until the next message may go, the first at once. False when the reader is gone or the dashboard stops.
    pub(crate) async fn next(&mut self, sender: &mpsc::Sender<Bytes>) -> bool {
        tokio::select! {
            _ = self.beat.tick() => true,
            () = sender.closed() => false,
            () = stopped(&mut self.stop) => false,
        }
    }
}

/// Until the reader is gone, reads nothing for long, the access file is read again, or the dashboard stops.
async fn feed(app: &App, page: &str, role: Role, sender: &mpsc::Sender<Bytes>) {
    let mut has: HashMap<&'static str, String> = HashMap::new();
    let mut said = Instant::now();
    let Some(mut beats) = Pace::begin(app, sender).await else { return };
    let readings = app.access.readings();
    // Others may be let in from now on: the tab comes back, and is asked who it is.
    while beats.next(sender).await && app.access.readings() == readings {
        let parts = render(app, page, role >= Role::Admin && !app.settings.read_only).await;
        let mut changed = Map::new();
        for part in parts.iter() {
            if has.get(part.id) != Some(&part.sense) {
                has.insert(part.id, part.sense.clone());
                changed.insert(part.id.into(), part.html.clone().into());
            }
        }
        let rates = app.live.last().rates.last().copied();
        let message = json!({ "parts": changed, "rates": if page == "overview" { json!(rates) } else { Value::Null } });
        if changed_nothing(&message) && said.elapsed() < SILENT_TIME {
            continue;
        }
        said = Instant::now();
        if !send(sender, format!("data: {message}\n\n")).await {
            return;
        }
    }
}

fn changed_nothing(message: &Value) -> bool {
    message["parts"].as_object().is_some_and(Map::is_empty) && message["rates"].is_null()
}

/// False when the reader is gone or has taken nothing for long.
pub(crate) async fn send(sender: &mpsc::Sender<Bytes>, text: String) -> bool {
    matches!(tokio::time::timeout(STALLED_TIME, sender.send(text.into())).await, Ok(Ok(())))
}

/// What cannot be rendered now stays as it is on the page.
async fn render(app: &App, page: &str, may_change: bool) -> Arc<Vec<Part>> {
    let parts = &app.parts.0;
    let look = || async {
        // The picture is of all pages and costs this one nothing.
        let snapshot = app.live.follow().await;
        let begun = Instant::now();
        let found = Arc::new(rows::at_leisure(pages::parts(app, &snapshot, page, may_change)).await);
        Ok((found, fresh_for(begun.elapsed(), parts.wanted())))
    };
    parts.get(&(page.to_owned(), may_change), look).await.unwrap_or_default()
}

/// A page that takes long to look up, or waits long behind others, rests longer, and the more so the more there are.
fn fresh_for(took: Duration, pages: usize) -> Duration {
    FRESH.max(took * LIVE_SHARE * u32::try_from(pages.max(1)).unwrap_or(u32::MAX))
}

/// The body of a stream.
struct Messages(mpsc::Receiver<Bytes>);

impl Stream for Messages {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|message| message.map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_pages_rest_longer_the_more_they_take_together() {
        // Proves that a quick page comes each second, and that fifty slow ones that differ leave the rest of the time to others.
        assert_eq!(fresh_for(Duration::from_millis(2), 50), FRESH);
        assert_eq!(fresh_for(Duration::from_millis(150), 1), FRESH);
        assert_eq!(fresh_for(Duration::from_millis(150), 50), Duration::from_secs(30));
    }
}

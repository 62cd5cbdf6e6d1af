//! The stream behind an observer link: where the task or group stands, told when it changes, at most once a second.
//!
//! Each message is the whole standing, and its id is made of it. So a reader that comes back says what it saw last
//! (`Last-Event-ID`) and is not told it again, whichever life of the broker it comes back to. The last message is an `end`; a
//! link that is no good any more gets a `gone`. Either ends the stream, and the reader stays away.

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use laneway::ObserverLink;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::told::told;
use crate::app::{App, Shared};
use crate::failure::Failure;
use crate::request::Path;
use crate::rows::Standing;
use crate::sse::{Pace, SILENT_TIME, answer, send};

pub(crate) async fn events(
    State(app): State<Shared>,
    Path(token): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    // What is wrong from the start is told by a status, which ends a browser's tries.
    let first = look(&app, &token).await?;
    let place = std::sync::Arc::clone(&app.observers).try_acquire_owned().map_err(|_| Failure::busy())?;
    let known = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        feed(&app, &token, first, known, &sender).await;
        drop(place);
    });
    Ok(answer(receiver))
}

/// The key of a link may be taken away, and its time be over, while it is watched.
async fn look(app: &App, token: &str) -> Result<(ObserverLink, Standing), Failure> {
    let link = app.links.open(token)?;
    let standing = app.looks.look(&app.rows, link.observed()).await?;
    Ok((link, standing))
}

/// Until there is nothing more to tell, the reader is gone or reads nothing for long, or the dashboard stops.
async fn feed(
    app: &App,
    token: &str,
    first: (ObserverLink, Standing),
    mut known: Option<String>,
    sender: &mpsc::Sender<Bytes>,
) {
    let (mut first, mut said) = (Some(first), Instant::now());
    let Some(mut beats) = Pace::begin(app, sender).await else { return };
    while beats.next(sender).await {
        let looked = match first.take() {
            Some(first) => Ok(first),
            None => look(app, token).await,
        };
        let next = next(&looked, known.as_deref());
        let is_silent = said.elapsed() >= SILENT_TIME;
        let text = match &next {
            Next::Tell(id, text) => format!("id: {id}\ndata: {text}\n\n"),
            Next::End(id, text) => format!("event: end\nid: {id}\ndata: {text}\n\n"),
            Next::Gone(text) => format!("event: gone\ndata: {text}\n\n"),
            Next::Nothing if is_silent => ": here\n\n".into(),
            Next::Nothing => String::new(),
        };
        if !text.is_empty() {
            said = Instant::now();
            if !send(sender, text).await {
                return;
            }
        }
        match next {
            Next::Tell(id, _) => known = Some(id),
            Next::End(..) | Next::Gone(_) => return,
            Next::Nothing => {}
        }
    }
}

/// What a reader is to be told.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Tell(String, String),
    /// Said to those who come back for it, too: they must learn that there is no more.
    End(String, String),
    Gone(String),
    Nothing,
}

fn next(looked: &Result<(ObserverLink, Standing), Failure>, known: Option<&str>) -> Next {
    match looked {
        Ok((link, standing)) => {
            let text = told(link, standing);
            let id = crate::payload::hex(&Sha256::digest(&text)[..8]);
            if standing.state.is_final() {
                Next::End(id, text)
            } else if known == Some(&id) {
                Next::Nothing
            } else {
                Next::Tell(id, text)
            }
        }
        // It gives way, or the database is busy: what was told stays true until the next look.
        Err(failure) if failure.status.is_server_error() || failure.code == "too_broad" => Next::Nothing,
        Err(failure) => Next::Gone(failure.json().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use laneway::{TaskId, TaskState};

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as a look gives it")]
    fn looked(state: TaskState, done: u64) -> Result<(ObserverLink, Standing), Failure> {
        let link = ObserverLink::new(TaskId::new(12).unwrap(), Duration::from_mins(1)).unwrap();
        let standing = Standing {
            state,
            done: Some(done),
            total: Some(3),
            failed: None,
            note: None,
            created_at: None,
            started_at: None,
            finished_at: None,
            error: None,
        };
        Ok((link, standing))
    }

    #[test]
    fn nothing_is_told_twice_but_an_end() {
        // Proves resume: the id is of what is told and of no stream, so it holds across streams; and what ends one.
        let Next::Tell(id, text) = next(&looked(TaskState::Running, 1), None) else { panic!("nothing is told") };
        assert!(text.contains(r#""percent":33"#), "{text}");
        assert_eq!(next(&looked(TaskState::Running, 1), Some(&id)), Next::Nothing);
        assert!(matches!(next(&looked(TaskState::Running, 2), Some(&id)), Next::Tell(other, _) if other != id));
        let Next::End(id, _) = next(&looked(TaskState::Done, 3), Some(&id)) else { panic!("no end is told") };
        assert!(matches!(next(&looked(TaskState::Done, 3), Some(&id)), Next::End(..)));
        assert_eq!(next(&Err(Failure::busy()), None), Next::Nothing);
        let gone = next(&Err(Failure::not_found("task 12 is not there")), None);
        assert!(matches!(&gone, Next::Gone(text) if text.contains("\"code\":\"not_found\"")), "{gone:?}");
    }
}

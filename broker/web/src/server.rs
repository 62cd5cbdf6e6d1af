//! The thread `web`: connections, how many and how slow they may be, and an end within a second.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt as _;

use crate::access::Access;
use crate::app::{App, stopped};
use crate::error::Error;
use crate::limits::{CONNECTIONS_MAX, HEAD_BYTES_MAX, HEAD_TIME};
use crate::live::Live;
use crate::observe::Links;
use crate::routes;
use crate::rows::Rows;
use crate::settings::Settings;
use crate::threads;

/// What is under way at a stop may take so long.
const STOP_TIME: Duration = Duration::from_millis(500);
/// And the threads that it waits for so long on top.
const JOIN_TIME: Duration = Duration::from_millis(400);
/// Steps of connections between two looks at what has come in: whoever opens a page does not wait for all the tabs that are due.
const TURNS_UNSEEN: u32 = 4;
/// After an accept that failed: the descriptors are used up, and they come back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A running dashboard.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    access: Arc<Access>,
    links: Arc<Links>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts the dashboard. It listens when this returns; the broker need not be there yet.
///
/// Fails when a setting makes no sense, when a file that it names cannot be used, when the address is in use, or when it would let anybody in from the network.
pub fn start(mut settings: Settings) -> Result<Web, Error> {
    settings.check_words()?;
    let (access, links) = (Arc::new(settings.access()?), Arc::new(settings.links()?));
    let listener = settings.listen()?;
    let bind = settings.bind;
    let no_use = |source| Error::Bind { address: bind, source };
    listener.set_nonblocking(true).map_err(no_use)?;
    settings.bind = listener.local_addr().map_err(no_use)?;
    let address = settings.bind;

    let runtime = tokio::runtime::Builder::new_current_thread().event_interval(TURNS_UNSEEN).enable_all().build();
    let runtime = runtime.map_err(|source| Error::Start { part: "runtime", source })?;
    let (stop, told) = watch::channel(false);
    let (rows, rows_thread) = Rows::start(settings.db.clone())?;
    let (live, live_thread) = Live::start(&settings, rows.clone())?;
    let app = Arc::new(App::new(settings, (Arc::clone(&access), Arc::clone(&links)), (live, rows), told.clone()));
    let body = move || {
        runtime.block_on(serve(listener, &app, told));
        // What is still open has had its time.
        runtime.shutdown_background();
    };
    let web = threads::start("web", body)?;
    tracing::info!(target: "laneway::web", %address, "dashboard");
    Ok(Web { address, access, links, stop, threads: vec![web, live_thread, rows_thread] })
}

impl Web {
    /// Where it listens: the port that the system chose, where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Reads the access file and the keys of observer links again. A file that is wrong leaves what it said before, and the log
    /// says so.
    pub fn reload(&self) {
        self.access.reload();
        self.links.reload();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends it, within a second. What is written is on its way; streams are cut.
    pub fn stop(self) {
        let until = Instant::now() + STOP_TIME + JOIN_TIME;
        self.stop.send_replace(true);
        for thread in self.threads {
            // A question to a broker that hangs is not waited for: its thread ends by itself and holds nothing.
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(2));
            }
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!(target: "laneway::web", "a thread of the dashboard panicked");
            }
        }
    }
}

async fn serve(listener: TcpListener, app: &Arc<App>, mut stop: watch::Receiver<bool>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(target: "laneway::web", %error, "the dashboard cannot listen");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let router = routes::router(app);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => break,
        };
        let (stream, _) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(target: "laneway::web", %error, "no connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let (router, app, stop) = (router.clone(), Arc::clone(app), stop.clone());
                tokio::spawn(async move {
                    connection(stream, router, &app, stop).await;
                    drop(place);
                });
            }
            Err(_) => drop(tokio::spawn(refuse(stream))),
        }
    }
    let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
    drop(tokio::time::timeout(STOP_TIME, places.acquire_many(all)).await);
}

async fn refuse(stream: TcpStream) {
    // It fits what the system takes at once, or the peer learns it by the end of the connection.
    if tokio::time::timeout(STOP_TIME, stream.writable()).await.is_ok_and(|ready| ready.is_ok()) {
        drop(stream.try_write(FULL));
    }
}

async fn connection(stream: TcpStream, router: Router, app: &Arc<App>, mut stop: watch::Receiver<bool>) {
    // Answers are written whole, so waiting for more to send helps nobody.
    drop(stream.set_nodelay(true));
    let base = app.settings.base_path.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let fits = head_bytes(&request) <= HEAD_BYTES_MAX;
        let answer = fits.then(|| router.clone().oneshot(under(&base, request.map(Body::new))));
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Ok(head_too_large()),
            }
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(target: "laneway::web", %error, "connection");
    }
}

/// What the head of a request has taken. hyper compares its buffer with the bound only where that does not hold a whole head yet:
/// one that comes at once may be nearly twice as large, and then how it came would decide.
fn head_bytes<T>(request: &Request<T>) -> usize {
    let line = request.method().as_str().len() + request.uri().to_string().len() + "  HTTP/1.1\r\n".len();
    let field = |name: &str, value: &HeaderValue| name.len() + value.len() + ": \r\n".len();
    line + request.headers().iter().map(|(name, value)| field(name.as_str(), value)).sum::<usize>() + "\r\n".len()
}

/// As hyper answers one that does not fit its buffer.
fn head_too_large() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Takes the path of a reverse proxy away. Some proxies have done so already.
fn under(base: &str, mut request: Request<Body>) -> Request<Body> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if let Some(rest) = path.strip_prefix(base).filter(|_| !base.is_empty()) {
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        if let Ok(uri) = rest.parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_proxy_is_taken_away() {
        // Proves that it works behind proxies that cut the path and those that do not.
        for (base, uri, inner) in [
            ("", "/tasks?q=a", "/tasks?q=a"),
            ("/lw", "/lw/tasks?q=a", "/tasks?q=a"),
            ("/lw", "/lw", "/"),
            ("/lw", "/lw?x=1", "/?x=1"),
            ("/lw", "/tasks", "/tasks"),
        ] {
            let request = Request::builder().uri(uri).body(Body::empty()).unwrap();
            assert_eq!(under(base, request).uri().to_string(), inner);
        }
    }
}

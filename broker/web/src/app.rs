//! What every handler has at hand. Shared, and nothing in it is locked for longer than a copy takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

use crate::access::Access;
use crate::assets::Assets;
use crate::limits::{GUESSES_MAX, OBSERVERS_MAX, STREAMS_MAX, WAITERS_MAX};
use crate::live::Live;
use crate::observe::Links;
use crate::observe::looks::Looks;
use crate::rows::Rows;
use crate::settings::Settings;
use crate::sse::Parts;
use crate::time::now_ms;

pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) access: Arc<Access>,
    pub(crate) live: Live,
    pub(crate) rows: Rows,
    pub(crate) assets: Assets,
    /// Places for streams of live updates.
    pub(crate) streams: Arc<Semaphore>,
    /// Places for requests that wait for the end of a task.
    pub(crate) waiters: Arc<Semaphore>,
    /// Places for streams of those who come by an observer link.
    pub(crate) observers: Arc<Semaphore>,
    /// Places for wrong passwords, whose answers are held back.
    pub(crate) guesses: Semaphore,
    pub(crate) links: Arc<Links>,
    /// What observers saw a moment ago.
    pub(crate) looks: Looks,
    /// Parts of pages that were rendered a moment ago.
    pub(crate) parts: Parts,
    requests: AtomicU64,
    pub(crate) started_at: i64,
    /// Ended when the dashboard is: streams end with it.
    pub(crate) stop: tokio::sync::watch::Receiver<bool>,
}

pub(crate) type Shared = Arc<App>;

/// Until the dashboard is told to end, or its owner is gone.
pub(crate) async fn stopped(stop: &mut tokio::sync::watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

impl App {
    pub(crate) fn new(
        settings: Settings,
        (access, links): (Arc<Access>, Arc<Links>),
        (live, rows): (Live, Rows),
        stop: tokio::sync::watch::Receiver<bool>,
    ) -> Self {
        Self {
            settings,
            access,
            live,
            rows,
            assets: Assets::new(),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            waiters: Arc::new(Semaphore::new(WAITERS_MAX)),
            observers: Arc::new(Semaphore::new(OBSERVERS_MAX)),
            guesses: Semaphore::new(GUESSES_MAX),
            links,
            looks: Looks::default(),
            parts: Parts::default(),
            requests: AtomicU64::new(0),
            started_at: now_ms(),
            stop,
        }
    }

    pub(crate) fn streams_open(&self) -> usize {
        STREAMS_MAX - self.streams.available_permits()
    }

    pub(crate) fn observers_open(&self) -> usize {
        OBSERVERS_MAX - self.observers.available_permits()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

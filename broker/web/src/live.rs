//! The thread `live`: the one place that asks the broker, over the same wire as everybody else.
//!
//! A picture of the broker ([`Snapshot`]) is taken when somebody looks, at most about once a second however many look, and every
//! ten seconds when nobody does, so that whoever comes finds the last five minutes. What people do goes through the same thread,
//! one after the other. Its inbox is bounded: when it is full the question is shed, and the broker notices nothing of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use laneway::{Client, Curve};
use tokio::sync::{oneshot, watch};

use crate::error::Error;
use crate::failure::Failure;
use crate::limits::{
    BROKER_QUESTIONS_MAX, BROKER_TIME, FRESH, HISTORY_MS, HISTORY_POINTS_MAX, LOOK_TIME, PAGE_TIME, RECENT, UNSEEN_TIME,
};
use crate::rows::Rows;
use crate::settings::Settings;
use crate::snapshot::{Facts, Sample, Snapshot};
use crate::threads;
use crate::time::now_ms;

/// How long one try to connect may take: a broker on this machine answers in a millisecond.
const CONNECT_TIME: Duration = Duration::from_millis(700);
/// After a broker did not answer, questions fail at once for so long, so that a page needs not wait for each of its parts.
const AWAY_TIME: Duration = Duration::from_millis(800);

enum Job {
    Look,
    Ask(Box<dyn FnOnce(&mut Link) + Send>),
}

/// The web thread's end.
#[derive(Clone)]
pub(crate) struct Live {
    jobs: Sender<Job>,
    seen: watch::Receiver<Arc<Snapshot>>,
    /// A look is under way.
    looks: Arc<AtomicBool>,
}

impl Live {
    pub(crate) fn start(settings: &Settings, rows: Rows) -> Result<(Self, JoinHandle<()>), Error> {
        let (jobs, inbox) = bounded(BROKER_QUESTIONS_MAX);
        let (publish, seen) = watch::channel(Arc::new(Snapshot::nothing_yet()));
        let looks = Arc::new(AtomicBool::new(false));
        let eye = Eye {
            link: Link {
                endpoint: settings.endpoint.clone(),
                curve: settings.curve.clone(),
                client: None,
                away_until: None,
            },
            db: settings.db.clone(),
            rows,
            history: VecDeque::new(),
            publish,
            looks: Arc::clone(&looks),
        };
        let thread = threads::start("live", move || eye.run(&inbox))?;
        Ok((Self { jobs, seen, looks }, thread))
    }

    /// The last picture, however old.
    pub(crate) fn last(&self) -> Arc<Snapshot> {
        Arc::clone(&self.seen.borrow())
    }

    /// A picture of now, or the last one when the broker takes its time.
    pub(crate) async fn look(&self) -> Arc<Snapshot> {
        self.look_within(LOOK_TIME).await
    }

    /// For a page, which comes at once whatever the broker does: the stream of live updates brings what is newer a moment later.
    pub(crate) async fn glance(&self) -> Arc<Snapshot> {
        let last = self.last();
        if last.is_taken && (FRESH..RECENT).contains(&last.taken.elapsed()) {
            self.order_look();
            return last;
        }
        self.follow().await
    }

    /// For what is live: the next picture, if it comes soon.
    pub(crate) async fn follow(&self) -> Arc<Snapshot> {
        let is_first = !self.seen.borrow().is_taken;
        self.look_within(if is_first { LOOK_TIME } else { PAGE_TIME }).await
    }

    async fn look_within(&self, time: Duration) -> Arc<Snapshot> {
        let mut seen = self.seen.clone();
        let last = Arc::clone(&seen.borrow_and_update());
        if last.taken.elapsed() < FRESH && last.is_taken {
            return last;
        }
        self.order_look();
        drop(tokio::time::timeout(time, seen.changed()).await);
        self.last()
    }

    /// Unless one is under way, or too much else is asked for.
    fn order_look(&self) {
        if !self.looks.swap(true, Ordering::SeqCst) && self.jobs.try_send(Job::Look).is_err() {
            self.looks.store(false, Ordering::SeqCst);
        }
    }

    /// Changes something, and takes a new picture: the page that follows shows what has become of it.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Client) -> Result<T, laneway::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let changed = self.ask(change).await;
        // Whatever is taken from here on is taken after the change, for the thread does one thing after the other.
        let mut seen = self.seen.clone();
        seen.mark_unchanged();
        self.order_look();
        drop(tokio::time::timeout(LOOK_TIME, seen.changed()).await);
        changed
    }

    /// Asks the broker something.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Client) -> Result<T, laneway::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Ask(Box::new(move |link| {
            // Whoever asked may be gone, and then so is what they wanted.
            if !reply.is_closed() {
                drop(reply.send(link.ask(question)));
            }
        }));
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Failure::busy()),
            Err(TrySendError::Disconnected(_)) => return Err(Failure::stopping()),
        }
        answer.await.map_err(|_| Failure::stopping())?.map_err(Failure::from)
    }
}

/// A connection to the broker that is made when it is needed and forgotten when it fails.
pub(crate) struct Link {
    endpoint: String,
    curve: Option<Curve>,
    client: Option<Client>,
    away_until: Option<Instant>,
}

impl Link {
    fn ask<T>(&mut self, question: impl FnOnce(&Client) -> Result<T, laneway::Error>) -> Result<T, laneway::Error> {
        if self.away_until.is_some_and(|until| Instant::now() < until) {
            return Err(laneway::Error::NoBroker { endpoint: self.endpoint.clone(), waited: Duration::ZERO });
        }
        let answer = self.client().and_then(question);
        match &answer {
            Err(laneway::Error::NoBroker { .. } | laneway::Error::NotAdmitted { .. }) => {
                self.client = None;
                self.away_until = Some(Instant::now() + AWAY_TIME);
            }
            _ => self.away_until = None,
        }
        answer
    }

    fn client(&mut self) -> Result<&Client, laneway::Error> {
        if self.client.is_none() {
            drop(self.connect(CONNECT_TIME)?);
            self.client = Some(self.connect(BROKER_TIME)?);
        }
        self.client.as_ref().ok_or_else(|| laneway::Error::System("no connection".into()))
    }

    fn connect(&self, time: Duration) -> Result<Client, laneway::Error> {
        match &self.curve {
            Some(curve) => Client::connect_curve(&self.endpoint, curve.clone(), time),
            None => Client::connect_with(&self.endpoint, time),
        }
    }
}

/// The thread's own side.
struct Eye {
    link: Link,
    db: std::path::PathBuf,
    rows: Rows,
    history: VecDeque<Sample>,
    publish: watch::Sender<Arc<Snapshot>>,
    looks: Arc<AtomicBool>,
}

impl Eye {
    fn run(mut self, inbox: &Receiver<Job>) {
        loop {
            match inbox.recv_timeout(UNSEEN_TIME) {
                Ok(Job::Look) | Err(RecvTimeoutError::Timeout) => {
                    let snapshot = self.look();
                    self.publish.send_replace(Arc::new(snapshot));
                    self.looks.store(false, Ordering::SeqCst);
                }
                Ok(Job::Ask(ask)) => ask(&mut self.link),
                // The last sender is gone.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) -> Snapshot {
        let asked = self.link.ask(|client| {
            // The one question that needs no store: whoever answers it is there.
            let workers = client.workers()?;
            let rest = || Ok((client.stats()?, client.lanes()?, client.kinds()?));
            Ok((workers, rest()))
        });
        let last = Arc::clone(&self.publish.borrow());
        let database_bytes = std::fs::metadata(&self.db).map_or(0, |file| file.len());
        match asked {
            Ok((workers, Ok((stats, lanes, kinds)))) => {
                let mut facts = Facts { stats, lanes, kinds, workers, database_bytes, ..Facts::default() };
                facts.oldest = self.rows.oldest(&facts);
                self.note(&facts);
                Snapshot::of(facts, &self.history)
            }
            // The broker answers though its store does not: so much is known, beside what was known before.
            Ok((workers, Err(error))) => {
                let mut facts = Facts { workers, database_bytes, ..last.facts.clone().unwrap_or_default() };
                facts.stats.storage_error = Some(match error {
                    laneway::Error::Refused(refused) => refused.text,
                    _ => "it does not answer in time".into(),
                });
                Snapshot::of(facts, &self.history)
            }
            Err(error) => Snapshot::without_answer(&last, error.to_string(), database_bytes),
        }
    }

    fn note(&mut self, facts: &Facts) {
        let now = now_ms();
        if self.history.back().is_some_and(|last| last.epoch != facts.stats.epoch) {
            // Another life of the broker counts from zero.
            self.history.clear();
        }
        self.history.push_back(Sample::of(facts, now));
        while self.history.len() > HISTORY_POINTS_MAX
            || self.history.front().is_some_and(|first| first.at < now - HISTORY_MS)
        {
            self.history.pop_front();
        }
    }
}

//! The thread `rows`: short looks into the table over a connection that can only read.
//!
//! Each look is bounded in rows by its SQL and in time by the connection, which breaks it off; no transaction stays open between
//! two. Every statement goes by an index of the schema, which a test asks SQLite about. Its inbox is bounded: a full one sheds.

mod dead;
mod group_counts;
mod groups;
mod oldest;
mod schedules;
mod schema;
mod standing;
mod table;
mod task;
mod tasks;
#[cfg(test)]
pub(crate) mod testing;

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

pub(crate) use self::dead::{DeadGroup, dead_groups};
pub(crate) use self::group_counts::GroupCounts;
pub(crate) use self::groups::{GroupLine, group, groups};
use self::oldest::Queues;
pub use self::oldest::{Ages, Oldest};
pub(crate) use self::schedules::{ScheduleLine, schedules};
pub(crate) use self::schema::schema;
pub(crate) use self::standing::{Standing, standing};
pub(crate) use self::table::{Table, Trouble};
pub(crate) use self::task::{Edge, Relations, TaskDetail, relations, task};
pub(crate) use self::tasks::{Page, PageQuery, TaskLine, page};
use crate::error::Error;
use crate::failure::Failure;
use crate::limits::ROW_QUESTIONS_MAX;
use crate::snapshot::Facts;
use crate::threads;

/// How long the thread `live` waits for the ages of lanes, which it can do without.
const OLDEST_TIME: Duration = Duration::from_millis(300);

type Job = Box<dyn FnOnce(&mut Table) + Send>;

tokio::task_local! {
    /// Set around the looks that nobody waits for: those of live streams.
    static AT_LEISURE: ();
}

/// Looks of this come behind those that somebody waits for.
pub(crate) async fn at_leisure<F: Future>(looks: F) -> F::Output {
    AT_LEISURE.scope((), looks).await
}

/// The other threads' end.
#[derive(Clone)]
pub(crate) struct Rows {
    /// What somebody waits for, and what may come later.
    awaited: Sender<Job>,
    leisurely: Sender<Job>,
}

impl Rows {
    pub(crate) fn start(db: PathBuf) -> Result<(Self, JoinHandle<()>), Error> {
        let (awaited, first) = bounded(ROW_QUESTIONS_MAX);
        let (leisurely, then) = bounded(ROW_QUESTIONS_MAX);
        let body = move || {
            let mut table = Table::new(db);
            while let Some(job) = next(&first, &then) {
                job(&mut table);
            }
        };
        Ok((Self { awaited, leisurely }, threads::start("rows", body)?))
    }

    /// Looks something up.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Table) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let asked = Instant::now();
        let job = Box::new(move |table: &mut Table| {
            if !reply.is_closed() {
                table.asked(asked);
                drop(reply.send(look(table)));
            }
        });
        let jobs = if AT_LEISURE.try_with(|()| ()).is_ok() { &self.leisurely } else { &self.awaited };
        match jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Failure::busy()),
            Err(TrySendError::Disconnected(_)) => return Err(Failure::stopping()),
        }
        answer.await.map_err(|_| Failure::stopping())?.map_err(Failure::from)
    }

    /// Of lanes that the table had no time for it is not known.
    pub(crate) fn oldest(&self, facts: &Facts) -> Oldest {
        let queues = || oldest::queues(&facts.lanes, &facts.kinds);
        self.ask_oldest(queues()).unwrap_or_else(|| queues().unknown())
    }

    fn ask_oldest(&self, queues: Queues) -> Option<Oldest> {
        let (reply, answer) = bounded(1);
        let asked = Instant::now();
        let job = Box::new(move |table: &mut Table| {
            table.asked(asked);
            drop(reply.send(oldest::oldest(table, &queues)));
        });
        self.leisurely.try_send(job).ok()?;
        answer.recv_timeout(OLDEST_TIME).ok()?.ok()
    }
}

/// `None` when nobody can ask any more.
fn next(first: &Receiver<Job>, then: &Receiver<Job>) -> Option<Job> {
    crossbeam_channel::select_biased! {
        recv(first) -> job => job.ok(),
        recv(then) -> job => job.ok(),
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        use axum::http::StatusCode;
        match trouble {
            Trouble::TooBroad => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "too_broad", "this would read too much of the table")
                    .next("narrow the filter")
            }
            Trouble::NoDatabase(text) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_database", text),
            Trouble::Sql(text) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "database", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn looks_of_streams_come_behind_those_that_somebody_waits_for() {
        // Proves that a page which is opened waits for one look of fifty open tabs at most.
        let place = testing::Place::new();
        let (rows, _thread) = Rows::start(place.db()).unwrap();
        let (say, said) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let look = |what: &'static str| {
            let (rows, say) = (rows.clone(), say.clone());
            async move {
                rows.ask(move |_| {
                    say.send(what).unwrap();
                    Ok(())
                })
                .await
                .unwrap();
            }
        };
        let held = rows.clone();
        let held = tokio::spawn(async move { held.ask(move |_| Ok(gone.recv().is_ok())).await });
        let stream = tokio::spawn(at_leisure(look("stream")));
        let page = tokio::spawn(look("page"));
        // Each is asked when it is first polled, in this order.
        tokio::task::yield_now().await;
        go.send(()).unwrap();
        assert!(held.await.unwrap().unwrap());
        stream.await.unwrap();
        page.await.unwrap();
        assert_eq!([said.recv(), said.recv()], [Ok("page"), Ok("stream")]);
    }
}

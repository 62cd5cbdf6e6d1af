//! Workers that died a short while ago, remembered for people: the session itself is forgotten at once. A few of them, for a few
//! minutes; how many there were in all is a count.

use std::collections::VecDeque;

use laneway_protocol::message::LostWorker;

use crate::limits::{LOST_TOLD_MAX, LOST_TOLD_MS};
use crate::time::Millis;
use crate::worker::Session;

#[derive(Debug, Default)]
pub(crate) struct LostWorkers {
    /// Since the start.
    total: u64,
    /// The newest last.
    recent: VecDeque<(Millis, LostWorker)>,
}

impl LostWorkers {
    /// A plain worker has no word for leaving: one that went with nothing in hand is nothing to tell.
    pub(crate) fn note(&mut self, session: &Session, now: Millis) {
        if session.plain && session.running.is_empty() {
            return;
        }
        self.total += 1;
        if self.recent.len() == LOST_TOLD_MAX {
            self.recent.pop_front();
        }
        let worker = session.worker();
        let running = u32::try_from(session.running.len()).unwrap_or(u32::MAX);
        // One that said no name is known by its session.
        let name = if worker.name.is_empty() { worker.session.to_string() } else { worker.name };
        self.recent.push_back((now, LostWorker { name, host: worker.host, running, ago_ms: 0 }));
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Those that are still to be told, the newest first.
    pub(crate) fn recent(&self, now: Millis) -> Vec<LostWorker> {
        let told = self.recent.iter().rev().map(|(at, worker)| LostWorker { ago_ms: now.since(*at), ..worker.clone() });
        told.take_while(|worker| worker.ago_ms < LOST_TOLD_MS).collect()
    }
}

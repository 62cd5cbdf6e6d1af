//! Known workers: sessions, their connections and their slots.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use laneway_protocol::message::OutcomeCode;
use laneway_protocol::{Kind, LaneName, SessionName, TaskId};

use crate::action::WorkerName;
use crate::dispatch::ClassId;
use crate::event::{ConnId, ReplyTo};
use crate::id_map::{IdMap, IdSet};
use crate::stop::Drain;
use crate::time::Millis;

/// A session by its number in this epoch; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

/// A slot of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId {
    pub(crate) session: SessionId,
    pub(crate) slot: u32,
}

/// One life of one worker process.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) name: SessionName,
    pub(crate) about: About,
    /// From HELLO, or from READY when it said none.
    pub(crate) kinds: Vec<Kind>,
    pub(crate) lanes: Option<Vec<LaneName>>,
    /// It has said HELLO to the end in this epoch. A plain worker never does.
    pub(crate) welcomed: bool,
    pub(crate) plain: bool,
    pub(crate) conns: IdSet<ConnId>,
    /// Since when it has no connection, and when it is lost.
    pub(crate) away: Option<Millis>,
    pub(crate) slots: BTreeMap<u32, Slot>,
    pub(crate) running: BTreeSet<TaskId>,
    /// The suspect that it runs: no other is given to it, and it alone is charged if the process dies.
    pub(crate) suspect: Option<TaskId>,
    pub(crate) beat: Option<ParkedBeat>,
    /// Tasks whose stop was told to this session, so that a BEAT is not answered again and again for them.
    pub(crate) told: IdSet<TaskId>,
    pub(crate) told_drain: bool,
    /// It alone is to leave.
    pub(crate) drain: Option<Drain>,
    pub(crate) since: Millis,
}

/// What a worker says of itself, for people.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) sdk: String,
    pub(crate) slots: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ParkedBeat {
    pub(crate) reply: ReplyTo,
    pub(crate) conn: ConnId,
    pub(crate) until: Millis,
}

/// One place in a worker that asks for tasks.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) class: ClassId,
    /// The most tasks that it has asked for at once: what it adds to the capacity of its class.
    pub(crate) max: usize,
    /// What its last READY said about kinds and lanes, to see at a glance that nothing changed.
    pub(crate) said: (Option<Vec<Kind>>, Option<Vec<LaneName>>),
    /// The highest number of its READYs.
    pub(crate) n: u64,
    /// TASKS answers in this epoch.
    pub(crate) seq: u64,
    /// Running tasks that were sent to it, with the `seq` of their TASKS.
    pub(crate) running: BTreeMap<TaskId, u64>,
    pub(crate) parked: Option<Parked>,
    /// The question of this slot that hangs on the store.
    pub(crate) question: Option<ReplyTo>,
    pub(crate) settle: Settle,
}

/// A READY that waits for a task.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) reply: ReplyTo,
    pub(crate) conn: ConnId,
    pub(crate) max: usize,
    pub(crate) until: Millis,
    /// Its place among the idle.
    pub(crate) idle: u64,
    pub(crate) committed: bool,
    pub(crate) outcomes: Vec<OutcomeCode>,
}

/// Which of a slot's batches of outcomes are on disk.
#[derive(Debug, Default)]
pub(crate) struct Settle {
    /// Outcomes of each batch that are not on disk yet.
    open: BTreeMap<u64, usize>,
    /// The last batch said.
    last: u64,
    /// The last batch that the worker was told to be on disk.
    told: u64,
}

impl Settle {
    /// A READY brought `outcomes` that go to disk, as batch number `batch`.
    pub(crate) fn open(&mut self, batch: u64, outcomes: usize) {
        self.last = self.last.max(batch);
        if outcomes > 0 {
            *self.open.entry(batch).or_default() += outcomes;
        }
    }

    /// One outcome of `batch` is on disk.
    pub(crate) fn close(&mut self, batch: u64) {
        if let Some(left) = self.open.get_mut(&batch) {
            *left -= 1;
            if *left == 0 {
                self.open.remove(&batch);
            }
        }
    }

    /// Every batch up to this is on disk.
    pub(crate) fn settled(&self) -> u64 {
        self.open.first_key_value().map_or(self.last, |(&first, _)| first.saturating_sub(1))
    }

    /// The same, for an answer that tells it.
    pub(crate) fn tell(&mut self) -> u64 {
        self.told = self.settled();
        self.told
    }

    /// Whether more is on disk than the worker was told.
    pub(crate) fn has_news(&self) -> bool {
        self.settled() > self.told
    }

    /// Whether that is worth a message of its own: nothing else is on its way to the disk, whose end would be another.
    pub(crate) fn is_ripe(&self) -> bool {
        self.open.is_empty() && self.has_news()
    }
}

impl Session {
    /// The worker as people know it.
    pub(crate) fn worker(&self) -> WorkerName {
        let About { name, host, pid, .. } = &self.about;
        WorkerName { session: self.name.clone(), name: name.clone(), host: host.clone(), pid: *pid }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Workers {
    sessions: BTreeMap<SessionId, Session>,
    by_name: HashMap<SessionName, SessionId>,
    /// One connection may carry several sessions.
    by_conn: IdMap<ConnId, BTreeSet<SessionId>>,
    next: u64,
}

impl Workers {
    pub(crate) fn add(&mut self, name: SessionName, now: Millis) -> SessionId {
        self.next += 1;
        let id = SessionId(self.next);
        self.by_name.insert(name.clone(), id);
        let session = Session {
            name,
            about: About::default(),
            kinds: Vec::new(),
            lanes: None,
            welcomed: false,
            plain: false,
            conns: IdSet::default(),
            away: None,
            slots: BTreeMap::new(),
            running: BTreeSet::new(),
            suspect: None,
            beat: None,
            told: IdSet::default(),
            told_drain: false,
            drain: None,
            since: now,
        };
        self.sessions.insert(id, session);
        id
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Session {
        let session = self.sessions.remove(&id).expect("only a known session is removed");
        self.by_name.remove(&session.name);
        for conn in &session.conns {
            let users = self.by_conn.get_mut(conn).expect("a connection stands in both maps");
            users.remove(&id);
            if users.is_empty() {
                self.by_conn.remove(conn);
            }
        }
        session
    }

    /// A word came from this session on this connection.
    pub(crate) fn heard(&mut self, id: SessionId, conn: ConnId) {
        if self.get_mut(id).conns.insert(conn) {
            self.by_conn.entry(conn).or_default().insert(id);
        }
    }

    /// Forgets a connection. Gives the sessions that used it.
    pub(crate) fn disconnected(&mut self, conn: ConnId) -> BTreeSet<SessionId> {
        let users = self.by_conn.remove(&conn).unwrap_or_default();
        for &id in &users {
            self.get_mut(id).conns.remove(&conn);
        }
        users
    }

    pub(crate) fn get_mut(&mut self, id: SessionId) -> &mut Session {
        self.sessions.get_mut(&id).expect("a session's number is only kept while it is known")
    }

    pub(crate) fn find_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// A slot that may be gone with its session.
    pub(crate) fn slot_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.sessions.get_mut(&id.session)?.slots.get_mut(&id.slot)
    }

    pub(crate) fn get(&self, id: SessionId) -> &Session {
        &self.sessions[&id]
    }

    pub(crate) fn by_name(&self, name: &SessionName) -> Option<SessionId> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(&id, session)| (id, session))
    }

    pub(crate) fn check(&self) {
        for (id, session) in &self.sessions {
            assert_eq!(self.by_name.get(&session.name), Some(id));
            for conn in &session.conns {
                assert!(self.by_conn[conn].contains(id), "connection {conn:?} does not know its session");
            }
            for slot in session.slots.values() {
                for task in slot.running.keys() {
                    assert!(session.running.contains(task), "task {task} runs in a slot but not in its session");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_is_the_last_batch_before_the_first_open_one() {
        let mut settle = Settle::default();
        assert_eq!(settle.settled(), 0);
        settle.open(1, 2);
        settle.open(2, 1);
        settle.close(2);
        assert_eq!(settle.settled(), 0, "batch 1 is still open");
        settle.close(1);
        assert_eq!(settle.settled(), 0);
        settle.close(1);
        assert_eq!(settle.settled(), 2);
        assert!(settle.has_news());
        assert_eq!(settle.tell(), 2);
        assert!(!settle.has_news(), "it was told");
        settle.open(3, 0);
        assert_eq!(settle.settled(), 3, "a batch with nothing for the disk is settled at once");
    }
}

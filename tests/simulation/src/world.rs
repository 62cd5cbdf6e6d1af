//! The virtual world: one clock, one queue of what is due, connections between peers and the broker. Everything that
//! happens is taken from the queue here, one step at a time; what it means stands in the files beside this one.

mod connections;

use std::collections::BTreeMap;

use laneway_broker::internals::{Durable, Faults, Table};
use laneway_core::{Millis, Now, UnixMillis};
use laneway_protocol::message::{Answer, Held, Request};

use crate::auditor::Auditor;
use crate::host::Host;
use crate::plan::{Fault, Plan};
use crate::random::Random;
use crate::trace::Trace;
use crate::worker::{CONTROL, Worker};
use crate::workload::{Asks, Client};

/// An autumn morning of 2027.
const START: i64 = 1_820_000_000_000;
/// How long a healed world may take to come to rest: rows that an app moved to where nobody is are met by a recount, every
/// minute.
const REST_MS: u64 = 150_000;

/// Who asks, on which of its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Worker { worker: usize, line: usize },
    Client(usize),
}

/// What an answer is about, as its asker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// The token of a question of the link.
    Token(u64),
    Progress(Held),
}

#[derive(Debug)]
pub(crate) enum Due {
    AtHost { conn: u64, tag: Tag, request: Box<Request> },
    AtPeer { conn: u64, tag: Tag, answer: Box<Answer> },
    HostSeesEnd(u64),
    PeerSeesEnd(u64),
    RouterTurn(u64),
    SchedulerTurn(u64),
    StartBroker,
    Drive(Peer),
    Late(Peer, Tag),
    Finish { worker: usize, slot: usize, held: Held },
    Say { worker: usize, slot: usize, held: Held },
    App,
    Quiet(bool),
    Fault(Fault),
    Heal(Fault),
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) peer: Peer,
    /// Which of the processes in that place.
    life: u64,
    /// The life of the broker that it leads to.
    host: u64,
    pub(crate) open: bool,
    /// When it broke: what was on its way still arrives.
    keeps: bool,
    /// Nothing passes until then.
    stalled_until: u64,
    last_in: u64,
    last_out: u64,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    pub(crate) wall_offset: i64,
    pub(crate) wall_offset_max: i64,
    pub(crate) steps: u64,
    queue: BTreeMap<(u64, u64), Due>,
    n_due: u64,
    /// When a peer looks next at what it wants to ask.
    drives: BTreeMap<Peer, u64>,
    pub(crate) trace: Trace,
    pub(crate) net: Random,
    pub(crate) chance: Random,
    pub(crate) faults_random: Random,
    pub(crate) cron_random: Random,
    pub(crate) fair_random: Random,
    pub(crate) quiet_random: Random,
    pub(crate) word_random: Random,
    pub(crate) asks: Asks,
    pub(crate) operator_random: Random,
    pub(crate) conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    pub(crate) table: Table,
    pub(crate) store_faults: Faults,
    /// What a power cut may leave: the last synced state, then each later one.
    pub(crate) durable: Vec<Durable>,
    pub(crate) host: Host,
    pub(crate) workers: Vec<Worker>,
    pub(crate) clients: Vec<Client>,
    pub(crate) auditor: Auditor,
    /// Tasks that may still be made.
    pub(crate) tasks_left: u64,
    pub(crate) schedules_made: u64,
    pub(crate) calm: bool,
    /// Questions that clients are to ask before any other.
    pub(crate) loosen: Vec<Request>,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let folder = plan.sqlite.then(folder);
        let table = folder.as_ref().map_or_else(Table::memory, |folder| Table::sqlite(&folder.path().join("t.db")));
        let durable = vec![table.copy()];
        let seed = plan.seed;
        let mut world = Self {
            now: 0,
            wall_offset: 0,
            wall_offset_max: 0,
            steps: 0,
            queue: BTreeMap::new(),
            n_due: 0,
            drives: BTreeMap::new(),
            trace: Trace::new(plan.aloud),
            net: Random::new(seed, 2),
            chance: Random::new(seed, 3),
            faults_random: Random::new(seed, 4),
            cron_random: Random::new(seed, 6),
            fair_random: Random::new(seed, 13),
            quiet_random: Random::new(seed, 15),
            word_random: Random::new(seed, 41),
            asks: Asks::new(seed),
            operator_random: Random::new(seed, 51),
            conns: BTreeMap::new(),
            next_conn: 0,
            table,
            store_faults: Faults::default(),
            durable,
            host: Host::default(),
            workers: Vec::new(),
            clients: Vec::new(),
            auditor: Auditor::new(&plan),
            tasks_left: plan.tasks,
            schedules_made: 0,
            calm: false,
            loosen: Vec::new(),
            _folder: folder,
            plan,
        };
        world.due_in(0, Due::StartBroker);
        for worker in 0..world.plan.workers {
            world.add_worker(worker);
        }
        for client in 0..world.plan.clients + usize::from(world.plan.operator) {
            world.clients.push(Client::default());
            world.drive_in(5, Peer::Client(client));
        }
        world.due_in(1, Due::App);
        if world.plan.quiet {
            world.next_quiet();
        }
        for fault in world.plan.faults.clone() {
            world.next_fault(fault);
        }
        world
    }

    /// Runs to the end. Fails with the first thing that the auditor found wrong.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        loop {
            if !self.calm && self.now >= self.plan.chaos_ms {
                self.heal();
            }
            if self.calm && self.is_at_rest() {
                return self.auditor.at_rest(self.clients.iter().any(Client::is_waiting));
            }
            if self.now > self.plan.chaos_ms + REST_MS {
                return Err(format!("no rest {REST_MS} ms after the last fault: {}", self.auditor.unfinished()));
            }
            let Some(((at, _), due)) = self.queue.pop_first() else { return Err("nothing is due any more".into()) };
            self.now = self.now.max(at);
            self.steps += 1;
            self.take(due);
            if let Some(found) = self.auditor.found.take() {
                return Err(found);
            }
        }
    }

    fn take(&mut self, due: Due) {
        match due {
            Due::AtHost { conn, tag, request } => self.at_host(conn, tag, request),
            Due::AtPeer { conn, tag, answer } => self.at_peer(conn, tag, answer),
            Due::HostSeesEnd(conn) => self.host_sees_end(conn),
            Due::PeerSeesEnd(conn) => self.peer_sees_end(conn),
            Due::RouterTurn(life) if life == self.host.life => self.router_turn(),
            Due::SchedulerTurn(life) if life == self.host.life => self.scheduler_turn(),
            Due::RouterTurn(_) | Due::SchedulerTurn(_) => {}
            Due::StartBroker => self.start_broker(),
            Due::Drive(peer) => self.drive(peer),
            Due::Late(peer, tag) => self.late(peer, tag),
            Due::Finish { worker, slot, held } => self.finish(worker, slot, held),
            Due::Say { worker, slot, held } => self.say(worker, slot, held),
            Due::App => self.app(),
            Due::Quiet(quiet) => self.signal_quiet(quiet),
            Due::Fault(fault) => self.strike(fault),
            Due::Heal(fault) => self.mend(fault),
        }
    }

    pub(crate) fn due_in(&mut self, ms: u64, due: Due) {
        self.due_at(self.now + ms, due);
    }

    pub(crate) fn due_at(&mut self, at: u64, due: Due) {
        self.n_due += 1;
        self.queue.insert((at.max(self.now), self.n_due), due);
    }

    pub(crate) fn clocks(&self) -> Now {
        let wall = START + i64::try_from(self.now).expect("a run is short") + self.wall_offset;
        Now { mono: Millis(self.now), wall: UnixMillis(wall) }
    }

    pub(crate) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.steps, self.now, what);
    }

    fn is_at_rest(&self) -> bool {
        self.tasks_left == 0
            && self.host.is_idle()
            && !self.clients.iter().any(Client::is_waiting)
            && self.auditor.rows.values().all(|row| row.state.is_final())
    }

    /// One look is enough: whoever still has nothing to do then asks for the next.
    pub(crate) fn drive_in(&mut self, ms: u64, peer: Peer) {
        let peer = match peer {
            Peer::Worker { worker, .. } => Peer::Worker { worker, line: CONTROL },
            Peer::Client(_) => peer,
        };
        let at = self.now + ms;
        if self.drives.get(&peer).is_none_or(|before| *before > at) {
            self.drives.insert(peer, at);
            self.due_at(at, Due::Drive(peer));
        }
    }

    fn drive(&mut self, peer: Peer) {
        if self.drives.get(&peer) == Some(&self.now) {
            self.drives.remove(&peer);
        }
        match peer {
            Peer::Worker { worker, .. } => self.drive_worker(worker),
            Peer::Client(client) => self.drive_client(client),
        }
    }
}

/// In memory where the system offers that: nothing here outlives the run.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder can be made")
}

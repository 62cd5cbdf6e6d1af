//! Connections between peers and the broker: in order on each, late, stalled and broken in between; what was on its way when
//! one broke may still arrive, behind what its successor has brought.

use laneway_protocol::message::{Answer, Request};

use super::{Conn, Due, Peer, Tag, World};

impl World {
    /// A connection of this peer, or a new one. `None` while the broker cannot be reached.
    pub(crate) fn connect(&mut self, peer: Peer, before: Option<u64>) -> Option<u64> {
        if let Some(conn) = before.filter(|conn| self.conns.get(conn).is_some_and(|conn| conn.open)) {
            return Some(conn);
        }
        let silent = matches!(peer, Peer::Worker { worker, .. } if self.workers[worker].silent_until > self.now);
        if !self.host.is_up() || silent {
            return None;
        }
        self.next_conn += 1;
        let life = self.life(peer);
        let conn = Conn {
            peer,
            life,
            host: self.host.life,
            open: true,
            keeps: true,
            stalled_until: 0,
            last_in: self.now,
            last_out: self.now,
        };
        self.conns.insert(self.next_conn, conn);
        Some(self.next_conn)
    }

    fn life(&self, peer: Peer) -> u64 {
        match peer {
            Peer::Worker { worker, .. } => self.workers[worker].lives,
            Peer::Client(_) => 0,
        }
    }

    pub(crate) fn send(&mut self, id: u64, tag: Tag, request: Request) {
        let latency = self.latency();
        let conn = self.conns.get_mut(&id).expect("a peer keeps its open connections");
        conn.last_in = conn.last_in.max(self.now + latency).max(conn.stalled_until);
        let at = conn.last_in;
        if !self.calm && self.net.chance(2) {
            // Said twice, the second time behind whatever came meanwhile.
            let again = at + self.net.below(800);
            self.due_at(again, Due::AtHost { conn: id, tag, request: Box::new(request.clone()) });
        }
        self.due_at(at, Due::AtHost { conn: id, tag, request: Box::new(request) });
    }

    pub(crate) fn reply(&mut self, id: u64, tag: Tag, answer: Answer) {
        let latency = self.latency();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.last_out = conn.last_out.max(self.now + latency).max(conn.stalled_until);
        let at = conn.last_out;
        self.due_at(at, Due::AtPeer { conn: id, tag, answer: Box::new(answer) });
    }

    fn latency(&mut self) -> u64 {
        if !self.calm && self.net.chance(3) { self.net.between(20, 400) } else { self.net.below(3) }
    }

    /// Breaks a connection; both ends see it in their own time.
    pub(crate) fn cut(&mut self, id: u64, keeps: bool) {
        let (host_ms, peer_ms) = (self.net.below(20), self.net.below(20));
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.open) else { return };
        (conn.open, conn.keeps) = (false, keeps);
        let last_in = if keeps { conn.last_in } else { 0 };
        self.due_at((self.now + host_ms).max(last_in), Due::HostSeesEnd(id));
        self.due_in(peer_ms, Due::PeerSeesEnd(id));
    }

    /// Every connection to a broker that is gone.
    pub(crate) fn cut_all(&mut self) {
        for id in self.open_conns() {
            let keeps = self.net.chance(50);
            self.cut(id, keeps);
        }
    }

    pub(crate) fn open_conns(&self) -> Vec<u64> {
        self.conns.iter().filter(|(_, conn)| conn.open).map(|(id, _)| *id).collect()
    }

    pub(crate) fn conns_of(&self, worker: usize) -> Vec<u64> {
        let of = |peer| matches!(peer, Peer::Worker { worker: other, .. } if other == worker);
        self.conns.iter().filter(|(_, conn)| conn.open && of(conn.peer)).map(|(id, _)| *id).collect()
    }

    /// Nothing passes on the connections of a worker; it takes long, they break.
    pub(crate) fn stall(&mut self, worker: usize, until: u64) {
        self.workers[worker].silent_until = until;
        for id in self.conns_of(worker) {
            self.conns.get_mut(&id).expect("just listed").stalled_until = until;
        }
    }

    pub(super) fn at_host(&mut self, id: u64, tag: Tag, request: Box<Request>) {
        let Some(conn) = self.conns.get(&id) else { return };
        if conn.host != self.host.life || !(conn.open || conn.keeps) {
            return;
        }
        if conn.stalled_until > self.now {
            let at = conn.stalled_until;
            return self.due_at(at, Due::AtHost { conn: id, tag, request });
        }
        self.host_receives(id, tag, *request);
    }

    pub(super) fn at_peer(&mut self, id: u64, tag: Tag, answer: Box<Answer>) {
        let Some(conn) = self.conns.get(&id) else { return };
        if !(conn.open || conn.keeps) || conn.life != self.life(conn.peer) {
            return;
        }
        if conn.stalled_until > self.now {
            let at = conn.stalled_until;
            return self.due_at(at, Due::AtPeer { conn: id, tag, answer });
        }
        match conn.peer {
            Peer::Worker { worker, line } => self.worker_hears(worker, line, tag, *answer),
            Peer::Client(client) => self.client_hears(client, tag, &answer),
        }
    }

    pub(super) fn peer_sees_end(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        let peer = conn.peer;
        if conn.life == self.life(peer) {
            self.lost_connection(peer, id);
        }
    }
}

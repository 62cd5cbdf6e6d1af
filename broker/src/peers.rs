//! Connections and return addresses of the ROUTER socket.
//!
//! A routing id is a return address and never a key: a connection gets a number of its own when its first message comes,
//! and every question a fresh [`ReplyTo`]. The descriptor that libzmq tells with a connection's messages ties it to the
//! monitor's disconnects; it is a private property of libzmq and descriptors are reused, so it is the fast path only: an
//! answer that cannot be routed tells the same, later.

use std::collections::HashMap;
use std::sync::Arc;

use laneway_core::{Asker, ConnId, IdMap, ReplyTo};

use crate::access::Listed;
use crate::monitor::ConnEvent;

/// Where an answer goes: the frames before the header, echoed byte for byte.
#[derive(Debug, Clone)]
pub(crate) struct ReturnAddress {
    pub(crate) routing_id: Arc<[u8]>,
    /// The 4 bytes by which a correlating REQ knows its answers.
    pub(crate) correlation: Option<[u8; 4]>,
    conn: ConnId,
}

#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_routing_id: HashMap<Arc<[u8]>, ConnId>,
    conns: IdMap<ConnId, Conn>,
    /// The open connection on each descriptor; `None` until its first message.
    by_fd: HashMap<i32, Option<ConnId>>,
    replies: IdMap<ReplyTo, ReturnAddress>,
    next_conn: u64,
    next_reply: u64,
}

#[derive(Debug)]
struct Conn {
    routing_id: Arc<[u8]>,
    fd: Option<i32>,
    /// Whose it is, where peers come with keys.
    listed: Option<Arc<Listed>>,
}

impl Peers {
    /// The connection of a routing id that was seen before.
    pub(crate) fn known(&self, routing_id: &[u8]) -> Option<ConnId> {
        self.by_routing_id.get(routing_id).copied()
    }

    /// The first message of a connection. Gives its number, and whether the monitor has told its end already.
    pub(crate) fn add(&mut self, routing_id: &[u8], fd: Option<i32>, listed: Option<Arc<Listed>>) -> (ConnId, bool) {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let routing_id: Arc<[u8]> = routing_id.into();
        let mut over = false;
        if let Some(fd) = fd {
            match self.by_fd.get_mut(&fd) {
                Some(slot) => *slot = Some(conn),
                None => over = true,
            }
        }
        self.by_routing_id.insert(Arc::clone(&routing_id), conn);
        self.conns.insert(conn, Conn { routing_id, fd, listed });
        (conn, over)
    }

    /// Takes in what the monitor saw. Gives the connection that ended, if it ever said anything.
    pub(crate) fn on_conn_event(&mut self, event: ConnEvent) -> Option<ConnId> {
        match event {
            ConnEvent::Accepted(fd) => {
                // The descriptor was reused before the end of its last connection was told.
                self.by_fd.insert(fd, None).flatten()
            }
            ConnEvent::Disconnected(fd) => self.by_fd.remove(&fd).flatten(),
        }
    }

    /// Forgets a connection and every answer that would go to it.
    pub(crate) fn remove(&mut self, conn: ConnId) {
        let Some(gone) = self.conns.remove(&conn) else { return };
        if self.by_routing_id.get(&gone.routing_id) == Some(&conn) {
            self.by_routing_id.remove(&gone.routing_id);
        }
        if let Some(fd) = gone.fd.filter(|fd| self.by_fd.get(fd) == Some(&Some(conn))) {
            self.by_fd.insert(fd, None);
        }
    }

    /// A question came: keeps where its answer goes.
    pub(crate) fn ask(&mut self, conn: ConnId, correlation: Option<[u8; 4]>) -> Asker {
        self.next_reply += 1;
        let reply = ReplyTo(self.next_reply);
        let routing_id = Arc::clone(&self.conns[&conn].routing_id);
        self.replies.insert(reply, ReturnAddress { routing_id, correlation, conn });
        Asker { reply, conn }
    }

    /// Takes the place of an answer; it is used once.
    pub(crate) fn take(&mut self, reply: ReplyTo) -> Option<ReturnAddress> {
        self.replies.remove(&reply)
    }

    /// The list of keys was read again: `now` gives what a key may do from here on, unless it is off the list or may do less
    /// than before. Gives the descriptors of those connections: what they asked before must not be answered any more.
    pub(crate) fn replace_keys(&mut self, now: impl Fn(&Listed) -> Option<Arc<Listed>>) -> Vec<i32> {
        let mut over = Vec::new();
        for conn in self.conns.values_mut() {
            let Some(listed) = &mut conn.listed else { continue };
            match now(listed) {
                Some(again) => *listed = again,
                None => over.extend(conn.fd),
            }
        }
        over
    }

    /// Connections that are open, whether they ever said anything or not.
    pub(crate) fn n_connections(&self) -> usize {
        self.by_fd.len()
    }

    /// Questions without an answer so far.
    pub(crate) fn n_open(&self) -> usize {
        self.replies.len()
    }
}

impl ReturnAddress {
    pub(crate) fn conn(&self) -> ConnId {
        self.conn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disconnect_ends_the_connection_that_spoke_on_the_descriptor() {
        let mut peers = Peers::default();
        assert_eq!(peers.on_conn_event(ConnEvent::Accepted(7)), None);
        let (conn, over) = peers.add(b"a", Some(7), None);
        assert!(!over);
        assert_eq!(peers.on_conn_event(ConnEvent::Disconnected(7)), Some(conn));
        assert_eq!(peers.on_conn_event(ConnEvent::Disconnected(7)), None);
    }

    #[test]
    fn a_reused_descriptor_ends_its_former_connection_only() {
        let mut peers = Peers::default();
        peers.on_conn_event(ConnEvent::Accepted(7));
        let (first, _) = peers.add(b"a", Some(7), None);
        assert_eq!(peers.on_conn_event(ConnEvent::Disconnected(7)), Some(first));
        peers.remove(first);
        peers.on_conn_event(ConnEvent::Accepted(7));
        let (second, over) = peers.add(b"b", Some(7), None);
        assert!(!over);
        peers.remove(first);
        assert_eq!(peers.known(b"b"), Some(second));
        assert_eq!(peers.on_conn_event(ConnEvent::Disconnected(7)), Some(second));
    }

    #[test]
    fn a_list_that_was_read_again_ends_the_connections_of_those_off_it() {
        // Proves that a key's connections are found by their descriptors, also when it lost only later what it had gained, and
        // that plain peers, other keys and those who have said nothing are left alone.
        let mut peers = Peers::default();
        let key = |name: &str| Some(Arc::new(Listed { name: name.into(), key: name.into(), roles: Vec::new() }));
        for (fd, (id, listed)) in (7..).zip([("off", key("off")), ("on", key("on")), ("plain", None)]) {
            peers.on_conn_event(ConnEvent::Accepted(fd));
            peers.add(id.as_bytes(), Some(fd), listed);
        }
        peers.on_conn_event(ConnEvent::Accepted(20));
        let none: [i32; 0] = [];
        assert_eq!(peers.replace_keys(|listed| key(if listed.name == "on" { "changed" } else { "off" })), none);
        assert_eq!(peers.replace_keys(|listed| if listed.name == "off" { None } else { key(&listed.name) }), [7]);
        assert_eq!(peers.replace_keys(|listed| if listed.name == "changed" { None } else { key("off") }), [8]);
    }

    #[test]
    fn a_first_message_read_after_its_connection_ended_is_known_to_be_the_last() {
        let mut peers = Peers::default();
        peers.on_conn_event(ConnEvent::Accepted(7));
        peers.on_conn_event(ConnEvent::Disconnected(7));
        let (_, over) = peers.add(b"a", Some(7), None);
        assert!(over);
    }
}

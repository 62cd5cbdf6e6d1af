//! What each role may ask. The table of `docs/security.md`; `PROTOCOL.md` names the questions.

use laneway_protocol::Request;
use serde::Deserialize;

use super::Peer;

/// What a key is for. A key may have several; one without any may only ask whether the broker is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Take tasks and settle them.
    Work,
    /// Submit tasks, and wait for their ends.
    Submit,
    /// Look at everything.
    Read,
    /// Everything.
    Admin,
}

impl Role {
    /// As it stands in files and on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Submit => "submit",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// The names of roles, for texts.
pub(crate) fn words(roles: &[Role]) -> String {
    roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")
}

/// Fails with a text for the peer, when it may not ask this.
pub(super) fn check(peer: &Peer, request: &Request) -> Result<(), String> {
    let (question, needed) = needed(request);
    let listed = match peer {
        Peer::Plain => return Ok(()),
        Peer::Known(listed) => listed,
        Peer::Unknown => return Err("this key is not on the broker's list any more".into()),
    };
    let suffices = |role: &Role| *role == Role::Admin || needed.contains(role);
    if needed.is_empty() || listed.roles.iter().any(suffices) {
        return Ok(());
    }
    let has = match &listed.roles[..] {
        [] => "no role".into(),
        roles => words(roles),
    };
    let needs = needed.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ");
    Err(format!("{question} needs the role {needs}, and the key {} has {has}", listed.name))
}

/// The question's name, and the roles of which one suffices besides admin. None: anybody with a key may ask.
fn needed(request: &Request) -> (&'static str, &'static [Role]) {
    match request {
        Request::Hello(_) => ("HELLO", &[Role::Work]),
        Request::Ready(_) => ("READY", &[Role::Work]),
        Request::Progress(_) => ("PROGRESS", &[Role::Work]),
        Request::Beat(_) => ("BEAT", &[Role::Work]),
        Request::Bye(_) => ("BYE", &[Role::Work]),
        Request::Submit(_) => ("SUBMIT", &[Role::Submit]),
        // Who only looks on does not end what others have submitted.
        Request::WaitFor(wait) if wait.abandon => ("WAIT_FOR with abandon", &[Role::Submit]),
        Request::WaitFor(_) => ("WAIT_FOR", &[Role::Submit, Role::Read]),
        Request::Status(_) => ("STATUS", &[Role::Read]),
        Request::Workers(_) => ("WORKERS", &[Role::Read]),
        Request::Stats => ("STATS", &[Role::Read]),
        Request::Lanes(lanes) if lanes.changes_nothing() => ("LANES", &[Role::Read]),
        Request::Lanes(_) => ("LANES with a change", &[Role::Admin]),
        Request::Kinds(kinds) if kinds.changes_nothing() => ("KINDS", &[Role::Read]),
        Request::Kinds(_) => ("KINDS with a change", &[Role::Admin]),
        Request::FairKeys(keys) if keys.changes_nothing() => ("FAIR_KEYS", &[Role::Read]),
        Request::FairKeys(_) => ("FAIR_KEYS with a change", &[Role::Admin]),
        Request::Cancel(_) => ("CANCEL", &[Role::Admin]),
        Request::Requeue(_) => ("REQUEUE", &[Role::Admin]),
        Request::Drain(_) => ("DRAIN", &[Role::Admin]),
        Request::Bulk(_) => ("BULK", &[Role::Admin]),
        Request::Group(about) if about.cancel => ("GROUP with cancel", &[Role::Admin]),
        Request::Group(_) => ("GROUP", &[Role::Submit, Role::Read]),
        Request::Schedules(schedules) if !schedules.is_change() => ("SCHEDULES", &[Role::Read]),
        Request::Schedules(_) => ("SCHEDULES with a change", &[Role::Admin]),
        Request::Ping => ("PING", &[]),
    }
}

/// One of each question.
#[cfg(test)]
#[allow(dead_code, reason = "the protocol's own tests use all of it")]
#[path = "../../../protocol/tests/samples/mod.rs"]
mod samples;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use laneway_protocol::message::{Drain, FairKeys, Kinds, Lanes, Schedules};

    use super::super::Listed;
    use super::*;

    const ROLES: [Role; 4] = [Role::Work, Role::Submit, Role::Read, Role::Admin];

    fn peer(roles: &[Role]) -> Peer {
        Peer::Known(Arc::new(Listed { name: "app".into(), key: String::new(), roles: roles.into() }))
    }

    #[test]
    fn each_role_may_ask_what_the_table_says() {
        // Proves the whole table, over a sample of every question of the protocol: what each role alone may ask. Admin is in
        // every row.
        let table = [
            ("hello ready progress beat bye", "work admin"),
            ("submit", "submit admin"),
            ("wait_for", "submit read admin"),
            ("status workers stats", "read admin"),
            ("lanes kinds fair_keys cancel requeue drain bulk schedules group", "admin"),
            ("ping", "work submit read admin"),
        ];
        // What only looks needs less, see below.
        let looks = |request: &Request| match request {
            Request::Schedules(schedules) => !schedules.is_change(),
            Request::Group(about) => !about.cancel,
            _ => false,
        };
        let abandons = |request: &Request| matches!(request, Request::WaitFor(wait) if wait.abandon);

        for (name, _, request) in
            samples::requests().into_iter().filter(|sample| !looks(&sample.2) && !abandons(&sample.2))
        {
            let row = table.iter().find(|(names, _)| names.split(' ').any(|known| known == name));
            let (_, may) = row.unwrap_or_else(|| panic!("{name} is in no row"));
            for role in ROLES {
                let expected = may.split(' ').any(|known| known == role.as_str());
                assert_eq!(check(&peer(&[role]), &request).is_ok(), expected, "{name} with {}", role.as_str());
            }
            assert!(check(&Peer::Plain, &request).is_ok() && check(&Peer::Unknown, &request).is_err());
            assert_eq!(check(&peer(&[]), &request).is_ok(), name == "ping");
            assert!(check(&peer(&ROLES), &request).is_ok());
        }
        let looks = [
            Request::Lanes(Lanes::default()),
            Request::Kinds(Kinds::default()),
            Request::FairKeys(FairKeys::default()),
        ];
        for look in looks {
            assert!(check(&peer(&[Role::Read]), &look).is_ok(), "only a change of lanes, kinds and keys needs more");
        }
        for (.., abandon) in samples::requests().into_iter().filter(|sample| abandons(&sample.2)) {
            assert!(check(&peer(&[Role::Submit]), &abandon).is_ok() && check(&peer(&[Role::Admin]), &abandon).is_ok());
            assert!(check(&peer(&[Role::Read]), &abandon).is_err() && check(&peer(&[Role::Work]), &abandon).is_err());
        }
        let look = Request::Schedules(Schedules::default());
        assert!(check(&peer(&[Role::Read]), &look).is_ok(), "only a change of schedules needs more");
        assert!(check(&peer(&[Role::Submit]), &look).is_err());
        let looks = samples::requests()
            .into_iter()
            .filter(|(.., request)| matches!(request, Request::Group(about) if !about.cancel));
        for (.., look) in looks {
            assert!(check(&peer(&[Role::Read]), &look).is_ok() && check(&peer(&[Role::Submit]), &look).is_ok());
            assert!(check(&peer(&[Role::Work]), &look).is_err());
        }
    }

    #[test]
    fn a_refusal_says_what_is_missing() {
        let text = check(&peer(&[Role::Work, Role::Read]), &Request::Drain(Drain::default())).unwrap_err();
        assert_eq!(text, "DRAIN needs the role admin, and the key app has work, read");
    }
}

//! Which endpoints a broker may listen on, and who can reach each. Called by the settings' validation, which lets nobody
//! in from the network without a key; the command line asks for the default socket.

use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket on Linux: `sun_path` has 108 bytes, the last one is NUL.
pub(crate) const IPC_PATH_BYTES_MAX: usize = 107;

/// The socket that a broker opens beside its database, and that clients look for there.
pub(crate) fn ipc_beside(db: &Path) -> String {
    format!("ipc://{}.sock", db.display())
}

/// The socket's path, of an ipc endpoint.
pub(crate) fn ipc_path(endpoint: &str) -> Option<&Path> {
    endpoint.strip_prefix("ipc://").map(Path::new)
}

/// The same for all spellings of one socket's path.
pub(super) fn place(endpoint: &str) -> PathBuf {
    let Some(path) = ipc_path(endpoint) else { return endpoint.into() };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A folder that is not there is told when the socket is bound.
    folder.canonicalize().map_or_else(|_| path.into(), |folder| folder.join(path.file_name().unwrap_or_default()))
}

/// Whether another file is in the way of the socket. libzmq deletes whatever it finds there, so this must be asked first.
pub(super) fn is_taken(endpoint: &str) -> bool {
    let found = ipc_path(endpoint).and_then(|path| path.symlink_metadata().ok());
    found.is_some_and(|found| !found.file_type().is_socket())
}

/// From where an endpoint can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Machine,
    Network,
}

/// From where `endpoint` is reached, or what is wrong with it as a place to listen, in words that follow its value.
pub(super) fn check(endpoint: &str) -> Result<Reach, String> {
    match endpoint.split_once("://") {
        Some(("ipc", path)) => check_ipc(path).map(|()| Reach::Machine),
        Some(("tcp", address)) => check_tcp(address),
        _ => Err("must start with ipc:// or tcp://".into()),
    }
}

fn check_ipc(path: &str) -> Result<(), String> {
    if path.is_empty() || path == "*" {
        return Err("needs the path of a socket, as in ipc:///run/laneway/laneway.sock".into());
    }
    if path.starts_with('@') {
        return Err("is an abstract socket, which every user of the machine may open; use a path".into());
    }
    if path.len() > IPC_PATH_BYTES_MAX {
        return Err(format!("has a path of {} bytes, at most {IPC_PATH_BYTES_MAX} are allowed", path.len()));
    }
    Ok(())
}

fn check_tcp(address: &str) -> Result<Reach, String> {
    let (host, port) = address.rsplit_once(':').ok_or("needs a port, as in tcp://127.0.0.1:7733")?;
    if port != "*" && port.parse::<u16>().is_err() {
        return Err(format!("has port '{port}', must be 0 to 65535, or * for any free one"));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => Ok(Reach::Machine),
        Ok(_) => Ok(Reach::Network),
        Err(_) if host == "*" => Ok(Reach::Network),
        Err(_) => {
            Err(format!("has host '{host}', must be a loopback address such as 127.0.0.1, another IP address, or *"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_who_can_reach_an_endpoint() {
        // Proves that nothing which other machines reach passes for private, and that slips are told.
        for good in
            ["ipc:///run/l.sock", "ipc://l.db.sock", "tcp://127.0.0.1:7733", "tcp://127.1.2.3:0", "tcp://[::1]:*"]
        {
            assert_eq!(check(good), Ok(Reach::Machine), "{good}");
        }
        for open in ["tcp://0.0.0.0:7733", "tcp://*:7733", "tcp://[::]:7733", "tcp://192.168.1.4:7733"] {
            assert_eq!(check(open), Ok(Reach::Network), "{open}");
        }
        for (bad, says) in [
            ("tcp://localhost:7733", "loopback address"),
            ("tcp://127.0.0.1", "needs a port"),
            ("tcp://127.0.0.1:70000", "0 to 65535"),
            ("ipc://@laneway", "abstract"),
            ("ipc://", "needs the path"),
            ("inproc://x", "ipc:// or tcp://"),
            ("/run/laneway.sock", "ipc:// or tcp://"),
        ] {
            let reason = check(bad).unwrap_err();
            assert!(reason.contains(says), "{bad}: {reason}");
        }
    }

    #[test]
    fn a_socket_path_is_bounded_as_the_system_bounds_it() {
        // Proves that a path which bind(2) would cut is refused with value and bound.
        assert_eq!(check(&format!("ipc://{}", "p".repeat(107))), Ok(Reach::Machine));
        let reason = check(&format!("ipc://{}", "p".repeat(108))).unwrap_err();
        assert_eq!(reason, "has a path of 108 bytes, at most 107 are allowed");
    }
}

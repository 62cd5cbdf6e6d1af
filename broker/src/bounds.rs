//! What this process may use of the machine: open files, so that no flood of connections leaves the database without one, and
//! memory, so that what libzmq cannot bound ends this process and not the machine. Called once by `run`, before the sockets.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;
use crate::error::Error;
use crate::process;

/// Descriptors for all but connections: database, log, threads of libzmq, and connections that are accepted while the broker
/// is about to stop listening.
pub(crate) const DESCRIPTORS_KEPT: u64 = 256;
/// Memory is looked at again before peers can fill what is left, as fast as all of them together can send; near the bound every
/// 50 ms, in which 100 MB come in.
const FILL_BYTES_PER_MS: u64 = 2 * 1024 * 1024;
const LOOK_MS_MIN: u64 = 50;
const LOOK_MS_MAX: u64 = 1_000;
/// For the log's writer to write the last line.
const LAST_LINE: Duration = Duration::from_millis(50);

/// Raises the limit of open files to what `connections_max` needs, as far as this process may. Gives how many connections fit.
pub(crate) fn connections(config: &Config) -> usize {
    let wanted = config.connections_max as u64 + DESCRIPTORS_KEPT;
    let limit = raise_open_files(wanted);
    let fits = limit.saturating_sub(DESCRIPTORS_KEPT).clamp(1, config.connections_max as u64);
    if fits < config.connections_max as u64 {
        tracing::info!(
            target: "laneway",
            connections_max = fits,
            open_files = limit,
            "fewer connections than connections_max: the limit of open files allows no more"
        );
    }
    usize::try_from(fits).unwrap_or(usize::MAX)
}

/// Raises the limit of open files of this process, and of those that it starts, as far as it may; gives what it is then.
pub(crate) fn raise_open_files(wanted: u64) -> u64 {
    // Without a word about the limit, the usual one of a process is supposed.
    let (limit, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1_024, 1_024));
    let raised = wanted.min(most);
    if limit < wanted && setrlimit(Resource::RLIMIT_NOFILE, raised, most).is_ok() { raised } else { limit }
}

/// Ends this process when it holds more than `memory_bytes_max`. Nothing that was acknowledged is lost by that, and a
/// supervisor starts the next one; a machine without memory would end whatever it finds.
pub(crate) fn guard_memory(config: &Config) -> Result<(), Error> {
    let Some(max) = config.memory_bytes_max.or_else(half_of_the_machine) else { return Ok(()) };
    let guard = move || {
        let mut held = 0;
        loop {
            std::thread::sleep(next_look(max.saturating_sub(held)));
            match process::memory(std::process::id()) {
                Ok((bytes, _)) if bytes > max => {
                    tracing::error!(target: "laneway", bytes, memory_bytes_max = max, "too much memory: the broker ends itself");
                    std::thread::sleep(LAST_LINE);
                    // At once, without a core dump, which would take seconds to write, and not with an exit code: a supervisor
                    // would take that in the first second for a start that failed.
                    signal_hook::low_level::raise(signal_hook::consts::SIGKILL).ok();
                }
                Ok((bytes, _)) => held = bytes,
                // Unknown: as if it were near the bound.
                Err(_) => held = max,
            }
        }
    };
    let thread = std::thread::Builder::new().name("memory".into()).spawn(guard);
    thread.map(drop).map_err(|error| Error::other("start the memory thread", error))
}

/// How long so many bytes of memory are enough, whoever sends.
fn next_look(left_bytes: u64) -> Duration {
    Duration::from_millis((left_bytes / FILL_BYTES_PER_MS).clamp(LOOK_MS_MIN, LOOK_MS_MAX))
}

/// Half of what the machine has, or of what this process' control group may have.
fn half_of_the_machine() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
    });
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        let max = fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.max")).ok()?;
        max.trim().parse::<u64>().ok()
    });
    machine.into_iter().chain(group).min().map(|bytes| bytes / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_machine_is_a_number_of_bytes() {
        // Proves that the unit is right: no machine that builds this has less than a quarter of a gigabyte or more than 64 TiB.
        let half = half_of_the_machine().unwrap();
        assert!((1 << 27..1 << 46).contains(&half), "{half}");
    }

    #[test]
    fn memory_is_looked_at_before_it_can_be_full() {
        for (left_mib, ms) in [(0, 50), (1, 50), (99, 50), (200, 100), (1_000, 500), (2_000, 1_000), (1 << 20, 1_000)] {
            assert_eq!(next_look(left_mib << 20), Duration::from_millis(ms), "{left_mib} MiB");
        }
    }

    #[test]
    fn connections_fit_the_limit_of_open_files() {
        // Proves that the setting holds where it can, and that what the limit allows holds elsewhere.
        let few = Config { connections_max: 16, ..Config::default() };
        assert_eq!(connections(&few), 16);
        let many = Config { connections_max: 1 << 40, ..Config::default() };
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(connections(&many) as u64 + DESCRIPTORS_KEPT <= most);
    }
}

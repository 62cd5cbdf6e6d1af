//! Which process has the locks by which SQLite orders its writers and its checkpoints: bytes of the log's index, beside the
//! database. Read out of the kernel's list, for to ask SQLite means to take the lock.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{major, minor};

/// Places of the locks in the index (sqlite.org/walformat.html, "WAL Locks").
const WRITE_LOCK: u64 = 120;
const CHECKPOINT_LOCK: u64 = 121;

/// The process, another than this, that has the write lock and the checkpoint lock both: a connection takes the two for a
/// checkpoint that nobody may write beside, as to truncate the log. The kernel does not tell whether it is one connection, or two
/// of one process. `None` also where it tells nothing: on other systems, of processes outside of our container, on
/// file systems that show other numbers than they lock by.
pub(super) fn truncating_process(index: &Path) -> Option<u32> {
    let file = fs::metadata(index).ok()?;
    let (major, minor) = (major(file.dev()), minor(file.dev()));
    let name = format!("{major:02x}:{minor:02x}:{}", file.ino());
    holder_of_both(&fs::read_to_string("/proc/locks").ok()?, &name).filter(|&process| process != std::process::id())
}

/// A line of the list is `1: POSIX  ADVISORY  WRITE 4711 fe:00:1234 120 120`: process, file, first byte and last.
fn holder_of_both(list: &str, file: &str) -> Option<u32> {
    let holder_of = |byte: u64| {
        list.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [_, "POSIX", _, "WRITE", process, locked, from, to] = fields[..] else { return None };
            let holds = locked == file && from.parse::<u64>().ok()? <= byte && byte <= to.parse::<u64>().ok()?;
            holds.then(|| process.parse::<u32>().ok()).flatten()
        })
    };
    let writer = holder_of(WRITE_LOCK)?;
    (holder_of(CHECKPOINT_LOCK) == Some(writer)).then_some(writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_and_another_s_checkpoint_are_no_truncation() {
        // Proves that only the two locks of one file in one hand count. Neighbouring locks come as one line.
        let line = |process: u32, file: &str, first: u64, last: u64| {
            format!("1: POSIX  ADVISORY  WRITE {process} {file} {first} {last}\n")
        };
        let other_lines = "2: FLOCK  ADVISORY  WRITE 9 fe:00:7 0 EOF\n3: POSIX  ADVISORY  READ 9 fe:00:7 124 124\n\
                           4: -> POSIX  ADVISORY  WRITE 9 fe:00:7 120 121\n";
        let (a, b) = (line(1, "fe:00:7", 120, 120), line(2, "fe:00:7", 121, 121));
        let both = line(3, "fe:00:7", 120, 121);
        let apart = line(4, "fe:00:7", 120, 120) + &line(4, "fe:00:7", 121, 121);
        let elsewhere = line(1, "fe:00:7", 120, 120) + &line(1, "fe:00:8", 121, 121);
        let cases = [("", None), (&a, None), (&(a.clone() + &b), None), (&elsewhere, None)];
        for (list, expected) in cases.into_iter().chain([(&*both, Some(3)), (&*apart, Some(4))]) {
            assert_eq!(holder_of_both(&(other_lines.to_owned() + list), "fe:00:7"), expected, "{list}");
        }
    }
}

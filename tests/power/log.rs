//! The log that all processes of a recorded run share: what the disk was told, by the shim, and between it the marks of the
//! test, what the programs were told. Its order is the order in which things happened.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::said::Said;

/// Bytes of a record before its data: size, what, name, pid, sync, time, inode, offset.
const HEADER_BYTES: usize = 40;
const MARK: u8 = 7;

/// A file that the shim records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Name {
    Database,
    Wal,
    Journal,
    Folder,
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) pid: u32,
    /// Microseconds; a mark has that of the record before it.
    pub(crate) at_us: u64,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// The name leads to a new, empty file.
    Created(Name, u64),
    /// The name leads to nothing.
    Removed(Name),
    Written {
        inode: u64,
        offset: usize,
        data: Vec<u8>,
    },
    Length {
        inode: u64,
        length: usize,
    },
    /// What was written before is on disk as soon as the end of this sync is there.
    SyncBegun {
        sync: u32,
    },
    SyncEnded {
        name: Name,
        inode: u64,
        sync: u32,
    },
    Mark(Said),
}

/// Reads a whole log. A last record that is cut off, of a process that was killed, is left out.
pub(crate) fn read(path: &Path) -> Vec<Record> {
    let log = std::fs::read(path).unwrap();
    let (mut rest, mut records) = (log.as_slice(), Vec::new());
    while rest.len() >= HEADER_BYTES {
        let size = usize::try_from(word(rest, 0)).unwrap();
        let Some(record) = rest.get(..size) else { break };
        rest = &rest[size..];
        records.push(parse(record, records.last()));
    }
    records
}

fn parse(record: &[u8], before: Option<&Record>) -> Record {
    let (sync, inode, offset) = (word(record, 12), long(record, 24), usize::try_from(long(record, 32)).unwrap());
    let data = &record[HEADER_BYTES..];
    let name = || match record[5] {
        1 => Name::Database,
        2 => Name::Wal,
        3 => Name::Journal,
        4 => Name::Folder,
        other => panic!("no file is {other}"),
    };
    let what = match record[4] {
        1 => What::Created(name(), inode),
        2 => What::Written { inode, offset, data: data.to_vec() },
        3 => What::Length { inode, length: offset },
        4 => What::Removed(name()),
        5 => What::SyncBegun { sync },
        6 => What::SyncEnded { name: name(), inode, sync },
        MARK => What::Mark(serde_json::from_slice(data).unwrap()),
        other => panic!("no record is {other}"),
    };
    let at_us = if record[4] == MARK { before.map_or(0, |record| record.at_us) } else { long(record, 16) };
    Record { pid: word(record, 8), at_us, what }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Writes marks; each thread has its own.
pub(crate) struct Marker(File);

impl Marker {
    pub(crate) fn open(log: &Path) -> Self {
        Self(OpenOptions::new().append(true).create(true).open(log).unwrap())
    }

    /// Notes what a program has just been told, or is about to ask.
    pub(crate) fn say(&self, said: &Said) {
        let data = serde_json::to_vec(said).unwrap();
        let mut record = vec![0; HEADER_BYTES];
        record[..4].copy_from_slice(&u32::try_from(HEADER_BYTES + data.len()).unwrap().to_ne_bytes());
        record[4] = MARK;
        record[8..12].copy_from_slice(&std::process::id().to_ne_bytes());
        record.extend(data);
        self.locked(|| (&self.0).write_all(&record).unwrap());
    }

    /// Nothing is recorded while `act` runs: a process that is killed in it has recorded all that it did.
    pub(crate) fn locked<T>(&self, act: impl FnOnce() -> T) -> T {
        self.0.lock().unwrap();
        let done = act();
        self.0.unlock().unwrap();
        done
    }
}

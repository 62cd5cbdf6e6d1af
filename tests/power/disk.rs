//! The disk of a recorded run, and what it may hold after the power is lost at some point of the log.
//!
//! The model is POSIX at its least, harsher than any real file system in most ways:
//! - A write or a change of length is on disk once a sync of its file that began after it has ended. Before that it is kept,
//!   dropped, or torn: of its sectors, 512 or 4,096 bytes each, any may be kept. Each independently of the others, so a
//!   later one may be there without an earlier one. A sector itself is whole.
//! - Where a file was made longer and what fills it was dropped, there are zeros or the remains of something else.
//! - A new file, and the removal of one, is on disk once a sync of the *folder* that began after it has ended; until then
//!   the changes of the folder are kept up to any point, in their order. The sync of a file does not keep its name.
//! - What was synced is never lost: no worn-out disk, and none that lies about its syncs.
//!
//! The -shm of SQLite is memory; after the loss it is missing, or full of anything.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::log::{Name, Record, What};
use crate::harness::Random;

#[derive(Default)]
pub(crate) struct Disk<'a> {
    files: Vec<FileOnDisk<'a>>,
    /// Inodes are used again; each file has a number of its own here.
    of_inode: HashMap<u64, usize>,
    folder: HashMap<Name, usize>,
    folder_changes: Vec<(usize, Name, Option<usize>)>,
    /// Where the syncs began that have not ended.
    syncs: HashMap<(u32, u32), usize>,
}

#[derive(Default)]
struct FileOnDisk<'a> {
    synced: Vec<u8>,
    changes: Vec<(usize, Change<'a>)>,
}

#[derive(Clone, Copy)]
enum Change<'a> {
    Written { offset: usize, data: &'a [u8] },
    Length(usize),
}

/// What becomes of the changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// All of them are lost.
    All,
    /// None is.
    Nothing,
    /// Some of them.
    Some,
}

impl<'a> Disk<'a> {
    /// What happened next; `at` counts the records.
    pub(crate) fn apply(&mut self, at: usize, record: &'a Record) {
        match &record.what {
            What::Created(name, inode) => {
                self.files.push(FileOnDisk::default());
                self.of_inode.insert(*inode, self.files.len() - 1);
                self.folder_changes.push((at, *name, Some(self.files.len() - 1)));
            }
            What::Removed(name) => self.folder_changes.push((at, *name, None)),
            What::Written { inode, offset, data } => {
                self.file(*inode).changes.push((at, Change::Written { offset: *offset, data }));
            }
            What::Length { inode, length } => self.file(*inode).changes.push((at, Change::Length(*length))),
            What::SyncBegun { sync } => drop(self.syncs.insert((record.pid, *sync), at)),
            What::SyncEnded { name, inode, sync } => {
                let begun = self.syncs.remove(&(record.pid, *sync)).expect("a sync begins before it ends");
                if *name == Name::Folder { self.sync_folder(begun) } else { self.file(*inode).sync(begun) }
            }
            What::Mark(_) => {}
        }
    }

    fn file(&mut self, inode: u64) -> &mut FileOnDisk<'a> {
        &mut self.files[self.of_inode[&inode]]
    }

    fn sync_folder(&mut self, begun: usize) {
        for (_, name, file) in self.folder_changes.extract_if(.., |(at, ..)| *at < begun) {
            change_folder(&mut self.folder, name, file);
        }
    }

    /// Writes what is left after a loss of power now, as `database` and the files beside it.
    pub(crate) fn image(&self, database: &Path, loss: Loss, random: &Random) {
        let mut folder = self.folder.clone();
        let n_kept = match loss {
            Loss::All => 0,
            Loss::Nothing => self.folder_changes.len(),
            Loss::Some => index(random, self.folder_changes.len() + 1),
        };
        for &(_, name, file) in &self.folder_changes[..n_kept] {
            change_folder(&mut folder, name, file);
        }
        for (name, file) in folder {
            std::fs::write(beside(database, ending(name)), self.files[file].after(loss, random)).unwrap();
        }
        if random.below(2) == 0 {
            std::fs::write(beside(database, "-shm"), remains(32 * 1024, random)).unwrap();
        }
    }
}

fn change_folder(folder: &mut HashMap<Name, usize>, name: Name, file: Option<usize>) {
    match file {
        Some(file) => drop(folder.insert(name, file)),
        None => drop(folder.remove(&name)),
    }
}

fn ending(name: Name) -> &'static str {
    match name {
        Name::Database => "",
        Name::Wal => "-wal",
        Name::Journal => "-journal",
        Name::Folder => unreachable!("the folder is not in itself"),
    }
}

fn beside(database: &Path, ending: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

impl FileOnDisk<'_> {
    fn sync(&mut self, begun: usize) {
        for (_, change) in self.changes.extract_if(.., |(at, _)| *at < begun) {
            change.make(&mut self.synced, 0);
        }
    }

    fn after(&self, loss: Loss, random: &Random) -> Vec<u8> {
        let mut content = self.synced.clone();
        if loss == Loss::All {
            return content;
        }
        let sector = if random.below(2) == 0 { 512 } else { 4_096 };
        // From nearly nothing to nearly everything.
        let kept_of_8 = 1 + random.below(7);
        let fill = if random.below(2) == 0 { 0 } else { 1 + u8::try_from(random.below(255)).unwrap() };
        for (_, change) in &self.changes {
            match (loss, random.below(8) < kept_of_8, random.below(3)) {
                (Loss::Nothing, ..) | (_, true, _) => change.make(&mut content, fill),
                (_, false, 0) => change.tear(&mut content, fill, sector, random),
                (_, false, _) => {}
            }
        }
        content
    }
}

impl Change<'_> {
    /// `fill` is what stands where nothing was written.
    fn make(self, content: &mut Vec<u8>, fill: u8) {
        match self {
            Self::Length(length) => content.resize(length, 0),
            Self::Written { offset, data } => put(content, fill, offset, data),
        }
    }

    /// Some of its sectors. A length is either or.
    fn tear(self, content: &mut Vec<u8>, fill: u8, sector: usize, random: &Random) {
        let Self::Written { offset, mut data } = self else { return };
        let mut from = offset;
        while !data.is_empty() {
            let (piece, rest) = data.split_at(data.len().min(sector - from % sector));
            if random.below(2) == 0 {
                put(content, fill, from, piece);
            }
            (data, from) = (rest, from + piece.len());
        }
    }
}

fn put(content: &mut Vec<u8>, fill: u8, offset: usize, data: &[u8]) {
    if content.len() < offset + data.len() {
        content.resize(offset + data.len(), fill);
    }
    content[offset..offset + data.len()].copy_from_slice(data);
}

fn index(random: &Random, n: usize) -> usize {
    usize::try_from(random.below(u64::try_from(n).unwrap())).unwrap()
}

fn remains(n: usize, random: &Random) -> Vec<u8> {
    (0..n / 8).flat_map(|_| random.below(u64::MAX).to_ne_bytes()).collect()
}

//! What the demo's tasks compute: the SHA-256 of a file and its words, and the totals over all files. The workers and the
//! recount at the end share it; the shell commands beside the totals share nothing with it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub(super) const SHA256: &str = "sha256";
pub(super) const WORDCOUNT: &str = "wordcount";

const CHUNK_BYTES: usize = 64 * 1024;

/// The result of a `sha256` task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Digest {
    /// In hex, as `sha256sum` writes it.
    pub(super) sha256: String,
    pub(super) bytes: u64,
}

/// The result of a `wordcount` task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Words {
    /// As `LC_ALL=C wc -w` counts: runs of bytes between white space that have a printable ASCII character.
    pub(super) words: u64,
    /// All runs of bytes between white space, as the `wc -w` of newer coreutils counts.
    pub(super) runs: u64,
}

/// Reads the file once. `on_chunk` hears of each chunk's bytes and can end it with an error.
pub(super) fn digest(path: &Path, mut on_chunk: impl FnMut(usize) -> io::Result<()>) -> io::Result<Digest> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    each_chunk(path, |chunk| {
        hash.update(chunk);
        bytes += chunk.len() as u64;
        on_chunk(chunk.len())
    })?;
    Ok(Digest { sha256: hex(&hash.finalize()), bytes })
}

/// Reads the file once. `on_chunk` hears of each chunk's bytes and can end it with an error.
pub(super) fn words(path: &Path, mut on_chunk: impl FnMut(usize) -> io::Result<()>) -> io::Result<Words> {
    let mut counter = Counter::default();
    each_chunk(path, |chunk| {
        counter.add(chunk);
        on_chunk(chunk.len())
    })?;
    Ok(counter.finish())
}

/// One number for all files: the SHA-256 of what `sha256sum -z` prints, sorted by bytes.
pub(super) fn combined<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut lines: Vec<String> = files.map(|(sha256, path)| format!("{sha256}  {path}")).collect();
    lines.sort_unstable();
    let mut hash = Sha256::new();
    for line in lines {
        hash.update(line.as_bytes());
        hash.update([0]);
    }
    hex(&hash.finalize())
}

/// The shell command that gives [`combined`] for the files named in `list`, each name ended by a NUL.
pub(super) fn combined_command(list: &Path) -> String {
    format!("xargs -0 sha256sum -z < {} | LC_ALL=C sort -z | sha256sum", quoted(list))
}

/// The shell command that gives the sum of [`Words::words`] for the files named in `list`.
pub(super) fn words_command(list: &Path) -> String {
    format!("LC_ALL=C wc -w --files0-from={} | tail -n 1", quoted(list))
}

/// One word for a shell.
pub(super) fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if path.chars().all(is_plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

fn each_chunk(path: &Path, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => take(&chunk[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Counts words over chunks that may cut them anywhere.
#[derive(Default)]
struct Counter {
    count: Words,
    in_run: bool,
    has_printable: bool,
}

impl Counter {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b' ' | b'\t'..=b'\r' => self.end_run(),
                _ => {
                    self.in_run = true;
                    self.has_printable |= byte.is_ascii_graphic();
                }
            }
        }
    }

    fn finish(mut self) -> Words {
        self.end_run();
        self.count
    }

    fn end_run(&mut self) {
        self.count.runs += u64::from(self.in_run);
        self.count.words += u64::from(self.has_printable);
        (self.in_run, self.has_printable) = (false, false);
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| char::from(DIGITS[usize::from(n)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_wc_counts() {
        // Proves the two definitions, also across chunks: each text is fed whole and byte by byte.
        let cases: [(&[u8], u64, u64); 6] = [
            (b"", 0, 0),
            (b"one", 1, 1),
            (b" one\ttwo\r\nthree\x0bfour\x0cfive ", 5, 5),
            ("a \u{2192} b".as_bytes(), 2, 3),
            ("na\u{ef}ve".as_bytes(), 1, 1),
            (b"\x00\x01 \x7f x\x00", 1, 3),
        ];
        for (text, words, runs) in cases {
            let (mut whole, mut bytewise) = (Counter::default(), Counter::default());
            whole.add(text);
            for byte in text {
                bytewise.add(&[*byte]);
            }
            assert_eq!(whole.finish(), Words { words, runs }, "{text:?}");
            assert_eq!(bytewise.finish(), Words { words, runs }, "{text:?}");
        }
    }

    #[test]
    fn the_digest_is_the_known_one() {
        // Proves digest and hex against the value that everyone knows for no bytes at all.
        let empty = tempfile::NamedTempFile::new().unwrap();
        let digest = digest(empty.path(), |_| Ok(())).unwrap();
        assert_eq!(digest.sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.bytes, 0);
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        // Proves that a printed command can be pasted whatever the folder is called.
        assert_eq!(quoted(Path::new("/tmp/a-b.c")), "/tmp/a-b.c");
        assert_eq!(quoted(Path::new("/tmp/it's here")), r"'/tmp/it'\''s here'");
    }
}

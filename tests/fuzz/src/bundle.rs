//! A corpus as one file: each input behind its length in two bytes. Thousands of files of some bytes would be a burden to every
//! checkout; libFuzzer wants a folder, which `corpora unpack` makes of it.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where the corpus of a target is kept.
pub fn path(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora").join(target)
}

/// The inputs of a target's corpus, in the order of the file.
///
/// # Errors
/// When the file is missing or ends in the middle of an input.
pub fn read(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let bytes = fs::read(path(target))?;
    let (mut rest, mut inputs) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let cut = || io::Error::other(format!("{} ends in the middle of an input", path(target).display()));
        let (length, behind) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
        let (input, behind) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or_else(cut)?;
        inputs.push(input.to_vec());
        rest = behind;
    }
    Ok(inputs)
}

/// Replaces the corpus of a target; sorted, so that the same inputs give the same file.
///
/// # Errors
/// When an input is too long for the file, or the file cannot be written.
pub fn write(target: &str, mut inputs: Vec<Vec<u8>>) -> io::Result<()> {
    inputs.sort();
    inputs.dedup();
    let mut bytes = Vec::new();
    for input in inputs {
        let length = u16::try_from(input.len()).map_err(io::Error::other)?;
        bytes.extend(length.to_be_bytes());
        bytes.extend(input);
    }
    fs::write(path(target), bytes)
}

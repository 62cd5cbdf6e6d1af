//! Which files the demo works on: the regular files of a folder, within bounds that are said, and sample files when there
//! are too few to see anything. Changes nothing in that folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;

const FILES_MAX: usize = 5_000;
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
const ALL_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// With fewer files every task would start at once, and there would be no queue to overtake.
pub(super) const FILES_MIN: usize = 12;
/// Not the person's own files, and many.
const FOLDERS_LEFT_OUT: [&str; 2] = [".git", "target"];

/// The chosen files, by absolute path, each valid UTF-8 so that it can stand in JSON.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) paths: Vec<String>,
    pub(super) bytes: u64,
    pub(super) n_samples: usize,
    /// How many files were left out, and why.
    left_out: LeftOut,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct LeftOut {
    too_large: usize,
    unreadable: usize,
    odd_name: usize,
    /// There are more files than the bounds on number and bytes allow.
    beyond: bool,
}

impl Files {
    /// Walks `folder`, in the order of names. Symbolic links are not followed.
    pub(super) fn choose(folder: &Path) -> Result<Self, Error> {
        let not_a_folder = |error: io::Error| {
            let text = format!("{}: {error}; name a folder", folder.display());
            if error.kind() == io::ErrorKind::NotFound { Error::NotFound(text) } else { Error::Usage(text) }
        };
        let root = folder.canonicalize().map_err(not_a_folder)?;
        fs::read_dir(&root).map_err(not_a_folder)?;
        let (mut files, mut todo) = (Self::default(), Vec::new());
        files.open_folder(&root, &mut todo);
        while let Some(path) = todo.pop() {
            let Ok(about) = path.symlink_metadata() else { continue };
            if about.is_dir() && !is_left_out(&path) {
                files.open_folder(&path, &mut todo);
            } else if about.is_file() && !files.take(path, about.len()) {
                break;
            }
        }
        Ok(files)
    }

    /// Writes sample files into `folder` until there are enough files to show something.
    pub(super) fn fill_up(&mut self, folder: &Path) -> io::Result<()> {
        if self.paths.len() >= FILES_MIN {
            return Ok(());
        }
        fs::create_dir_all(folder)?;
        for n in self.paths.len()..FILES_MIN {
            let path = folder.join(format!("sample-{n}.txt"));
            let text =
                format!("Sample {n}: a row goes in, a ready worker runs it, the result is in the row.\n").repeat(n + 1);
            fs::write(&path, &text)?;
            if self.take(path, text.len() as u64) {
                self.n_samples += 1;
            }
        }
        Ok(())
    }

    /// The names, each ended by a NUL, as `xargs -0` and `wc --files0-from` read them.
    pub(super) fn write_list(&self, path: &Path) -> io::Result<()> {
        let list: String = self.paths.iter().flat_map(|path| [path.as_str(), "\0"]).collect();
        fs::write(path, list)
    }

    /// What was left out, in words; empty when nothing was.
    pub(super) fn left_out(&self) -> String {
        let LeftOut { too_large, unreadable, odd_name, beyond } = self.left_out;
        let mib = |bytes: u64| bytes / 1024 / 1024;
        let count = |n: usize, why: String| (n > 0).then(|| format!("{n} {why}"));
        let mut parts = vec![
            count(too_large, format!("over {} MiB", mib(FILE_BYTES_MAX))),
            count(unreadable, "unreadable".into()),
            count(odd_name, "with a name that is not UTF-8".into()),
        ];
        parts.push(beyond.then(|| format!("all beyond the first {FILES_MAX} files or {} MiB", mib(ALL_BYTES_MAX))));
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn open_folder(&mut self, path: &Path, todo: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(path) else {
            self.left_out.unreadable += 1;
            return;
        };
        let mut inside: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        // The last one is visited first.
        inside.sort_unstable_by(|a, b| b.cmp(a));
        todo.extend(inside);
    }

    /// False when no more files fit.
    fn take(&mut self, path: PathBuf, bytes: u64) -> bool {
        if bytes > FILE_BYTES_MAX {
            self.left_out.too_large += 1;
            return true;
        }
        if self.paths.len() == FILES_MAX || self.bytes + bytes > ALL_BYTES_MAX {
            self.left_out.beyond = true;
            return false;
        }
        let readable = File::open(&path).is_ok();
        match path.into_os_string().into_string() {
            Ok(path) if readable => {
                self.paths.push(path);
                self.bytes += bytes;
            }
            Ok(_) => self.left_out.unreadable += 1,
            Err(_) => self.left_out.odd_name += 1,
        }
        true
    }
}

fn is_left_out(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| FOLDERS_LEFT_OUT.iter().any(|out| name == *out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn the_choice_is_regular_files_within_the_bounds() {
        // Proves what is left out: build and version folders, links, what is too large; and that it is said.
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for folder in [".git", "target", "b"] {
            fs::create_dir(root.join(folder)).unwrap();
            fs::write(root.join(folder).join("inside"), "x").unwrap();
        }
        fs::write(root.join("a"), "four").unwrap();
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).unwrap();
        File::create(root.join("large")).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        let mut files = Files::choose(&root).unwrap();
        let path = |name: &str| root.join(name).display().to_string();
        assert_eq!(files.paths, [path("a"), path("b/inside")]);
        assert_eq!((files.bytes, files.left_out().as_str()), (5, "1 over 64 MiB"));
        files.fill_up(&root.join("samples")).unwrap();
        assert_eq!((files.paths.len(), files.n_samples), (FILES_MIN, FILES_MIN - 2));
    }

    #[test]
    fn a_folder_that_is_none_is_told() {
        // Proves that a file and a missing folder are told with their name, and apart.
        let file = tempfile::NamedTempFile::new().unwrap();
        for (path, exit) in [(file.path(), Exit::Usage), (Path::new("/no/such/folder"), Exit::NotFound)] {
            let error = Files::choose(path).unwrap_err();
            assert!(error.exit() == exit && error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }
}

//! The list of keys: a folder of public files, one for each peer that is let in. All of it is read at once, or nothing.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use laneway::curve::PublicKey;
use serde::Deserialize;

use super::Role;

/// What the folder may hold.
const KEYS_MAX: usize = 10_000;
/// A public file has two lines; one that is longer is something else.
const FILE_BYTES_MAX: u64 = 4_096;
/// Other files of the folder are passed over: notes, and what an editor leaves.
const EXTENSION: &str = "public";

/// A key that is let in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The file's, without its ending.
    pub(crate) name: String,
    /// In Z85.
    pub(crate) key: String,
    pub(crate) roles: Vec<Role>,
}

#[derive(Debug, Default)]
pub(crate) struct KeyList {
    /// By key, in Z85: libzmq hands it on as a text.
    by_key: HashMap<String, Arc<Listed>>,
}

/// A public file. That of a peer which no admin has seen yet has no roles.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicFile {
    public_key: String,
    #[serde(default)]
    roles: Vec<Role>,
}

impl KeyList {
    /// Reads every `NAME.public` of the folder. Fails with a text that names the first file that is not right.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let fail = |error| format!("the folder of keys {} cannot be read: {error}", folder.display());
        let mut list = Self::default();
        for entry in fs::read_dir(folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let listed = read(&path).map_err(|reason| format!("the key {}: {reason}", path.display()))?;
            if let Some(other) = list.by_key.get(&listed.key) {
                // Which roles would it have?
                return Err(format!("the key {}: is the same as that of {}", path.display(), other.name));
            }
            list.by_key.insert(listed.key.clone(), Arc::new(listed));
            if list.by_key.len() > KEYS_MAX {
                return Err(format!("the folder of keys {} holds over {KEYS_MAX} keys", folder.display()));
            }
        }
        Ok(list)
    }

    pub(crate) fn find(&self, key: &str) -> Option<&Arc<Listed>> {
        self.by_key.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    #[cfg(test)]
    pub(super) fn of(listed: Vec<Listed>) -> Self {
        Self { by_key: listed.into_iter().map(|listed| (listed.key.clone(), Arc::new(listed))).collect() }
    }
}

fn read(path: &Path) -> Result<Listed, String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is over {FILE_BYTES_MAX} bytes, so it is no file of `laneway keygen`"));
    }
    let file: PublicFile = toml::from_str(&text).map_err(|error| format!("is no public file: {}", error.message()))?;
    let key: PublicKey = file.public_key.parse().map_err(|reason| format!("public_key {reason}"))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Listed { name, key: key.to_string(), roles: file.roles })
}

#[cfg(test)]
mod tests {
    use laneway::curve::KeyPair;

    use super::*;

    #[test]
    fn a_folder_is_taken_whole_or_refused_by_the_file_that_is_wrong() {
        // Proves that roles are read, foreign files passed over, and that each mistake names its file and what is wrong.
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let (a, b) = (KeyPair::generate().unwrap().public(), KeyPair::generate().unwrap().public());
        write("a.public", &format!("public_key = \"{a}\"\nroles = [\"work\", \"read\"]\n"));
        write("b.public", &format!("public_key = \"{b}\"\n"));
        write("notes.txt", "anything");
        let list = KeyList::read(dir.path()).unwrap();
        assert_eq!(list.len(), 2);
        let found = list.find(&a.to_string()).unwrap();
        assert_eq!((found.name.as_str(), &found.roles[..]), ("a", &[Role::Work, Role::Read][..]));
        assert!(list.find(&b.to_string()).unwrap().roles.is_empty());

        for (text, says) in [
            (format!("public_key = \"{a}\""), "is the same as that of a"),
            (format!("public_key = \"{a}\"\nroles = [\"boss\"]"), "boss"),
            (format!("public_key = \"{a}\"\nrole = \"work\""), "role"),
            ("public_key = \"short\"".into(), "\"short\" is no key"),
            ("x".repeat(5_000), "over 4096 bytes"),
        ] {
            write("c.public", &text);
            let error = KeyList::read(dir.path()).unwrap_err();
            // Of two files with one key, either may be read first.
            assert!(error.contains(".public") && (error.contains(says) || error.contains("that of c")), "{error}");
        }
        assert!(KeyList::read(&dir.path().join("none")).unwrap_err().contains("none"));
    }
}

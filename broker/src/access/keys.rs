//! The list of keys: a folder of public files, one for each peer that is let in.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use laneway::curve::PublicKey;
use serde::Deserialize;

use super::Role;

/// What the folder may hold.
const KEYS_MAX: usize = 10_000;
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
    holds_secrets: bool,
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
    /// Reads every `NAME.public` of the folder. Gives also what is wrong with each file that is left out: that of a key which
    /// stands in two of them too, for which roles would it have?
    ///
    /// Fails when the folder itself cannot be read, holds too much, or may be written by anybody.
    pub(crate) fn read(folder: &Path) -> Result<(Self, Vec<String>), String> {
        let fail = |error| format!("the folder of keys {} cannot be read: {error}", folder.display());
        if fs::metadata(folder).map_err(fail)?.permissions().mode() & 0o002 != 0 {
            return Err(format!("the folder of keys {} may be written by anybody: chmod o-w it", folder.display()));
        }
        let mut list = Self::default();
        let (mut keys, mut wrong) = (BTreeMap::<String, Vec<Listed>>::new(), Vec::new());
        let mut n_files = 0;
        for entry in fs::read_dir(folder).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            list.holds_secrets |= path.extension().is_some_and(|extension| extension == "secret");
            let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if is_hidden || path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            n_files += 1;
            if n_files > KEYS_MAX {
                return Err(format!("the folder of keys {} holds over {KEYS_MAX} keys", folder.display()));
            }
            match read(&path) {
                Ok(listed) => keys.entry(listed.key.clone()).or_default().push(listed),
                // Taken away since the folder was listed.
                Err(_) if path.symlink_metadata().is_err() => {}
                Err(reason) => wrong.push(reason),
            }
        }
        for (key, mut files) in keys {
            if files.len() == 1 {
                list.by_key.extend(files.pop().map(|listed| (key, Arc::new(listed))));
            } else {
                let names: Vec<String> = files.iter().map(|listed| format!("{}.{EXTENSION}", listed.name)).collect();
                wrong.push(format!("the key {key} stands in {}: keep one of them", names.join(" and ")));
            }
        }
        Ok((list, wrong))
    }

    pub(crate) fn find(&self, key: &str) -> Option<&Arc<Listed>> {
        self.by_key.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether somebody left secret files there, which a broker never needs.
    pub(crate) fn holds_secrets(&self) -> bool {
        self.holds_secrets
    }

    #[cfg(test)]
    pub(super) fn of(listed: Vec<Listed>) -> Self {
        let by_key = listed.into_iter().map(|listed| (listed.key.clone(), Arc::new(listed)));
        Self { by_key: by_key.collect(), holds_secrets: false }
    }
}

/// Fails with a text that names the file.
fn read(path: &Path) -> Result<Listed, String> {
    let text = laneway::curve::read_text(path, false).map_err(|error| error.to_string())?;
    let bad = |reason: String| format!("{}: {reason}", path.display());
    let file: PublicFile =
        toml::from_str(&text).map_err(|error| bad(format!("is no public file: {}", error.message())))?;
    let key: PublicKey = file.public_key.parse().map_err(|reason| bad(format!("public_key {reason}")))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Listed { name, key: key.to_string(), roles: file.roles })
}

#[cfg(test)]
mod tests {
    use laneway::curve::KeyPair;

    use super::*;

    #[test]
    fn a_file_that_is_wrong_lets_nobody_in_and_keeps_nobody_out() {
        // Proves that roles are read, foreign files passed over, that each mistake names its file and what is wrong, and that
        // the other files count all the same.
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let (a, b) = (KeyPair::generate().unwrap().public(), KeyPair::generate().unwrap().public());
        write("a.public", &format!("public_key = \"{a}\"\nroles = [\"work\", \"read\"]\n"));
        write("b.public", &format!("public_key = \"{b}\"\n"));
        write("notes.txt", "anything");
        write(".#a.public", "what an editor leaves");
        std::os::unix::fs::symlink("nowhere", dir.path().join(".lock.public")).unwrap();
        let (list, wrong) = KeyList::read(dir.path()).unwrap();
        assert_eq!((list.len(), wrong), (2, Vec::new()));
        let found = list.find(&a.to_string()).unwrap();
        assert_eq!((found.name.as_str(), &found.roles[..]), ("a", &[Role::Work, Role::Read][..]));
        assert!(list.find(&b.to_string()).unwrap().roles.is_empty());

        for (text, says) in [
            (format!("public_key = \"{a}\"\nroles = [\"boss\"]"), "boss"),
            (format!("public_key = \"{a}\"\nrole = \"work\""), "role"),
            (format!("public_key = \"{a}\"\nsecret_key = \"{b}\""), "secret_key"),
            ("public_key = \"short\"".into(), "is no key"),
            ("x".repeat(5_000), "over 4096 bytes"),
            (String::new(), "public_key"),
        ] {
            write("c.public", &text);
            let (list, wrong) = KeyList::read(dir.path()).unwrap();
            assert_eq!((list.len(), wrong.len()), (2, 1), "{wrong:?}");
            assert!(wrong[0].contains("c.public") && wrong[0].contains(says), "{wrong:?}");
            assert!(!wrong[0].contains(&b.to_string()), "a value may be a secret in the wrong place");
        }
        write("c.public", &format!("public_key = \"{a}\"\nroles = [\"admin\"]"));
        let (list, wrong) = KeyList::read(dir.path()).unwrap();
        assert_eq!(list.len(), 1, "of two files for one key neither counts");
        assert!(wrong[0].contains("a.public") && wrong[0].contains("c.public"), "{wrong:?}");
    }

    #[test]
    fn a_folder_that_cannot_be_trusted_is_refused() {
        // Proves that a folder which is not there, or which anybody may put keys into, gives no list at all.
        let dir = tempfile::tempdir().unwrap();
        assert!(KeyList::read(&dir.path().join("none")).unwrap_err().contains("none"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(KeyList::read(dir.path()).unwrap_err().contains("chmod o-w"));
    }
}

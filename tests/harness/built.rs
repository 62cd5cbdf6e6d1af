//! The examples, and what they are made of, built into the target folder of this very test.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) struct Built {
    /// Each example by its name.
    pub(crate) programs: HashMap<String, PathBuf>,
    /// Each crate that they use, by its name.
    pub(crate) libraries: HashMap<String, PathBuf>,
    /// Where libraries that are not Rust lie.
    pub(crate) folders: Vec<String>,
}

impl Built {
    /// Builds the examples, if that has not been done, and says where they are.
    pub(crate) fn examples() -> Self {
        let profile = Path::new(env!("CARGO_BIN_EXE_laneway")).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--offline", "--package", "laneway-examples", "--examples", "--message-format", "json"]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "the examples do not build");
        let mut built = Self { programs: HashMap::new(), libraries: HashMap::new(), folders: Vec::new() };
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            built.hear(&serde_json::from_str(line).unwrap());
        }
        built
    }

    /// One message of cargo.
    fn hear(&mut self, message: &serde_json::Value) {
        let texts = |value: &serde_json::Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
        };
        self.folders.extend(texts(&message["linked_paths"]));
        let Some(name) = message["target"]["name"].as_str() else { return };
        if let Some(path) = message["executable"].as_str() {
            self.programs.insert(name.to_owned(), path.into());
        }
        let mut files = texts(&message["filenames"]).into_iter().map(PathBuf::from);
        if let Some(path) = files.find(|path| path.extension().is_some_and(|ending| ending == "rlib")) {
            self.libraries.insert(name.replace('-', "_"), path);
        }
    }
}

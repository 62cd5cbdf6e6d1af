//! One command of `laneway` and what it said.

use std::process::{Command, Output, Stdio};

use super::Place;

pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Runs `laneway` to its end in the place's folder, with nothing else in its environment.
    pub(crate) fn by(place: &Place, environment: &[(&str, &str)], words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
        command.args(words).current_dir(place.dir()).env_clear().stdin(Stdio::null());
        command.envs(environment.iter().copied());
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: status.code().expect("the program was not killed"), out: text(stdout), err: text(stderr) }
    }

    /// Standard output, one JSON value a line.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    #[track_caller]
    pub(crate) fn is(&self, code: i32, says: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(self.err.contains(says), "'{says}' is not in: {}", self.err);
    }
}

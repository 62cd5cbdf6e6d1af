//! A dashboard in a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::{Http, Place, signal, wait_for};

/// `laneway web`; killed when dropped.
pub(crate) struct Apart {
    child: Child,
    address: String,
    /// What it said before that.
    said: Vec<String>,
}

impl Apart {
    /// Starts it for the broker at `endpoint` on the place's database, on a port that the system chooses, with these words besides,
    /// and waits until it says where it is.
    pub(crate) fn start(place: &Place, endpoint: &str, words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_laneway"));
        command.args(["web", "--listen", "127.0.0.1:0", "--endpoint", endpoint, "--db"]).arg(place.db()).args(words);
        let mut child = command.env_clear().stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let address = lines.find_map(|line| {
            let address = line.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').to_owned());
            said.push(line);
            address
        });
        // What it says later nobody reads, and it must not wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: address.expect("it says where it is"), said }
    }

    /// With the path that it was told to be under.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What it said until it listened.
    pub(crate) fn said(&self) -> &[String] {
        &self.said
    }

    pub(crate) fn http(&self) -> Http {
        Http::at(self.address.split('/').next().unwrap())
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// SIGTERM, and waits for the end. Gives the exit code.
    pub(crate) fn stop(mut self) -> i32 {
        self.signal("TERM");
        wait_for("the dashboard to end", || self.child.try_wait().unwrap()).code().expect("it was not killed")
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

//! One page, read from its beginning to its end in a folder of its own: each block is run as its language says, and what
//! the page shows must come out.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rusqlite::Connection;

use crate::block::{Block, LANGUAGES, alike, root};
use crate::harness::{Built, DEADLINE, Place, Program, Said, Table, WorkerProcess, tools, wait_for, wait_until};
use crate::session::Session;

/// What a page says and what it is here: paths and other machines. Files of the page lie in the folder of the test.
const HERE: [(&str, &str); 5] = [
    ("/srv/app/", ""),
    ("/backup/", "backup-"),
    ("tcp://*:7734", "ipc://curve.sock"),
    ("tcp://10.0.0.5:7734", "ipc://curve.sock"),
    ("tail -f ", "tail -n +1 "),
];

pub(crate) struct Guide {
    page: &'static str,
    blocks: VecDeque<Block>,
    n_run: usize,
    session: Session,
    broker: Option<Program>,
    workers: Vec<WorkerProcess>,
    pub(crate) place: Place,
}

impl Guide {
    /// A page that starts its broker itself.
    pub(crate) fn open(page: &'static str) -> Self {
        let place = Place::new();
        let bin = place.path("bin");
        fs::create_dir(&bin).unwrap();
        symlink(env!("CARGO_BIN_EXE_laneway"), bin.join("laneway")).unwrap();
        let mut shell = in_place(Command::new("bash"), &place);
        let errors = fs::File::create(place.path("errors")).unwrap();
        let session = Session::start(shell.args(["--noprofile", "--norc"]).stderr(errors));
        let blocks = Block::all(page).into_iter().filter(|block| block.not_run.is_none() && block.language != "rust");
        Self { page, blocks: blocks.collect(), n_run: 0, session, broker: None, workers: Vec::new(), place }
    }

    /// A page for readers who have a broker, and workers for these kinds (with commas), which give their payload back.
    pub(crate) fn with_broker(page: &'static str, kinds: &str) -> Self {
        let mut guide = Self::open(page);
        let mut broker = in_place(Command::new(env!("CARGO_BIN_EXE_laneway")), &guide.place);
        broker.args(["broker", "--log-file", "broker.log", "--log-format", "json"]);
        guide.broker = Some(Program::start_with(&mut broker));
        guide.wait_for_broker();
        if !kinds.is_empty() {
            guide.worker(kinds);
        }
        guide
    }

    pub(crate) fn worker(&mut self, kinds: &str) {
        let before = self.n_workers();
        self.workers.push(WorkerProcess::start_at(&self.place, &self.endpoint(), &format!("kinds={kinds}")));
        wait_until("the worker to be there", || self.n_workers() > before);
    }

    /// kill -9 of the workers that the test itself has started.
    pub(crate) fn kill_workers(&mut self) {
        self.workers.clear();
    }

    pub(crate) fn stop_broker(&mut self) {
        assert_eq!(self.broker.take().expect("there is one").stop(), 0);
    }

    /// Lets `cargo` do what the page asks of it with what is built already.
    pub(crate) fn with_cargo(self) -> Self {
        let worker = Built::examples().programs["worker"].display().to_string();
        let endpoint = self.endpoint();
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n'build --release') ;;\n\
             'run --release -p laneway-examples --example worker') exec {worker} {endpoint} ;;\n\
             *) echo \"what is: cargo $*\" >&2; exit 1 ;;\nesac\n"
        );
        self.save("bin/cargo", &script);
        self
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("ipc://{}", self.place.path("app.db.sock").display())
    }

    /// The table, as an app sees it.
    pub(crate) fn table(&self) -> Table {
        let connection = Connection::open(self.place.path("app.db")).unwrap();
        connection.busy_timeout(DEADLINE).unwrap();
        Table(connection)
    }

    /// The next task that is inserted gets this id.
    pub(crate) fn next_task_is(&self, id: i64) {
        let table = self.table();
        table.execute("DELETE FROM sqlite_sequence WHERE name = 'tasks'", []);
        table.execute("INSERT INTO sqlite_sequence(name, seq) VALUES ('tasks', ?1)", [id - 1]);
    }

    /// The next block, which the caller runs, sooner or later.
    #[track_caller]
    pub(crate) fn take(&mut self, language: &str) -> Block {
        let block = self.blocks.pop_front().unwrap_or_else(|| panic!("{} has no further block", self.page));
        assert_eq!(block.language, language, "at {}", block.place);
        self.n_run += 1;
        block
    }

    /// Runs the next block, which is in this language. Gives what it printed.
    #[track_caller]
    pub(crate) fn run(&mut self, language: &str) -> String {
        let block = self.take(language);
        self.run_block(&block)
    }

    /// Runs the next program, whose words come out of it.
    #[track_caller]
    pub(crate) fn run_and_compare(&mut self, language: &str, shown: &str) {
        let block = self.take(language);
        let printed = self.run_block(&block);
        let lines = |text: &str| text.lines().map(alike).collect::<Vec<_>>();
        assert_eq!(lines(&printed), lines(shown), "{}", block.place);
    }

    #[track_caller]
    pub(crate) fn run_block(&mut self, block: &Block) -> String {
        assert!(LANGUAGES.contains(&block.language.as_str()), "{}: who runs {}?", block.place, block.language);
        let text = HERE.iter().fold(block.text.clone(), |text, (there, here)| text.replace(there, here));
        if let Some(file) = &block.file {
            self.save(file, &text);
            return String::new();
        }
        if block.language == "console" {
            let commands = block.commands();
            return commands.iter().map(|(command, shown)| self.type_in(command, shown)).collect();
        }
        let file = format!("block-{}.{}", self.n_run, block.language);
        self.save(&file, &text);
        self.run_program(&block.language, &file, &[])
    }

    /// Runs the next block of SQL with these parameters.
    #[track_caller]
    pub(crate) fn run_sql(&mut self, parameters: &[(&str, String)]) -> String {
        let block = self.take("sql");
        let file = format!("block-{}.sql", self.n_run);
        self.save(&file, &block.text);
        self.run_program("sql", &file, parameters)
    }

    #[track_caller]
    fn run_program(&self, language: &str, file: &str, parameters: &[(&str, String)]) -> String {
        let (program, words): (PathBuf, &[&str]) = match language {
            "sh" => ("sh".into(), &["-e"]),
            "python" => (tools::python3().into(), &[]),
            "ruby" => (tools::ruby().into(), &[]),
            "php" => (tools::php().into(), &[]),
            "go" => (tools::go().into(), &["run"]),
            "js" => (tools::node(), &["--no-warnings"]),
            "sql" => (tools::sqlite3().into(), &["-bail", "-cmd", ".timeout 5000"]),
            "toml" => (env!("CARGO_BIN_EXE_laneway").into(), &["broker", "--check-config", "--config"]),
            other => panic!("who runs {other}?"),
        };
        let mut command = in_place(Command::new(program), &self.place);
        command.args(words).stdin(Stdio::null());
        if language == "sql" {
            for (name, value) in parameters {
                command.args(["-cmd", &format!(".parameter set {name} {value}")]);
            }
            command.arg("app.db").stdin(fs::File::open(self.place.path(file)).unwrap());
        } else {
            command.arg(file);
        }
        if language == "go" {
            command.envs(tools::go_environment());
        }
        let output = command.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let text = fs::read_to_string(self.place.path(file)).unwrap();
        assert!(output.status.success(), "{}: {file} ended with {}\n{text}\n{out}\n{err}", self.page, output.status);
        out.into_owned()
    }

    /// Types one command of a `console` block. Gives what it printed, with the lines that the page shows among it, in order.
    #[track_caller]
    pub(crate) fn type_in(&mut self, command: &str, shown: &[String]) -> String {
        let command = HERE.iter().fold(command.to_owned(), |text, (there, here)| text.replace(there, here));
        // A comment stands behind two blanks.
        let said = command.split("  #").next().unwrap_or_default().trim_end();
        let is = |begin: &str| said.starts_with(begin) && !said.ends_with("-config");
        // A reader leaves it running and opens another window.
        let is_server = !said.ends_with('&') && (is("laneway broker") || is("laneway work "));
        let typed = if is_server { format!("{said} &") } else { command.clone() };
        let n_before = if typed.contains("work") { self.n_workers() } else { 0 };
        // Asking again changes nothing; what it asks for may take a moment.
        let only_asks = said.contains("SELECT") || ["explain", "list", "show"].iter().any(|word| said.contains(word));
        let printed = wait_for(&format!("{}: {shown:#?} of: {command}", self.page), || {
            let (code, printed) = self.session.run(&typed);
            let errors = fs::read_to_string(self.place.path("errors")).unwrap_or_default();
            assert_eq!(code, 0, "{}: {command}\n{printed:#?}\n{errors}", self.page);
            let mut rest = printed.iter().map(|line| alike(line));
            let all = shown.iter().all(|line| rest.any(|other| other == alike(line)));
            assert!(all || only_asks, "{}: {command}\n{printed:#?}\n{errors}", self.page);
            all.then_some(printed)
        });
        if said.contains("laneway broker") && (is_server || said.ends_with('&')) {
            self.wait_for_broker();
        } else if is_server || (said.ends_with('&') && said.contains("work")) {
            wait_until("the worker to be there", || self.n_workers() > n_before);
        }
        printed.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// A file in the page's folder; a script can be run.
    pub(crate) fn save(&self, name: &str, text: &str) {
        let path = self.place.path(name);
        fs::write(&path, text).unwrap();
        if text.starts_with("#!") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// All blocks have been run.
    #[track_caller]
    pub(crate) fn end(self) {
        let left: Vec<&str> = self.blocks.iter().map(|block| block.place.as_str()).collect();
        assert!(left.is_empty(), "nobody runs {left:?}");
    }

    fn said(&self, words: &[&str]) -> Said {
        Said::by(&self.place, &[("LANEWAY_DB", "app.db")], words)
    }

    /// Until the broker's log says this; lines are written a moment after what they tell.
    pub(crate) fn wait_for_log(&self, text: &str) {
        let log = self.place.path("broker.log");
        wait_until(text, || fs::read_to_string(&log).unwrap_or_default().contains(text));
    }

    /// Where the broker of the page has its dashboard, as its log tells.
    pub(crate) fn dashboard(&self) -> String {
        let log = self.place.path("broker.log");
        wait_for("the dashboard's address", || {
            let text = fs::read_to_string(&log).ok()?;
            let mut lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let line = lines.find(|line| line["message"] == "dashboard")?;
            Some(line["address"].as_str()?.to_owned())
        })
    }

    pub(crate) fn wait_for_broker(&self) {
        wait_until("the broker to answer", || self.said(&["stats"]).code == 0);
    }

    fn n_workers(&self) -> usize {
        let said = self.said(&["worker", "list", "-o", "json"]);
        if said.code == 0 { said.json().len() } else { 0 }
    }
}

/// With what a reader has: the programs of the machine and `laneway`. It listens beside the database alone, for other tests
/// may run at the same time.
fn in_place(mut command: Command, place: &Place) -> Command {
    let mut path = place.path("bin").into_os_string();
    path.push(OsString::from(":"));
    path.push(std::env::var_os("PATH").unwrap_or_default());
    command.current_dir(place.dir()).env_clear().env("PATH", path).env("HOME", place.dir());
    command.env("LANEWAY_DB", "app.db").env("LANEWAY_BIND", "ipc://app.db.sock");
    command
}

/// The README as a file in the place, for commands that read it.
pub(crate) fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

//! `laneway top` as people use it: the real program in a real pseudo-terminal, against a real broker and worker, and what it prints
//! for scripts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use harness::{Broker, Place, Said, Table, WorkerProcess, wait_for, wait_until};
use serde_json::json;

#[test]
fn worker_process() {
    // Not a test of its own: the worker processes of the tests in this file begin here.
    harness::worker_main();
}

const COLUMNS: u16 = 80;
const LINES: u16 = 24;

/// A shell in a terminal of 80x24, which `script` of the system makes, with what it shows. Killed when dropped.
struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    shows: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Runs these lines of `sh` in the place's folder, `laneway` among the programs that it finds.
    fn start(place: &Place, lines: &str) -> Self {
        let bin = place.path("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_laneway"), bin.join("laneway")).ok();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        std::fs::write(place.path("lines.sh"), format!("stty rows {LINES} cols {COLUMNS}\n{lines}")).unwrap();
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", "sh lines.sh", "/dev/null"]);
        command.current_dir(place.dir()).env_clear().env("PATH", path).env("TERM", "xterm").env("SHELL", "/bin/sh");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let side = |n| NonZeroU16::new(n).unwrap();
        let shows = Arc::new(Mutex::new(vt100::Parser::new(side(LINES), side(COLUMNS), 0)));
        let (mut output, parser) = (child.stdout.take().unwrap(), Arc::clone(&shows));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                parser.lock().unwrap().process(&bytes[..n]);
            }
        });
        Self { keys: child.stdin.take(), child, shows }
    }

    /// `laneway top` with these words, between two looks at the modes of the terminal.
    fn top(place: &Place, words: &str) -> Self {
        let lines = format!("stty -g > before\nlaneway top {words}\necho \"it ended with $?\"\nstty -g > after\n");
        Self::start(place, &lines)
    }

    fn press(&mut self, keys: &str) {
        let pipe = self.keys.as_mut().unwrap();
        pipe.write_all(keys.as_bytes()).unwrap();
        pipe.flush().unwrap();
    }

    fn text(&self) -> String {
        self.shows.lock().unwrap().screen().contents()
    }

    /// Whether the shell's own screen is away.
    fn is_full_screen(&self) -> bool {
        self.shows.lock().unwrap().screen().alternate_screen()
    }

    #[track_caller]
    fn wait_for_text(&self, needle: &str) -> String {
        // What was there instead is the best clue.
        let until = std::time::Instant::now() + harness::DEADLINE;
        loop {
            let text = self.text();
            if text.contains(needle) {
                return text;
            }
            assert!(std::time::Instant::now() < until, "waited for '{needle}' on\n{text}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// The whole line that has this text.
    #[track_caller]
    fn line_with(&self, needle: &str) -> String {
        let text = self.wait_for_text(needle);
        text.lines().find(|line| line.contains(needle)).unwrap().to_owned()
    }

    /// It has ended with this code, and the terminal is as it was.
    #[track_caller]
    fn ended(mut self, place: &Place, code: i32) {
        self.wait_for_text(&format!("it ended with {code}"));
        drop(self.keys.take());
        wait_until("the shell to end", || self.child.try_wait().unwrap().is_some());
        assert!(!self.is_full_screen() && !self.shows.lock().unwrap().screen().hide_cursor(), "{}", self.text());
        let modes = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
        assert_eq!(modes("after"), modes("before"));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already. What runs in it gets a SIGHUP when its terminal is gone.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One object of a command's JSON with this value.
fn row(place: &Place, words: &[&str], name: &str, value: &str) -> serde_json::Value {
    let endpoint = place.endpoint();
    let said = Said::by(place, &[], &[&["--endpoint", &endpoint, "-o", "json"], words].concat());
    said.json().into_iter().find(|row| row[name] == value).unwrap_or_default()
}

#[test]
fn a_person_watches_pauses_cancels_and_quits() {
    // Proves the whole way by keys: the running task is seen, a lane is paused and resumed and the broker says so, the task is
    // cancelled, a dead one is queued again, and the terminal is as before.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let _worker = WorkerProcess::start(&place, "name=thumbs-1 slots=2 kinds=gate");
    let table = Table::open(&place);
    let task = table.insert("gate", &json!({ "path": place.path("never") }).to_string());
    table.wait_for_state(task, "running");
    let dead = "INSERT INTO tasks(kind, state, finished_at, error) VALUES ('resize', 'dead', 1, 'no route to host') RETURNING id";
    let dead: i64 = table.one(dead, []);

    let mut terminal = Terminal::top(&place, &format!("--endpoint {} --interval 0.25", place.endpoint()));
    let line = terminal.line_with("gate");
    assert!(line.contains(&task.to_string()) && line.contains("thumbs-1") && line.contains("normal"), "{line}");
    assert!(terminal.is_full_screen());
    terminal.wait_for_text("1 of 2 busy");

    // The lanes have the keys at first; low is the third.
    terminal.press("jjp");
    terminal.wait_for_text("pause lane low?");
    terminal.press("y");
    terminal.wait_for_text("lane low is paused");
    assert_eq!(row(&place, &["lane", "list"], "lane", "low")["paused"], true);
    wait_until("the lane's row", || terminal.line_with("low ").contains("paused"));
    terminal.press("p");
    terminal.wait_for_text("resume lane low?");
    terminal.press("n");
    terminal.wait_for_text("nothing was changed");
    assert_eq!(row(&place, &["lane", "list"], "lane", "low")["paused"], true);

    terminal.press("1c");
    terminal.wait_for_text(&format!("cancel task {task}?"));
    terminal.press("y");
    terminal.wait_for_text("its worker was asked to stop");
    table.wait_for_state(task, "cancelled");
    terminal.wait_for_text("nothing runs");

    terminal.press("4");
    assert!(terminal.line_with("no route to host").contains("resize"));
    terminal.press("r");
    terminal.wait_for_text(&format!("queue task {dead} again"));
    terminal.press("y");
    terminal.wait_for_text("queued again");
    table.wait_for_state(dead, "queued");

    terminal.press("?");
    terminal.wait_for_text("freeze it");
    terminal.press("x");
    terminal.press("q");
    terminal.ended(&place, 0);
}

#[test]
fn it_waits_for_a_broker_that_goes_away() {
    // Proves that a killed broker is told with the last picture kept, that keys go on meanwhile, and that the next one is found.
    let place = Place::new();
    let broker = Broker::start(&place);
    let mut terminal = Terminal::top(&place, &format!("--endpoint {} --interval 0.25 --read-only", place.endpoint()));
    assert!(terminal.wait_for_text("normal").contains("read-only"));
    broker.kill();
    terminal.wait_for_text("no answer for");
    assert!(terminal.text().contains("normal"), "the last picture stays");
    terminal.press("p");
    terminal.wait_for_text("start it without --read-only");
    let _broker = Broker::start(&place);
    Table::open(&place).insert("nobody", "1");
    terminal.press("3");
    terminal.wait_for_text("nobody");
    wait_until("the silence to be over", || !terminal.text().contains("no answer for"));
    terminal.press("\u{3}");
    terminal.ended(&place, 0);
}

#[test]
fn a_signal_gives_the_terminal_back() {
    // Proves that SIGTERM ends it as a key does.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let endpoint = place.endpoint();
    // The shell's own number is that of the program, once it has become it.
    let words = format!("--endpoint {endpoint}");
    let lines = format!(
        "stty -g > before\nsh -c 'echo $$ > pid; exec laneway top {words}'\necho \"it ended with $?\"\nstty -g > after\n"
    );
    let terminal = Terminal::start(&place, &lines);
    terminal.wait_for_text("j/k select");
    let pid = wait_for("the number", || std::fs::read_to_string(place.path("pid")).ok()?.trim().parse().ok());
    harness::signal(pid, "TERM");
    terminal.ended(&place, 0);
}

#[test]
fn it_can_be_left_for_the_shell_and_taken_up_again() {
    // Proves that Ctrl-Z gives the terminal back while it is stopped, and that `fg` brings the picture and the keys back.
    let place = Place::new();
    let _broker = Broker::start(&place);
    let lines = format!(
        "set -m\nstty -g > before\nlaneway top --endpoint {}\necho \"it stopped with $?\"\nstty -g > during\nread line\n\
         fg\necho \"it ended with $?\"\nstty -g > after\n",
        place.endpoint()
    );
    let mut terminal = Terminal::start(&place, &lines);
    terminal.wait_for_text("j/k select");
    terminal.press("\u{1a}");
    terminal.wait_for_text("it stopped with 148");
    assert!(!terminal.is_full_screen());
    let modes = |name: &str| std::fs::read_to_string(place.path(name)).unwrap_or_default();
    wait_until("the modes to be told", || modes("during") == modes("before"));
    terminal.press("\n");
    terminal.wait_for_text("j/k select");
    assert!(terminal.is_full_screen());
    terminal.press("?");
    terminal.wait_for_text("freeze it");
    terminal.press("xq");
    terminal.ended(&place, 0);
}

#[test]
fn a_script_gets_one_picture_as_text() {
    // Proves `--once`: no escapes, the size that is asked for, the age of what waits where the database is at hand.
    let place = Place::new();
    let bind = format!("ipc://{}.sock", place.db().display());
    let _broker = Broker::start_as(&place, &["--bind", &bind]);
    let table = Table::open(&place);
    let hour_ago = i64::try_from(harness::now_us() / 1_000).unwrap() - 3_660_000;
    table.execute("INSERT INTO tasks(kind, created_at) VALUES ('nobody', ?1)", [hour_ago]);
    wait_until("the row to be counted", || row(&place, &["lane", "list"], "lane", "normal")["queued"] == 1);
    let db = place.db().display().to_string();
    let once = ["top", "--db", &db, "--once", "--interval", "250ms", "--pane", "kinds"];
    let said = Said::by(&place, &[], &once);
    said.is(0, "");
    assert!(!said.out.contains('\u{1b}') && said.out.lines().count() <= 24, "{}", said.out);
    let line = |needle: &str| said.out.lines().find(|line| line.starts_with(needle)).unwrap_or_default().to_owned();
    assert!(line("normal").contains("1h01m") && line("normal").contains("0/s"), "{}", said.out);
    assert!(line("nobody").contains("open"), "{}", said.out);
    let narrow = Said::by(&place, &[("COLUMNS", "62"), ("LINES", "16")], &once);
    assert!(narrow.out.lines().all(|line| line.chars().count() <= 62), "{}", narrow.out);
    assert!(!narrow.out.contains("TREND") && narrow.out.contains("OLDEST"), "{}", narrow.out);
    let small = Said::by(&place, &[("COLUMNS", "30"), ("LINES", "5")], &once);
    assert!(small.out.contains("needs 60x15"), "{}", small.out);
}

#[test]
fn where_it_cannot_be_shown_the_next_step_is_told() {
    // Proves that a pipe is no terminal, that no broker is told with its exit code, and what is refused.
    let place = Place::new();
    let run = |words: &[&str]| Said::by(&place, &[], &[&["--endpoint", "tcp://127.0.0.1:1", "top"], words].concat());
    run(&[]).is(2, "`laneway top --once` prints one picture");
    run(&["--once"]).is(3, "no broker answers at tcp://127.0.0.1:1");
    run(&["--interval", "10ms"]).is(2, "must be 250 ms to 60 s");
    run(&["--pane", "lanes"]).is(2, "running, workers, kinds, dead");
    run(&["-o", "json", "--once"]).is(2, "laneway stats");
}

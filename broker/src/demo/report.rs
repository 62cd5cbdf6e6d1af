//! The end of the demo: what happened, read from the table, and whether each promise was kept. Recounts every file itself
//! and prints the shell commands that give the same totals.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;

use super::count::{self, Digest, SHA256, WORDCOUNT, Words, quoted};
use super::files::Files;
use super::screen::Screen;
use super::table::{Lost, TaskLine};
use super::worker::SLOTS;
use crate::error::Error;

/// Offenders that are listed; a number stands for the rest.
const LISTED_MAX: usize = 5;

/// A worker process.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) session: String,
}

/// The worker that was killed, and when, in Unix milliseconds.
#[derive(Debug)]
pub(super) struct Killed {
    pub(super) member: Member,
    pub(super) at: i64,
}

/// Everything that the report is about.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) n_tasks: usize,
    pub(super) queued_before_urgent: usize,
    /// `None` when everything was done before a worker could be killed.
    pub(super) killed: Option<Killed>,
    pub(super) lost: Vec<Lost>,
    pub(super) members: Vec<Member>,
    pub(super) rows: Vec<TaskLine>,
    /// Processes that did not end well.
    pub(super) complaints: Vec<String>,
}

/// Prints everything; fails when a promise was not kept.
pub(super) fn print(
    screen: &Screen,
    files: &Files,
    folder: &Path,
    story: &Story,
    interrupted: &AtomicBool,
) -> Result<(), Error> {
    screen.line("")?;
    screen.line(&summary(&story.rows))?;
    screen.line("")?;
    let recount = Recount::of(files, interrupted).map_err(|error| Error::other("count the files again", error))?;
    let list = folder.join("files");
    let words = recount.words.values().fold((0, 0), |sum, one| (sum.0 + one.words, sum.1 + one.runs));
    screen.say("sha256", &recount.combined())?;
    screen.say("  same as", &count::combined_command(&list))?;
    screen.say("words", &words.0.to_string())?;
    screen.say("  same as", &count::words_command(&list))?;
    if words.1 != words.0 {
        let text = format!("newer wc also counts words without a printable ASCII character, which makes {}", words.1);
        screen.say("", &text)?;
    }
    screen.say("speed", &speed(&story.rows))?;
    screen.say("balance", &balance(story))?;
    screen.line("")?;
    let checks = [all_done(story), totals(story, &recount), overtaking(story), rescue(story), processes(story)];
    for check in &checks {
        let (word, text) = match check {
            Check::Kept(text) => ("ok", text),
            Check::NotShown(text) => ("not shown", text),
            Check::Broken(text) => ("FAILED", text),
        };
        screen.say(word, text)?;
    }
    screen.line("")?;
    let db = quoted(&super::db(folder));
    let sql =
        "SELECT id, kind, lane, state, runs, attempts, losses, result FROM task_view WHERE losses > 0 OR lane = 'high'";
    screen.say("look", &format!("sqlite3 -header -column {db} \"{sql}\""))?;
    screen.say("", &format!("laneway --db {db} task list"))?;
    screen.say("remove", &format!("rm -r {}", quoted(folder)))?;
    match checks.iter().filter(|check| matches!(check, Check::Broken(_))).count() {
        0 => Ok(()),
        n => Err(Error::TaskFailed(format!("{n} of {} checks failed", checks.len()))),
    }
}

pub(super) fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} bytes"),
        1_000..1_000_000 => format!("{}.{} kB", n / 1_000, n % 1_000 / 100),
        _ => format!("{}.{} MB", n / 1_000_000, n % 1_000_000 / 100_000),
    }
}

/// What became of a promise, with its figures or what is wrong.
enum Check {
    Kept(String),
    /// The tasks were done too soon; nothing speaks against it.
    NotShown(String),
    Broken(String),
}

impl Check {
    fn of(is_kept: bool, text: String) -> Self {
        if is_kept { Self::Kept(text) } else { Self::Broken(text) }
    }
}

fn all_done(story: &Story) -> Check {
    let is_done = |task: &&TaskLine| task.state == "done";
    let n_done = story.rows.iter().filter(is_done).count();
    let text = format!("{n_done} of {} tasks are done, each with its result in its row", story.n_tasks);
    if n_done == story.n_tasks && story.rows.len() == story.n_tasks {
        return Check::Kept(text);
    }
    let bad = story.rows.iter().filter(|task| !is_done(task));
    let offenders =
        bad.map(|task| format!("{task} is {}: {}", task.state, task.error.as_deref().unwrap_or("no error")));
    Check::Broken(listed(&text, offenders))
}

fn totals(story: &Story, recount: &Recount) -> Check {
    let wrong: Vec<&TaskLine> = story.rows.iter().filter(|task| !recount.agrees(task)).collect();
    let digests = story.rows.iter().filter(|task| task.kind == SHA256 && task.lane == "low");
    let digests: Vec<(Digest, &str)> = digests.filter_map(|task| Some((result(task)?, task.path.as_str()))).collect();
    let combined = count::combined(digests.iter().map(|(digest, path)| (digest.sha256.as_str(), *path)));
    if wrong.is_empty() && combined == recount.combined() {
        return Check::Kept(
            "every result equals a count of the same file by the demo itself, and so do the totals".into(),
        );
    }
    let text = "results that differ from a count by the demo itself of the file as it is now";
    Check::Broken(listed(text, wrong.iter().map(ToString::to_string)))
}

fn overtaking(story: &Story) -> Check {
    let (urgent, low): (Vec<&TaskLine>, Vec<&TaskLine>) = story.rows.iter().partition(|task| task.lane == "high");
    // A task that was taken back shows its last start in its row; the first one is what counts here.
    let first_start = |task: &&TaskLine| {
        let lost = story.lost.iter().find(|lost| lost.task == task.id);
        lost.map_or(task.started_at, |lost| lost.started_at)
    };
    let low: Vec<i64> = low.iter().filter_map(first_start).collect();
    let starts: Vec<i64> = urgent.iter().filter_map(|task| task.started_at).collect();
    let overtaken = |start: &i64| low.iter().filter(|low| *low > start).count();
    let fewest = starts.iter().map(overtaken).min().unwrap_or(0);
    let inserted = urgent.iter().map(|task| task.created_at).max().unwrap_or(0);
    let last = starts.iter().copied().max().unwrap_or(0);
    let between = low.iter().filter(|start| (inserted + 1..last).contains(*start)).count();
    let (waits, queued) = (waits(&urgent), story.queued_before_urgent);
    let n_urgent = starts.len();
    let text = format!(
        "{n_urgent} urgent tasks overtook {fewest} of {queued} low ones queued before them ({between} low ones started in \
         between); they waited {} ms at p50, {} ms at most",
        middle(&waits),
        waits.last().unwrap_or(&0)
    );
    // The last few may have been in the workers' hands already.
    if queued <= story.members.len() * SLOTS as usize {
        return Check::NotShown(text);
    }
    Check::of(starts.len() == urgent.len() && fewest > 0, text)
}

fn rescue(story: &Story) -> Check {
    let Some(Killed { member, at }) = &story.killed else {
        return Check::NotShown("every task was done before a worker could be killed; try a longer --pause-ms".into());
    };
    let Some(lost_at) = story.lost.iter().map(|lost| lost.at).min() else {
        return Check::NotShown(format!("{} had just finished what it ran when it was killed", member.name));
    };
    let name =
        |session: &str| story.members.iter().find(|one| one.session == session).map_or("?", |one| one.name.as_str());
    // Nobody else may have been blamed, and no row may tell of more losses than there were.
    let n_losses: u32 = story.rows.iter().map(|task| task.losses).sum();
    let mut is_kept = n_losses as usize == story.lost.len();
    let mut parts = Vec::new();
    for lost in &story.lost {
        is_kept &= lost.worker.as_deref() == Some(&member.session);
        let Some(task) = story.rows.iter().find(|row| row.id == lost.task) else { continue };
        let TaskLine { state, runs, losses, attempts, worker, .. } = task;
        let session = worker.as_deref().unwrap_or_default();
        is_kept &= state == "done" && (*losses, *attempts) == (1, 1) && session != member.session;
        let by = name(session);
        parts.push(format!("{task} is {state} by {by}, runs {runs}, losses {losses}, attempts {attempts}"));
    }
    is_kept &= parts.len() == story.lost.len();
    let noticed = lost_at - at;
    Check::of(is_kept, format!("the kill of {} was noticed after {noticed} ms: {}", member.name, parts.join("; ")))
}

fn processes(story: &Story) -> Check {
    if story.complaints.is_empty() {
        return Check::Kept("broker and workers stopped when told to".into());
    }
    Check::Broken(listed("not every process stopped well", story.complaints.iter().cloned()))
}

/// One line for each lane and kind.
fn summary(rows: &[TaskLine]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["LANE", "KIND", "TASKS", "DONE", "LOSSES", "WAIT p50", "WAIT max", "RUN p50", "RUN max"]);
    for (lane, kind) in [("high", SHA256), ("high", WORDCOUNT), ("low", SHA256), ("low", WORDCOUNT)] {
        let tasks: Vec<&TaskLine> = rows.iter().filter(|task| task.lane == lane && task.kind == kind).collect();
        let n_done = tasks.iter().filter(|task| task.state == "done").count();
        let n_losses: u32 = tasks.iter().map(|task| task.losses).sum();
        let (waits, runs) = (waits(&tasks), spans(&tasks, |task| Some(task.finished_at? - task.started_at?)));
        let mut cells =
            vec![lane.into(), kind.into(), tasks.len().to_string(), n_done.to_string(), n_losses.to_string()];
        for spans in [&waits, &runs] {
            cells.extend([middle(spans), spans.last().copied().unwrap_or(0)].map(|ms| format!("{ms} ms")));
        }
        table.add_row(cells);
    }
    for (n, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if n >= 2 {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn speed(rows: &[TaskLine]) -> String {
    let first = rows.iter().map(|task| task.created_at).min().unwrap_or(0);
    let last = rows.iter().filter_map(|task| task.finished_at).max().unwrap_or(first);
    let ms = u64::try_from(last - first).unwrap_or(0).max(1);
    let per_second = rows.len() as u64 * 1_000 / ms;
    format!("{} tasks in {}.{} s, {per_second} tasks/s with the pauses", rows.len(), ms / 1_000, ms % 1_000 / 100)
}

fn balance(story: &Story) -> String {
    let ran = |member: &Member| {
        let n = story.rows.iter().filter(|task| task.worker.as_ref() == Some(&member.session)).count();
        let is_killed = story.killed.as_ref().is_some_and(|killed| killed.member.pid == member.pid);
        let mark = if is_killed { " (killed)" } else { "" };
        format!("{}{mark} finished {n}", member.name)
    };
    story.members.iter().map(ran).collect::<Vec<_>>().join(", ")
}

/// What the demo counts itself, by path.
struct Recount<'a> {
    digests: HashMap<&'a str, Digest>,
    words: HashMap<&'a str, Words>,
}

impl<'a> Recount<'a> {
    fn of(files: &'a Files, interrupted: &AtomicBool) -> io::Result<Self> {
        let mut recount = Self { digests: HashMap::new(), words: HashMap::new() };
        let go_on = |_| {
            let is_over = interrupted.load(Ordering::SeqCst);
            if is_over { Err(io::Error::other("interrupted by a signal")) } else { Ok(()) }
        };
        for path in &files.paths {
            // A file that went away meanwhile is missing here, and told as a difference.
            let (digest, words) = (count::digest(path.as_ref(), go_on), count::words(path.as_ref(), go_on));
            go_on(0)?;
            recount.digests.extend(digest.ok().map(|digest| (path.as_str(), digest)));
            recount.words.extend(words.ok().map(|words| (path.as_str(), words)));
        }
        Ok(recount)
    }

    fn combined(&self) -> String {
        count::combined(self.digests.iter().map(|(path, digest)| (digest.sha256.as_str(), *path)))
    }

    fn agrees(&self, task: &TaskLine) -> bool {
        match task.kind.as_str() {
            SHA256 => result(task).is_some_and(|digest| self.digests.get(task.path.as_str()) == Some(&digest)),
            _ => result(task).is_some_and(|words| self.words.get(task.path.as_str()) == Some(&words)),
        }
    }
}

impl fmt::Display for TaskLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = Path::new(&self.path);
        let file = path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
        write!(f, "task {} ({} of {file})", self.id, self.kind)
    }
}

fn result<T: DeserializeOwned>(task: &TaskLine) -> Option<T> {
    serde_json::from_str(task.result.as_deref()?).ok()
}

fn waits(tasks: &[&TaskLine]) -> Vec<i64> {
    spans(tasks, |task| Some(task.started_at? - task.created_at))
}

/// In milliseconds, sorted.
fn spans(tasks: &[&TaskLine], span: impl Fn(&TaskLine) -> Option<i64>) -> Vec<i64> {
    let mut spans: Vec<i64> = tasks.iter().filter_map(|task| span(task)).collect();
    spans.sort_unstable();
    spans
}

fn middle(sorted: &[i64]) -> i64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// The text, and the first few of what it is about.
fn listed(text: &str, offenders: impl Iterator<Item = String>) -> String {
    let offenders: Vec<String> = offenders.collect();
    let rest = offenders.len().saturating_sub(LISTED_MAX);
    let mut parts = offenders.into_iter().take(LISTED_MAX).collect::<Vec<_>>();
    parts.extend((rest > 0).then(|| format!("and {rest} more")));
    if parts.is_empty() { text.into() } else { format!("{text}: {}", parts.join("; ")) }
}

//! What a person sees while the demo runs: the story on standard output, and how far it is on standard error, as a bar on a
//! terminal and as plain lines otherwise. No colours, so `NO_COLOR` holds by itself.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::table::Counts;
use crate::error::Error;

const LINE_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Screen {
    bar: Option<ProgressBar>,
    n_tasks: usize,
    line_at: Instant,
}

impl Screen {
    pub(super) fn new() -> Self {
        let is_plain = !io::stderr().is_terminal() || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let style = ProgressStyle::with_template("  {bar:40} {pos} of {len} done, {msg}");
        let bar = style.ok().filter(|_| !is_plain).map(|style| {
            // Drawn by `show` only; before that there is nothing to draw.
            ProgressBar::hidden().with_style(style.progress_chars("#>-"))
        });
        Self { bar, n_tasks: 0, line_at: Instant::now() }
    }

    /// A part of the story: what happened, in two columns.
    pub(super) fn say(&self, what: &str, text: &str) -> Result<(), Error> {
        self.line(&format!("{what:<9}  {text}"))
    }

    pub(super) fn line(&self, text: &str) -> Result<(), Error> {
        let write = || {
            let mut out = io::stdout().lock();
            writeln!(out, "{text}").and_then(|()| out.flush())
        };
        let written = self.bar.as_ref().map_or_else(write, |bar| bar.suspend(write));
        written.map_err(|error| Error::other("write to standard output", error))
    }

    /// More tasks to be done.
    pub(super) fn expect(&mut self, n_tasks: usize) {
        self.n_tasks += n_tasks;
        if let Some(bar) = &self.bar {
            bar.set_length(self.n_tasks as u64);
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
    }

    pub(super) fn show(&mut self, counts: &Counts) {
        let (done, n_tasks) = (counts.low_done + counts.high_done, self.n_tasks);
        let rest = format!("{} running, {} queued", counts.running, counts.queued);
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
            bar.set_message(rest);
        } else if self.line_at.elapsed() >= LINE_EVERY || done == n_tasks {
            self.line_at = Instant::now();
            // Nothing can be done when standard error is closed.
            writeln!(io::stderr().lock(), "  {done} of {n_tasks} done, {rest}").ok();
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

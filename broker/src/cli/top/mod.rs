//! `laneway top`: lanes, workers and tasks of a running broker on one screen that stays fresh, with keys to act on them.
//!
//! A client like any other. `app` decides and is pure: keys, answers and the time go in, questions come out. `eye` asks the broker,
//! on a thread of its own, so that a broker that stalls never holds up the keys. `screen` owns the terminal and turns the loop;
//! what people can change is in `change`. `view` draws what `app` knows, with the rows of `sheet` and the rates of `history`.

mod app;
mod change;
mod eye;
mod history;
mod picture;
#[cfg(test)]
mod samples;
mod screen;
mod sheet;
mod view;

use std::io::IsTerminal;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::buffer::Buffer;
use ratatui::crossterm::terminal;
use ratatui::layout::Rect;
use ratatui::text::Span;

use self::app::{App, Event, Options};
use self::eye::{Answer, Eye};
use self::picture::Pane;
use self::view::Look;
use super::{Common, output, remote, variable, when};
use crate::error::Error;
use crate::signals::{self, Signals};

/// Between two pictures. Shorter would be of no use to eyes, and longer than the broker's own timers is no watching.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(250)..=Duration::from_mins(1);
/// What a picture is as large as where no terminal says.
const COLUMNS: u16 = 80;
const LINES: u16 = 24;
/// And at most.
const SIDE_MAX: u16 = 1_000;

/// Watch lanes, workers and tasks of a running broker, and pause, cancel and requeue by keys
///
/// A picture each second: queued, running and rates of the whole and of each lane; below, by the keys 1 to 4, what runs, the
/// workers, the kinds, and the newest dead tasks. Press ? for all keys. What changes something asks first. A broker that goes away
/// is waited for. Needs a terminal of 60x15 at least; NO_COLOR is heeded.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway top
  laneway top --db /srv/app/app.db --read-only
  laneway top --once --pane dead")]
pub(super) struct TopArgs {
    /// Between two pictures, 250ms to 60s
    #[arg(long, value_name = "TIME", default_value = "1", value_parser = interval)]
    interval: Duration,

    /// What to show below the lanes at first
    #[arg(long, value_enum, default_value_t = Pane::Running)]
    pane: Pane,

    /// Change nothing: the keys that would are refused
    #[arg(long)]
    read_only: bool,

    /// Print one picture as plain text and end. Takes one interval, over which the rates are counted; as large as the terminal, or
    /// COLUMNS and LINES, or 80x24
    #[arg(long)]
    once: bool,
}

pub(super) fn run(common: &Common, args: &TopArgs) -> Result<(), Error> {
    let options = Options {
        endpoint: remote::endpoint(common),
        interval: args.interval,
        pane: args.pane,
        read_only: args.read_only,
    };
    if args.once {
        return once(Eye::open(common)?, options);
    }
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal())
        || variable("TERM").as_deref() == Some("dumb")
    {
        let text =
            "there is no terminal to show it on: `laneway top --once` prints one picture, `laneway stats` the numbers";
        return Err(Error::Usage(text.into()));
    }
    // Signals first: they are taken from every thread that starts after this.
    let signals = Signals::install(signals::STOPS).map_err(|error| Error::other("take signals", error))?;
    let eye = Eye::open(common)?;
    let look = Look { has_keys: true, is_coloured: variable("NO_COLOR").is_none() };
    screen::run(eye, App::new(options, Instant::now()), look, signals.bell())
}

/// Two looks, for the rates between them.
fn once(mut eye: Eye, options: Options) -> Result<(), Error> {
    let (pane, interval) = (options.pane, options.interval);
    let mut app = App::new(options, Instant::now());
    let mut look = |app: &mut App| -> Result<(), Error> {
        let picture = eye.look(pane)?;
        app.handle(Event::Answer(Answer::Looked(Ok(Box::new(picture)))), Instant::now());
        Ok(())
    };
    look(&mut app)?;
    std::thread::sleep(interval);
    look(&mut app)?;
    let (columns, lines) = size();
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, lines));
    view::draw(&app, Look { has_keys: false, is_coloured: false }, Instant::now(), &mut buffer);
    output::line(text(&buffer).trim_end())
}

/// What a buffer shows, without blanks at the ends of lines.
fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut line = String::new();
        let mut x = buffer.area.left();
        while x < buffer.area.right() {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // A wide character has the cell behind it too.
            x += u16::try_from(Span::raw(symbol).width()).unwrap_or(1).max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Columns and lines.
fn size() -> (u16, u16) {
    let of = |name: &str| variable(name).and_then(|text| text.parse::<u16>().ok()).filter(|n| *n > 0);
    let (columns, lines) = match terminal::size() {
        Ok(size) if std::io::stdout().is_terminal() => size,
        _ => (of("COLUMNS").unwrap_or(COLUMNS), of("LINES").unwrap_or(LINES)),
    };
    (columns.min(SIDE_MAX), lines.min(SIDE_MAX))
}

/// As other lengths of time, and parts of a second: `0.5`.
fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = match seconds {
        Some(time) => time,
        None => when::duration(text)?,
    };
    if !INTERVAL.contains(&time) {
        return Err(format!("'{text}' must be {} ms to {} s", INTERVAL.start().as_millis(), INTERVAL.end().as_secs()));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_within_its_bounds() {
        // Proves each way to write it, and that nobody asks a broker a thousand times a second.
        for (text, ms) in [("1", 1_000), ("0.25", 250), ("500ms", 500), ("60", 60_000), ("1m", 60_000)] {
            assert_eq!(interval(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["0", "0.2", "61", "249ms", "2h", "-1", "nan", "inf", "soon", ""] {
            assert!(interval(text).is_err(), "{text}");
        }
        assert!(interval("0").unwrap_err().contains("250 ms to 60 s"));
    }

    #[test]
    fn a_picture_as_text_has_no_blanks_at_its_ends() {
        // Proves that a wide character takes its two columns and no third one.
        let buffer = Buffer::with_lines(["a b  ", "日本c ", "     "]);
        assert_eq!(text(&buffer), "a b\n日本c\n\n");
    }
}

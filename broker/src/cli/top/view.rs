//! Draws what the app knows. It decides nothing: the same app and time give the same buffer.
//!
//! Everything is told by words and places; colours only repeat it, in the sixteen that every terminal has and every theme sets.

mod table;

use std::time::Instant;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Widget, Wrap};

use super::app::{App, Focus, Mode};
use super::eye::TASKS_MAX;
use super::picture::{Pane, Picture};
use super::sheet::{TREND_COLUMNS, Tone, rate};
use crate::cli::output::{self, clean, cut, grouped};
use crate::cli::when;

/// Below this there is no use in drawing.
const COLUMNS_MIN: u16 = 60;
const LINES_MIN: u16 = 15;
/// What all but lanes and rows of the pane takes, with one line for what is not well.
const HEAD_LINES: u16 = 4;
/// Points of a trend on the widest screen.
const POINTS_MAX: u16 = 120;

const HELP: &str = "\
0            the lanes         1 to 4   the panes
Tab, arrows  the next list     j, k     select a row
PgUp, PgDn   ten rows          g, G     first, last row
/            rows with a text  Esc      all rows again
space        freeze it         Ctrl-L   paint anew

p   pause or resume the lane or the kind
c   cancel the running task
r   queue the dead task again
d   send the worker away, or take that back

q, Esc, Ctrl-C   quit          Ctrl-Z   to the shell";

/// How a picture is to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Whether somebody is there to press keys.
    pub(super) has_keys: bool,
    pub(super) is_coloured: bool,
}

impl Look {
    fn tone(self, tone: Tone) -> Style {
        match tone {
            Tone::Warn if self.is_coloured => Style::new().fg(Color::Yellow),
            Tone::Bad if self.is_coloured => Style::new().fg(Color::Red),
            _ => Style::new(),
        }
    }
}

pub(super) fn draw(app: &App, look: Look, now: Instant, buffer: &mut Buffer) {
    let area = buffer.area;
    if area.width < COLUMNS_MIN || area.height < LINES_MIN {
        let size = format!("{}x{}", area.width, area.height);
        let text = format!("laneway top needs {COLUMNS_MIN}x{LINES_MIN}, this is {size}. q quits.");
        return Paragraph::new(text).wrap(Wrap { trim: true }).render(area, buffer);
    }
    let n_lanes = app.picture.as_ref().map_or(0, |picture| picture.lanes.len());
    // Of a short screen the lanes take three rows, of a long one up to half of what is more.
    let lanes_max = 3 + (area.height - LINES_MIN) / 2;
    let lanes_height = 1 + u16::try_from(n_lanes).unwrap_or(u16::MAX).clamp(1, lanes_max);
    let heights = [
        Constraint::Length(HEAD_LINES),
        Constraint::Length(lanes_height),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ];
    let [head, lanes, _, tabs, pane, foot] = Layout::vertical(heights).areas(area);
    draw_head(app, look, now, head, buffer);
    draw_list(app, Focus::Lanes, look, lanes, buffer);
    draw_tabs(app, tabs, buffer);
    draw_list(app, Focus::Pane, look, pane, buffer);
    if app.lost.is_some() || app.silence(now).is_some() {
        let body = Rect { height: foot.y - lanes.y, ..lanes };
        buffer.set_style(body, Style::new().add_modifier(Modifier::DIM));
    }
    if look.has_keys {
        draw_foot(app, look, foot, buffer);
        if app.mode == Mode::Help {
            draw_help(area, buffer);
        }
    }
}

fn draw_head(app: &App, look: Look, now: Instant, area: Rect, buffer: &mut Buffer) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let state = state(app, now);
    let Some(picture) = &app.picture else {
        let text = format!("laneway top  waiting for the first picture of {}", clean(&app.options.endpoint));
        let text_max = usize::from(area.width).saturating_sub(state.chars().count() + 2);
        buffer.set_stringn(area.x, area.y, cut(&text, text_max), text_max, bold);
        put_right(&state, area, area.y, buffer);
        let why = app.lost.as_deref().map(clean).unwrap_or_default();
        buffer.set_stringn(area.x, area.y + 1, why, area.width.into(), look.tone(Tone::Bad));
        return;
    };
    let right = format!("{state}{}{}", if state.is_empty() { "" } else { "  " }, when::show(picture.at));
    let left_max = usize::from(area.width).saturating_sub(right.chars().count() + 2);
    let (version, up) = (clean(&picture.stats.version), when::span(picture.stats.uptime_ms));
    let left = format!("laneway {version}  up {up}  {}", clean(&app.options.endpoint));
    buffer.set_stringn(area.x, area.y, cut(&left, left_max), left_max, bold);
    put_right(&right, area, area.y, buffer);
    for (y, numbers) in (area.y + 1..).zip([tasks(app, picture), machine(picture)]) {
        let mut line = Line::default();
        for (name, value) in numbers {
            let gap = if line.spans.is_empty() { "" } else { "   " };
            let pair = [Span::raw(format!("{gap}{name} ")), Span::styled(value, bold)];
            // The beginning of a number would be another number.
            if line.width() + pair.iter().map(Span::width).sum::<usize>() > area.width.into() {
                break;
            }
            line.spans.extend(pair);
        }
        buffer.set_line(area.x, y, &line, area.width);
    }
    if let Some((tone, text)) = trouble(app, picture) {
        let text = cut(&clean(&format!("! {text}")), area.width.into());
        buffer.set_stringn(area.x, area.y + 3, text, area.width.into(), look.tone(tone));
    }
}

/// What is special about what is shown, in a word or two.
fn state(app: &App, now: Instant) -> String {
    let mut words = Vec::new();
    if let Some(silence) = app.silence(now) {
        words.push(format!("no answer for {} s", silence.as_secs()));
    } else if app.lost.is_some() {
        words.push("reconnecting".into());
    }
    if app.is_frozen {
        words.push("frozen".into());
    }
    if app.options.read_only {
        words.push("read-only".into());
    }
    words.join(", ")
}

fn tasks(app: &App, picture: &Picture) -> Vec<(&'static str, String)> {
    let stats = &picture.stats;
    let ends = app.history.ends();
    vec![
        ("queued", grouped(stats.queued)),
        ("running", grouped(stats.running)),
        ("dead", grouped(stats.dead)),
        ("done", output::or_dash(ends.map(|(done, _)| rate(done)))),
        ("failed", output::or_dash(ends.map(|(_, failed)| rate(failed)))),
    ]
}

fn machine(picture: &Picture) -> Vec<(&'static str, String)> {
    let stats = &picture.stats;
    vec![
        ("workers", grouped(stats.workers)),
        ("slots", format!("{} of {} busy", grouped(picture.busy()), grouped(picture.slots()))),
        ("commit", format!("{} median, {} p99", millis(stats.commit_p50_us), millis(stats.commit_p99_us))),
        ("WAL", format!("{} kB", grouped(stats.wal_bytes / 1_000))),
    ]
}

/// Of microseconds: `3.1 ms`.
fn millis(us: u64) -> String {
    format!("{}.{} ms", us / 1_000, us % 1_000 / 100)
}

/// The worst of what is not well.
fn trouble(app: &App, picture: &Picture) -> Option<(Tone, String)> {
    let stats = &picture.stats;
    if let Some(why) = &app.lost {
        return Some((Tone::Bad, why.clone()));
    }
    if let Some(error) = &stats.storage_error {
        return Some((Tone::Bad, format!("the store refuses work: {error}")));
    }
    if stats.draining {
        return Some((Tone::Warn, "the broker drains: it hands out nothing; `laneway drain --off` ends that".into()));
    }
    if stats.wal_pinned_bytes > 0 {
        let kb = grouped(stats.wal_pinned_bytes / 1_000);
        return Some((Tone::Warn, format!("the write-ahead log has {kb} kB{}", output::PINNED)));
    }
    let lost = stats.lost_workers.first()?;
    let more = match stats.lost_workers.len() - 1 {
        0 => String::new(),
        n => format!(", and {n} more"),
    };
    Some((Tone::Bad, format!("lost worker {}{more}", output::lost(lost))))
}

fn draw_list(app: &App, list: Focus, look: Look, area: Rect, buffer: &mut Buffer) {
    let points = (TREND_COLUMNS * area.width / 80).min(POINTS_MAX);
    let Some(sheet) = app.sheet(list, points.into()) else { return };
    // Without keys there is nothing to select for.
    let selected = app.selected(list, &sheet).filter(|_| look.has_keys);
    table::draw(&sheet, selected, app.focus == list && look.has_keys, look, area, buffer);
}

fn draw_tabs(app: &App, area: Rect, buffer: &mut Buffer) {
    let Some(picture) = &app.picture else { return };
    let tab = |n: usize, pane: Pane, is_short: bool| {
        let text = format!("{} {} {}", n + 1, pane.title(), grouped(picture.count(pane)));
        if pane == app.pane {
            return Span::styled(format!("[{text}]"), Style::new().add_modifier(Modifier::BOLD));
        }
        Span::raw(if is_short { format!(" {} ", n + 1) } else { format!(" {text} ") })
    };
    let tabs = |is_short: bool| -> Line {
        Pane::ALL.into_iter().enumerate().map(|(n, pane)| tab(n, pane, is_short)).collect()
    };
    let mut notes = Vec::new();
    if picture.tasks(app.pane).len() as u64 >= u64::from(TASKS_MAX) {
        notes.push(format!("the newest {TASKS_MAX}"));
    }
    for (name, list) in [("lanes ", Focus::Lanes), ("", Focus::Pane)] {
        let filter = app.filter(list);
        if !filter.is_empty() {
            notes.push(format!("{name}/{}", cut(&clean(filter), 20)));
        }
    }
    let notes = notes.join("  ");
    let room = usize::from(area.width).saturating_sub(Span::raw(&notes).width() + 2);
    let tabs = Some(tabs(false)).filter(|tabs| tabs.width() <= room).unwrap_or_else(|| tabs(true));
    buffer.set_line(area.x, area.y, &tabs, area.width);
    put_right(&cut(&notes, usize::from(area.width).saturating_sub(tabs.width() + 1)), area, area.y, buffer);
}

fn draw_foot(app: &App, look: Look, area: Rect, buffer: &mut Buffer) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let (text, style) = match (&app.mode, &app.notice) {
        (Mode::Filter(_), _) => {
            let typed = clean(app.filter(app.focus));
            (format!("/{typed}_   Enter keeps it, Esc goes back"), bold)
        }
        (Mode::Confirm(change), _) => {
            let style = look.tone(Tone::Warn).add_modifier(Modifier::BOLD);
            (format!("{}   y yes, any other key no", clean(&change.question())), style)
        }
        (_, Some(notice)) => {
            let tone = if notice.is_bad { Tone::Bad } else { Tone::Plain };
            (clean(&notice.text), look.tone(tone).add_modifier(Modifier::BOLD))
        }
        _ => (hints(app), Style::new()),
    };
    buffer.set_stringn(area.x, area.y, cut(&text, area.width.into()), area.width.into(), style);
}

fn hints(app: &App) -> String {
    let change = match (app.options.read_only, app.focus, app.pane) {
        (true, ..) => "",
        (_, Focus::Lanes, _) | (_, Focus::Pane, Pane::Kinds) => "  p pause",
        (_, Focus::Pane, Pane::Running) => "  c cancel",
        (_, Focus::Pane, Pane::Workers) => "  d drain",
        (_, Focus::Pane, Pane::Dead) => "  r requeue",
    };
    format!("q quit  ? help{change}  0 lanes  1-4 panes  j/k select  / filter  space freeze")
}

fn draw_help(area: Rect, buffer: &mut Buffer) {
    let text = Paragraph::new(HELP);
    let width = HELP.lines().map(str::len).max().unwrap_or(0) + 4;
    let height = HELP.lines().count() + 2;
    let size = |side: usize, max: u16| u16::try_from(side).unwrap_or(max).min(max);
    let (width, height) = (size(width, area.width), size(height, area.height));
    let (x, y) = (area.x + (area.width - width) / 2, area.y + (area.height - height) / 2);
    let window = Rect { x, y, width, height };
    Clear.render(window, buffer);
    let frame = Block::bordered().title(" Keys, any closes ");
    let inside = frame.inner(window);
    frame.render(window, buffer);
    text.render(Rect { x: inside.x + 1, width: inside.width.saturating_sub(1), ..inside }, buffer);
}

/// At the right edge of a line.
fn put_right(text: &str, area: Rect, y: u16, buffer: &mut Buffer) {
    let width = u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX).min(area.width);
    buffer.set_stringn(area.right() - width, y, text, width.into(), Style::new());
}

#[cfg(test)]
mod tests;

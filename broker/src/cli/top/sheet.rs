//! What a picture has to show, as rows of text: the lanes, and each pane. How wide and in which colour is the view's.

use laneway_protocol::message::{KindState, LaneRow, TaskRow, WorkerRow};
use laneway_protocol::{Kind, LaneName, SessionName, TaskId};

use super::history::{History, blocks};
use super::picture::{Pane, Picture, worker_name};
use crate::cli::output::{clean, grouped, or_dash};
use crate::cli::{kind, when};

#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) is_number: bool,
    /// At most so many columns of 80; the last one of a sheet takes what is left.
    pub(super) width_max: u16,
    /// Shown on screens of so many columns and more.
    pub(super) from: u16,
}

const fn text(title: &'static str, width_max: u16) -> Column {
    Column { title, is_number: false, width_max, from: 0 }
}

const fn number(title: &'static str, width_max: u16) -> Column {
    Column { title, is_number: true, width_max, from: 0 }
}

const fn on(from: u16, column: Column) -> Column {
    Column { from, ..column }
}

/// From here on there is room for what one can do without.
const WIDE: u16 = 70;
/// Of 80.
pub(super) const TREND_COLUMNS: u16 = 24;

const LANES: &[Column] = &[
    text("LANE", 14),
    number("QUEUED", 11),
    number("OLDEST", 7),
    number("RUNNING", 9),
    number("RATE", 8),
    on(WIDE, text("TREND", TREND_COLUMNS)),
    number("SHARE", 5),
    on(100, number("CAP", 9)),
    text("STATE", 0),
];
const RUNNING: &[Column] = &[
    number("TASK", 12),
    text("KIND", 18),
    text("LANE", 10),
    number("ATTEMPT", 9),
    number("FOR", 7),
    on(WIDE, text("WORKER", 14)),
    text("PROGRESS", 0),
];
const WORKERS: &[Column] = &[
    text("WORKER", 18),
    text("HOST", 14),
    number("PID", 8),
    number("BUSY", 9),
    text("CONNECTED", 9),
    on(WIDE, text("LANES", 14)),
    text("KINDS", 0),
];
const KINDS: &[Column] = &[
    text("KIND", 20),
    text("STATE", 6),
    number("QUEUED", 11),
    number("RUNNING", 9),
    number("WORKERS", 7),
    on(WIDE, number("CAP", 6)),
    on(WIDE, text("RATE", 12)),
    text("LANE", 0),
];
const DEAD: &[Column] = &[
    number("TASK", 12),
    text("KIND", 18),
    on(WIDE, text("LANE", 10)),
    number("ATTEMPT", 9),
    number("DIED", 7),
    text("ERROR", 0),
];

/// Which thing a row is about, also in the next picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Lane(String),
    Kind(Kind),
    Task(TaskId),
    Worker(SessionName),
}

/// How much a row asks for a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Warn,
    Bad,
}

pub(super) struct Row {
    pub(super) key: Key,
    pub(super) tone: Tone,
    pub(super) cells: Vec<String>,
}

pub(super) struct Sheet {
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Row>,
    /// Said where there is no row.
    pub(super) nothing: &'static str,
}

impl Sheet {
    /// With trends of so many points.
    pub(super) fn of_lanes(picture: &Picture, history: &History, points: usize) -> Self {
        let rows = picture.lanes.iter().map(|row| lane(row, picture, history, points)).collect();
        Self { columns: LANES, rows, nothing: "no lane is set" }
    }

    pub(super) fn of_pane(picture: &Picture, pane: Pane) -> Self {
        let mut sheet = Self::of_pane_as_it_is(picture, pane);
        if matches!(pane, Pane::Running | Pane::Dead) && picture.pane != pane {
            sheet.nothing = "asking the broker";
        }
        sheet
    }

    fn of_pane_as_it_is(picture: &Picture, pane: Pane) -> Self {
        match pane {
            Pane::Running => {
                let rows = picture.tasks(pane).iter().map(|row| running(row, picture)).collect();
                Self { columns: RUNNING, rows, nothing: "nothing runs" }
            }
            Pane::Workers => {
                let rows = picture.workers.iter().map(worker).collect();
                Self { columns: WORKERS, rows, nothing: "no worker is connected" }
            }
            Pane::Kinds => {
                let rows = picture.kinds.iter().map(of_kind).collect();
                Self { columns: KINDS, rows, nothing: "no kind has tasks, workers or settings" }
            }
            Pane::Dead => {
                let rows = picture.tasks(pane).iter().map(|row| dead(row, picture)).collect();
                Self { columns: DEAD, rows, nothing: "no task is dead" }
            }
        }
    }

    /// Only the rows that have this text somewhere, in capitals or not.
    pub(super) fn filtered(mut self, filter: &str) -> Self {
        if !filter.is_empty() {
            let wanted = filter.to_lowercase();
            self.rows.retain(|row| row.cells.iter().any(|cell| cell.to_lowercase().contains(&wanted)));
            self.nothing = "nothing has the text that is looked for; / changes it, Esc takes it away";
        }
        self
    }
}

fn lane(row: &LaneRow, picture: &Picture, history: &History, points: usize) -> Row {
    let (state, tone) = match (row.configured, row.paused) {
        (false, _) => ("not in the settings", Tone::Bad),
        (true, true) => ("paused", Tone::Warn),
        (true, false) => ("open", Tone::Plain),
    };
    let cells = vec![
        clean(&row.lane),
        grouped(row.queued),
        oldest(row, picture),
        grouped(row.running),
        or_dash(history.lane(&row.lane).map(rate)),
        // The present is always at the right edge.
        format!("{:>points$}", blocks(&history.trend(&row.lane, points))),
        row.share.map_or_else(|| "-".into(), |share| format!("{share} %")),
        or_dash(row.cap),
        state.into(),
    ];
    Row { key: Key::Lane(row.lane.clone()), tone, cells }
}

/// Of a part of the lane it is at least so much.
fn oldest(row: &LaneRow, picture: &Picture) -> String {
    let found = picture.oldest.since(&row.lane).map(|since| age(picture.at, since));
    match (found, picture.oldest.is_partial(&row.lane)) {
        (Some(age), true) => format!(">{age}"),
        (None, true) => "?".into(),
        (found, false) => or_dash(found),
    }
}

fn running(row: &TaskRow, picture: &Picture) -> Row {
    let share = match (row.progress_done, row.progress_total) {
        (Some(done), Some(total)) if total > 0 => format!("{} %", done.saturating_mul(100) / total),
        (Some(done), _) => grouped(done),
        _ => String::new(),
    };
    let stops = if row.cancel_requested { "asked to stop" } else { "" };
    let note = row.progress_note.as_deref().map(first_line).unwrap_or_default();
    let progress: Vec<&str> = [stops, &share, &note].into_iter().filter(|part| !part.is_empty()).collect();
    let cells = vec![
        row.id.to_string(),
        clean(&row.kind),
        or_dash(row.lane.as_deref().map(clean)),
        attempts(row, picture),
        or_dash(row.started_at.map(|since| age(picture.at, since))),
        or_dash(row.worker.as_deref().map(|session| clean(&picture.worker_name(session)))),
        if progress.is_empty() { "-".into() } else { progress.join(" ") },
    ];
    Row { key: Key::Task(row.id), tone: if row.cancel_requested { Tone::Warn } else { Tone::Plain }, cells }
}

fn dead(row: &TaskRow, picture: &Picture) -> Row {
    let cells = vec![
        row.id.to_string(),
        clean(&row.kind),
        or_dash(row.lane.as_deref().map(clean)),
        attempts(row, picture),
        or_dash(row.finished_at.map(|since| age(picture.at, since))),
        or_dash(row.error.as_deref().map(first_line)),
    ];
    Row { key: Key::Task(row.id), tone: Tone::Plain, cells }
}

fn worker(row: &WorkerRow) -> Row {
    let (connected, tone) = match (row.away, row.draining) {
        (true, _) => ("away".into(), Tone::Bad),
        (false, true) => ("draining".into(), Tone::Warn),
        (false, false) => (when::span(row.connected_ms), Tone::Plain),
    };
    let kinds: Vec<&str> = row.kinds.iter().map(Kind::as_str).collect();
    let lanes: Vec<&str> = row.lanes.iter().map(LaneName::as_str).collect();
    let cells = vec![
        clean(&worker_name(row)),
        clean(&row.host),
        row.pid.to_string(),
        format!("{}/{}", row.busy(), row.slots),
        connected,
        lanes.join(","),
        kinds.join(","),
    ];
    Row { key: Key::Worker(row.session.clone()), tone, cells }
}

fn of_kind(row: &KindState) -> Row {
    // Nobody offers what waits.
    let tone = match (row.paused, row.queued > 0 && row.workers == 0) {
        (_, true) => Tone::Bad,
        (true, false) => Tone::Warn,
        (false, false) => Tone::Plain,
    };
    let cells = vec![
        row.kind.to_string(),
        if row.paused { "paused" } else { "open" }.into(),
        grouped(row.queued),
        grouped(row.running),
        row.workers.to_string(),
        or_dash(row.cap),
        kind::rate(row.rate, row.rate_burst),
        row.lane.to_string(),
    ];
    Row { key: Key::Kind(row.kind.clone()), tone, cells }
}

/// `1/3`: of how many, by the row or by its kind.
fn attempts(row: &TaskRow, picture: &Picture) -> String {
    let of_kind = || picture.kinds.iter().find(|kind| kind.kind.as_str() == row.kind).map(|kind| kind.max_attempts);
    match row.max_attempts.or_else(of_kind) {
        Some(max) => format!("{}/{max}", row.attempts),
        None => row.attempts.to_string(),
    }
}

/// The clocks of two machines may differ; nothing is younger than now.
fn age(now: i64, since: i64) -> String {
    when::span(u64::try_from(now.saturating_sub(since)).unwrap_or(0))
}

pub(super) fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 { format!("{rate:.1}/s") } else { format!("{rate:.0}/s") }
}

fn first_line(text: &str) -> String {
    clean(text.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn each_row_has_a_cell_for_each_column() {
        // Proves that no cell stands under the heading of another.
        let mut picture = samples::picture();
        let lanes = Sheet::of_lanes(&picture, &History::default(), 20);
        assert!(!lanes.rows.is_empty() && lanes.rows.iter().all(|row| row.cells.len() == lanes.columns.len()));
        for pane in Pane::ALL {
            picture.pane = pane;
            let sheet = Sheet::of_pane(&picture, pane);
            assert!(!sheet.rows.is_empty(), "{pane:?}");
            assert!(sheet.rows.iter().all(|row| row.cells.len() == sheet.columns.len()), "{pane:?}");
            assert_eq!(
                sheet.columns.last().map(|column| column.width_max),
                Some(0),
                "{pane:?}: the last takes the rest"
            );
        }
    }

    #[test]
    fn an_age_of_a_part_is_marked() {
        // Proves what stands where not all of a lane was looked at, and that the others stay as they are.
        let mut picture = samples::picture();
        picture.oldest.partial.extend(["high".into(), "low".into()]);
        let rows = Sheet::of_lanes(&picture, &History::default(), 20).rows;
        let ages: Vec<&str> = rows.iter().map(|row| row.cells[2].as_str()).collect();
        assert_eq!(
            (ages[0], ages[2].strip_prefix('>').is_some(), ages[1].contains('>')),
            ("?", true, false),
            "{ages:?}"
        );
    }

    #[test]
    fn a_filter_keeps_the_rows_that_have_the_text() {
        // Proves that any cell counts, that capitals do not matter, and that an empty text keeps all.
        let picture = samples::picture();
        let ids = |filter: &str| -> Vec<String> {
            Sheet::of_pane(&picture, Pane::Running)
                .filtered(filter)
                .rows
                .iter()
                .map(|row| row.cells[0].clone())
                .collect()
        };
        assert_eq!(ids(""), ["12", "1204"]);
        assert_eq!(ids("RESIZE"), ["12"]);
        assert_eq!(ids("thumbs-1"), ["12"]);
        assert_eq!(ids("nothing like it"), Vec::<String>::new());
    }

    #[test]
    fn what_tasks_say_cannot_move_the_cursor() {
        // Proves that escapes in kinds, notes and errors are shown as text, and that an error is its first line.
        let mut picture = samples::picture();
        picture.pane = Pane::Dead;
        picture.tasks[0].kind = "a\u{1b}[2J".into();
        picture.tasks[0].error = Some("no route\nto host".into());
        let sheet = Sheet::of_pane(&picture, Pane::Dead);
        assert_eq!(sheet.rows[0].cells[1], "a\\u{1b}[2J");
        assert_eq!(sheet.rows[0].cells[5], "no route");
    }

    #[test]
    fn rates_are_short() {
        // Proves that slow lanes are told from those that stand still.
        assert_eq!([rate(0.0), rate(0.25), rate(9.96), rate(1_234.4)], ["0/s", "0.2/s", "10/s", "1234/s"]);
    }
}

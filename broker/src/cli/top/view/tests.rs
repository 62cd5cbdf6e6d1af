//! Made-up pictures on screens of all sizes.

use std::time::Duration;

use laneway_protocol::message::LostWorker;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::app::{Event, Options};
use super::super::eye::Answer;
use super::super::samples;
use super::*;

const PLAIN: Look = Look { has_keys: true, is_coloured: false };

fn app() -> (App, Instant) {
    let now = Instant::now();
    let interval = Duration::from_secs(1);
    let options = Options { endpoint: "ipc://app.db.sock".into(), interval, pane: Pane::Running, read_only: false };
    let mut app = App::new(options, now);
    app.handle(Event::Time, now);
    (app, now)
}

/// With two pictures, two seconds apart.
fn with_pictures() -> (App, Instant) {
    let (mut app, mut now) = app();
    for n in 0..2 {
        let mut picture = samples::picture();
        (picture.stats.done, picture.stats.failed) = (100 * n, n);
        picture.lanes[1].handed_out = 90 * n;
        now += Duration::from_secs(2);
        app.handle(Event::Answer(Answer::Looked(Ok(Box::new(picture)))), now);
    }
    (app, now)
}

fn press(app: &mut App, now: Instant, letter: char) {
    app.handle(Event::Key(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE)), now);
}

fn drawn(app: &App, look: Look, now: Instant, columns: u16, lines: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal.draw(|frame| draw(app, look, now, frame.buffer_mut())).unwrap();
    terminal.backend().buffer().clone()
}

fn shown(app: &App, now: Instant, columns: u16, lines: u16) -> String {
    super::super::text(&drawn(app, PLAIN, now, columns, lines))
}

#[track_caller]
fn has(text: &str, needles: &[&str]) {
    for needle in needles {
        assert!(text.contains(needle), "'{needle}' is not in\n{text}");
    }
}

#[test]
fn the_whole_of_80x24() {
    // Proves each place of the picture that people have before them.
    let (app, now) = with_pictures();
    let expected = include_str!("80x24.txt").replace("2027-01-15 08:00:00", &when::show(samples::NOW));
    let text = shown(&app, now, 80, 24);
    assert!(text.trim_end() == expected.trim_end(), "{text}");
}

#[test]
fn wide_screens_have_more_and_small_ones_say_so() {
    // Proves that a wide screen shows the columns that 60 have no room for, and that below 60x15 the size is told.
    let (mut app, now) = with_pictures();
    has(&shown(&app, now, 200, 60), &["CAP", "TREND", "WORKER", "thumbs-1", "40 % scaling"]);
    let narrow = shown(&app, now, 60, 15);
    assert!(!narrow.contains("TREND") && !narrow.contains("WORKER"), "{narrow}");
    has(&narrow, &["high", "low", "paused", "resize", "40 % scaling"]);
    has(&shown(&app, now, 40, 10), &["needs 60x15, this is", "40x10", "q quits"]);
    press(&mut app, now, '2');
    has(&shown(&app, now, 80, 24), &["[2 Workers 1]", "app-1", "4711", "2/4", "1m30s", "high,normal", "d drain"]);
    press(&mut app, now, '3');
    has(&shown(&app, now, 80, 24), &["[3 Kinds 2]", "1,204", "p pause"]);
    press(&mut app, now, '4');
    has(&shown(&app, now, 80, 24), &["[4 Dead 3]", "asking the broker", "r requeue"]);
    let dead = Picture { pane: Pane::Dead, ..samples::picture() };
    app.handle(Event::Answer(Answer::Looked(Ok(Box::new(dead)))), now);
    has(&shown(&app, now, 80, 24), &["DIED", "2h05m", "no route to host"]);
}

#[test]
fn every_size_is_drawn_in_every_mode() {
    // Proves that nothing panics from one cell up, with a picture and without, with all overlays and very long texts.
    let (mut long, now) = with_pictures();
    let mut picture = samples::picture();
    for n in 0..70 {
        picture.lanes.push(laneway_protocol::message::LaneRow::new(format!("日本{n}")));
        picture.tasks.push(samples::task(2_000 + n, &"長い".repeat(40), 0));
    }
    picture.stats.storage_error = Some("disk full ".repeat(40));
    (picture.stats.queued, picture.stats.uptime_ms) = (u64::MAX, u64::MAX);
    long.handle(Event::Answer(Answer::Looked(Ok(Box::new(picture)))), now);
    long.handle(Event::Key(KeyEvent::new(KeyCode::End, KeyModifiers::NONE)), now);
    for keys in ["", "?", "/xyz", "1p", "1c", "2d"] {
        let (mut none, _) = app();
        let (mut some, _) = with_pictures();
        for letter in keys.chars() {
            press(&mut none, now, letter);
            press(&mut some, now, letter);
        }
        for columns in (1..80).step_by(7).chain([59, 60, 61, 80, 200]) {
            for lines in [1, 2, 3, 8, 14, 15, 24, 60] {
                // The long one is the same in all modes.
                for app in [&none, &some, &long].into_iter().take(if keys.is_empty() { 3 } else { 2 }) {
                    drawn(app, PLAIN, now, columns, lines);
                }
            }
        }
    }
}

#[test]
fn questions_answers_and_help_stand_where_they_are_looked_for() {
    // Proves the last line in each mode, and the window of keys.
    let (mut app, now) = with_pictures();
    let last = |app: &App| shown(app, now, 80, 24).lines().last().unwrap_or_default().to_owned();
    has(&last(&app), &["p pause", "q quit"]);
    press(&mut app, now, 'p');
    assert_eq!(last(&app), "pause lane high? what runs goes on   y yes, any other key no");
    press(&mut app, now, 'n');
    assert_eq!(last(&app), "nothing was changed");
    app.handle(Event::Answer(Answer::Changed(Err("refused: no\u{1b}[2J right".into()))), now);
    assert_eq!(last(&app), "refused: no\\u{1b}[2J right");
    press(&mut app, now, '/');
    press(&mut app, now, 'x');
    has(&shown(&app, now, 80, 24), &["/x_", "lanes /x", "nothing has the text"]);
    let (mut app, now) = with_pictures();
    press(&mut app, now, '?');
    has(&shown(&app, now, 80, 24), &["Keys, any closes", "freeze it", "send the worker away", "to the shell"]);
    has(&shown(&app, now, 60, 15), &["Keys, any closes", "freeze it"]);
}

#[test]
fn trouble_is_told_in_words() {
    // Proves that a lost broker, a store that refuses, a drain and a frozen picture are seen without any colour.
    let (mut app, now) = with_pictures();
    let mut picture = samples::picture();
    let lost = LostWorker { name: "web-1".into(), host: "alder".into(), running: 2, ago_ms: 61_000 };
    picture.stats.lost_workers = vec![lost.clone(), lost];
    app.handle(Event::Answer(Answer::Looked(Ok(Box::new(picture.clone())))), now);
    has(&shown(&app, now, 80, 24), &["! lost worker web-1 on alder, 1m01s ago, with 2 tasks, and 1 more"]);
    picture.stats.draining = true;
    app.handle(Event::Answer(Answer::Looked(Ok(Box::new(picture.clone())))), now);
    has(&shown(&app, now, 80, 24), &["! the broker drains"]);
    picture.stats.storage_error = Some("disk full".into());
    app.handle(Event::Answer(Answer::Looked(Ok(Box::new(picture)))), now);
    has(&shown(&app, now, 80, 24), &["! the store refuses work: disk full"]);
    press(&mut app, now, ' ');
    app.handle(Event::Answer(Answer::Looked(Err("no broker answers at ipc://app.db.sock".into()))), now);
    let buffer = drawn(&app, PLAIN, now, 80, 24);
    has(
        &super::super::text(&buffer),
        &["reconnecting, frozen", "! no broker answers at ipc://app.db.sock", "thumbs-1"],
    );
    assert!(buffer[(0, 5)].modifier.contains(Modifier::DIM), "the last picture is greyed");
    assert!(!buffer[(0, 0)].modifier.contains(Modifier::DIM));
}

#[test]
fn colours_only_where_they_are_wanted() {
    // Proves that NO_COLOR leaves none, that the paused lane has one otherwise, and that without keys nothing is marked.
    let (app, now) = with_pictures();
    let coloured = |look: Look| drawn(&app, look, now, 80, 24).content().iter().any(|cell| cell.fg != Color::Reset);
    assert!(coloured(Look { is_coloured: true, ..PLAIN }) && !coloured(PLAIN));
    let marked = |look: Look| {
        let buffer = drawn(&app, look, now, 80, 24);
        buffer.content().iter().any(|cell| cell.modifier.contains(Modifier::REVERSED))
    };
    assert!(marked(PLAIN) && !marked(Look { has_keys: false, ..PLAIN }));
}

#[test]
fn nothing_overlaps_on_the_smallest_screen() {
    // Proves at 60x15, with large numbers and everything that is said beside them, that each is whole or not there at all.
    let (mut app, now) = with_pictures();
    let mut picture = samples::picture();
    (picture.stats.dead, picture.stats.queued, picture.stats.running) = (1_234_567, 98_765_432, 1_234_567);
    picture.pane = Pane::Dead;
    picture.tasks = (0..u64::from(TASKS_MAX)).map(|n| samples::task(1_000 + n, "resize", 0)).collect();
    press(&mut app, now, '4');
    app.handle(Event::Answer(Answer::Looked(Ok(Box::new(picture)))), now);
    for letter in "/res".chars() {
        press(&mut app, now, letter);
    }
    app.handle(Event::Key(KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE)), now);
    let narrow = shown(&app, now, 60, 15);
    has(&narrow, &[" 1  2  3 [4 Dead 1,234,567]", " the newest 200  /res", "queued 98,765,432", "dead 1,234,567"]);
    let numbers: Vec<&str> = narrow.lines().skip(1).take(2).map(str::trim_end).collect();
    assert!(!numbers[0].contains("failed") && numbers[1].ends_with("busy"), "{narrow}");
    has(&shown(&app, now, 100, 15), &["2 Workers 1", "[4 Dead 1,234,567]", "the newest 200  /res"]);
    press(&mut app, now, '?');
    has(&shown(&app, now, 60, 15), &["first, last row ", "all rows again ", "to the shell "]);
    // Without a picture, what it is and that it is lost stand side by side.
    let (mut none, now) = self::app();
    none.options.endpoint = format!("ipc:///srv/{}.sock", "x".repeat(60));
    none.handle(Event::Answer(Answer::Looked(Err("no broker".into()))), now);
    has(&shown(&none, now, 60, 15), &["…  reconnecting"]);
}

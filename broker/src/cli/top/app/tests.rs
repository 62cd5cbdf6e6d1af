//! Keys, answers and time as tables: what comes out of the app.

use laneway_protocol::{Kind, LaneName, SessionName, TaskId};

use super::super::samples;
use super::*;

fn app() -> (App, Instant) {
    let now = Instant::now();
    (with(false, now), now)
}

/// With a picture, and nothing asked.
fn with(read_only: bool, now: Instant) -> App {
    let interval = Duration::from_secs(1);
    let options = Options { endpoint: "ipc://app.db.sock".into(), interval, pane: Pane::Running, read_only };
    let mut app = App::new(options, now);
    assert_eq!(app.handle(Event::Time, now), [Action::Ask(Question::Look(Pane::Running))]);
    assert_eq!(app.handle(looked(Pane::Running), now), []);
    app
}

fn looked(pane: Pane) -> Event {
    Event::Answer(Answer::Looked(Ok(Box::new(Picture { pane, ..samples::picture() }))))
}

/// Presses keys by their names, with blanks between; a single letter is itself.
fn press(app: &mut App, now: Instant, keys: &str) -> Vec<Action> {
    let code = |name: &str| match name {
        "tab" => KeyCode::Tab,
        "backtab" => KeyCode::BackTab,
        "esc" => KeyCode::Esc,
        "enter" => KeyCode::Enter,
        "back" => KeyCode::Backspace,
        "space" => KeyCode::Char(' '),
        "down" => KeyCode::Down,
        "end" => KeyCode::End,
        "pgdn" => KeyCode::PageDown,
        letter => KeyCode::Char(letter.chars().next().unwrap()),
    };
    let key = |name: &str| match name.strip_prefix('^') {
        Some(name) => KeyEvent::new(code(name), KeyModifiers::CONTROL),
        None => KeyEvent::new(code(name), KeyModifiers::NONE),
    };
    keys.split_whitespace().flat_map(|name| app.handle(Event::Key(key(name)), now)).collect()
}

#[test]
fn each_key_does_what_the_help_says() {
    // Proves every change with the thing it is about, asked back and confirmed; and each way out.
    let task = |id| TaskId::new(id).unwrap();
    let (lane, kind) = (|name| LaneName::new(name).unwrap(), |name| Kind::new(name).unwrap());
    let worker = SessionName::new("5e55104a").unwrap();
    let changes = [
        ("p y", Change::PauseLane(lane("high"))),
        ("j p y", Change::PauseLane(lane("normal"))),
        ("down down down p y", Change::ResumeLane(lane("low"))),
        ("1 c y", Change::Cancel(task(12))),
        ("tab j c y", Change::Cancel(task(1_204))),
        ("1 end c Y", Change::Cancel(task(1_204))),
        ("1 pgdn g c y", Change::Cancel(task(12))),
        ("2 d y", Change::Drain(worker.clone(), "thumbs-1".into())),
        ("3 p y", Change::PauseKind(kind("report"))),
        ("3 G p y", Change::PauseKind(kind("resize"))),
    ];
    for (keys, change) in changes {
        let (mut app, now) = app();
        let actions = press(&mut app, now, keys);
        assert_eq!(actions.last(), Some(&Action::Ask(Question::Change(change))), "{keys}");
    }
    for (keys, action) in [
        ("q", Action::Quit),
        ("esc", Action::Quit),
        ("^c", Action::Quit),
        ("? ^c", Action::Quit),
        ("/ q ^c", Action::Quit),
        ("^z", Action::Suspend),
        ("^l", Action::Repaint),
    ] {
        let (mut app, now) = app();
        assert_eq!(press(&mut app, now, keys), [action], "{keys}");
    }
}

#[test]
fn a_dead_task_is_queued_again() {
    // Proves that the pane of dead tasks is asked for at once, and that r is about a row of it.
    let (mut app, now) = app();
    assert_eq!(press(&mut app, now, "4"), [Action::Ask(Question::Look(Pane::Dead))]);
    // What comes of before is no answer for this pane, and is asked again.
    assert_eq!(app.handle(looked(Pane::Running), now), [Action::Ask(Question::Look(Pane::Dead))]);
    assert_eq!(press(&mut app, now, "r"), []);
    assert!(app.notice.as_ref().is_some_and(|notice| notice.is_bad), "there is no row yet");
    assert_eq!(app.handle(looked(Pane::Dead), now), []);
    let change = Change::Requeue(TaskId::new(1_204).unwrap());
    assert_eq!(press(&mut app, now, "j r y"), [Action::Ask(Question::Change(change))]);
}

#[test]
fn nothing_is_changed_without_a_yes() {
    // Proves that any other key is a no, that a key that fits no row says what to do, and that --read-only refuses all.
    for keys in
        ["p n", "p esc", "p enter", "p q", "p p", "p space", "1 c n", "c y", "r y", "d y", "1 p y", "3 c y", "? p y"]
    {
        let (mut app, now) = app();
        let actions = press(&mut app, now, keys);
        assert!(
            !actions.iter().any(|action| matches!(action, Action::Ask(Question::Change(_)))),
            "{keys}: {actions:?}"
        );
        assert!(!actions.contains(&Action::Quit), "{keys}");
    }
    for keys in ["p y", "1 c y", "2 d y", "3 p y", "4 r y"] {
        let now = Instant::now();
        let mut app = with(true, now);
        press(&mut app, now, keys);
        assert!(app.notice.as_ref().is_some_and(|notice| notice.text.contains("--read-only")), "{keys}");
    }
}

#[test]
fn what_was_asked_about_is_what_is_changed() {
    // Proves that a picture that comes between the question and the yes, in which the row is gone, changes nothing of it.
    let (mut app, now) = app();
    press(&mut app, now, "1 c");
    let mut picture = samples::picture();
    picture.tasks.remove(0);
    app.handle(Event::Answer(Answer::Looked(Ok(Box::new(picture)))), now);
    let change = Change::Cancel(TaskId::new(12).unwrap());
    assert_eq!(press(&mut app, now, "y"), [Action::Ask(Question::Change(change))]);
}

#[test]
fn the_selection_follows_its_row() {
    // Proves that a new order does not put another task under the cursor, and that the next in place comes when it is gone.
    let (mut app, now) = app();
    press(&mut app, now, "1 j");
    let selected = |app: &App| {
        let sheet = app.sheet(Focus::Pane, 0).unwrap();
        sheet.rows[app.selected(Focus::Pane, &sheet).unwrap()].cells[0].clone()
    };
    assert_eq!(selected(&app), "1204");
    let mut picture = samples::picture();
    picture.tasks.swap(0, 1);
    app.handle(Event::Answer(Answer::Looked(Ok(Box::new(picture.clone())))), now);
    assert_eq!(selected(&app), "1204");
    picture.tasks.remove(0);
    app.handle(Event::Answer(Answer::Looked(Ok(Box::new(picture)))), now);
    assert_eq!(selected(&app), "12");
}

#[test]
fn a_filter_is_kept_or_taken_back() {
    // Proves the keys of a filter, that the selection is among what it keeps, and that q is a letter of it.
    let rows = |app: &App| app.sheet(Focus::Pane, 0).unwrap().rows.len();
    let (mut app, now) = app();
    press(&mut app, now, "1 / r e p x back enter");
    assert_eq!((app.filter(Focus::Pane), rows(&app), app.mode.clone()), ("rep", 1, Mode::Plain));
    let change = Change::Cancel(TaskId::new(1_204).unwrap());
    assert_eq!(press(&mut app, now, "c y").last(), Some(&Action::Ask(Question::Change(change))));
    press(&mut app, now, "/ q q");
    assert_eq!((app.filter(Focus::Pane), rows(&app)), ("repqq", 0));
    press(&mut app, now, "esc");
    assert_eq!((app.filter(Focus::Pane), rows(&app)), ("rep", 1));
    // Esc takes the filter away before it quits; other lists have filters of their own.
    press(&mut app, now, "0");
    assert_eq!(app.filter(Focus::Lanes), "");
    assert_eq!(press(&mut app, now, "1 esc"), []);
    assert_eq!((app.filter(Focus::Pane), rows(&app)), ("", 2));
    press(&mut app, now, &format!("/ {}", "x ".repeat(100)));
    assert_eq!(app.filter(Focus::Pane).len(), FILTER_CHARS_MAX);
}

#[test]
fn tab_goes_round() {
    // Proves that each list is reached in both directions.
    let (mut app, now) = app();
    let mut seen = Vec::new();
    for _ in 0..5 {
        press(&mut app, now, "tab");
        seen.push(app.number(app.focus));
    }
    assert_eq!(seen, [1, 2, 3, 4, 0]);
    press(&mut app, now, "backtab");
    assert_eq!((app.focus, app.pane), (Focus::Pane, Pane::Dead));
}

#[test]
fn looks_come_one_interval_after_the_answer_and_never_two_at_a_time() {
    // Proves that a slow broker is not asked again before it has answered, and that its silence is told.
    let (mut app, now) = app();
    let after = |ms| now + Duration::from_millis(ms);
    assert_eq!(app.next_deadline(now), after(1_000));
    assert_eq!(app.handle(Event::Time, after(999)), []);
    assert_eq!(app.handle(Event::Time, after(1_000)), [Action::Ask(Question::Look(Pane::Running))]);
    assert_eq!(app.silence(after(2_999)), None);
    assert_eq!(app.next_deadline(after(1_000)), after(3_000));
    assert_eq!(app.handle(Event::Time, after(3_000)), []);
    assert_eq!(app.silence(after(4_000)), Some(Duration::from_secs(3)));
    let lost = Event::Answer(Answer::Looked(Err("no broker answers".into())));
    assert_eq!(app.handle(lost, after(11_000)), []);
    assert!(app.lost.is_some() && app.picture.is_some(), "the last picture stays");
    assert_eq!(app.handle(Event::Time, after(12_000)), [Action::Ask(Question::Look(Pane::Running))]);
    app.handle(looked(Pane::Running), after(12_000));
    assert!(app.lost.is_none());
}

#[test]
fn a_frozen_picture_stays_until_another_pane_is_chosen() {
    // Proves that nothing is asked meanwhile, and that space goes on.
    let (mut app, now) = app();
    press(&mut app, now, "space");
    let later = now + Duration::from_mins(5);
    assert_eq!(app.handle(Event::Time, later), []);
    assert!(app.next_deadline(later) > later);
    assert_eq!(press(&mut app, later, "4"), [Action::Ask(Question::Look(Pane::Dead))]);
    app.handle(looked(Pane::Dead), later);
    assert_eq!(app.handle(Event::Time, later + Duration::from_mins(5)), []);
    assert_eq!(press(&mut app, later, "space"), [Action::Ask(Question::Look(Pane::Dead))]);
}

#[test]
fn the_brokers_word_stands_for_some_seconds() {
    // Proves that an answer is shown, is followed by a look at what has become of it, and goes; and that a full inbox is told.
    let (mut app, now) = app();
    let refused = Event::Answer(Answer::Changed(Err("refused: it needs the role admin".into())));
    assert_eq!(app.handle(refused, now), [Action::Ask(Question::Look(Pane::Running))]);
    assert!(app.notice.as_ref().is_some_and(|notice| notice.is_bad && notice.text.contains("admin")));
    app.handle(looked(Pane::Running), now);
    app.handle(Event::Time, now + NOTICE_TIME);
    assert!(app.notice.is_none());
    let shed = Question::Change(Change::Cancel(TaskId::new(1).unwrap()));
    app.handle(Event::Shed(shed), now);
    assert!(app.notice.as_ref().is_some_and(|notice| notice.text.contains("try again")));
    // A look that is shed is not tried again at once.
    let (mut app, now) = self::app();
    let later = now + Duration::from_secs(2);
    assert_eq!(app.handle(Event::Time, later).len(), 1);
    assert_eq!(app.handle(Event::Shed(Question::Look(Pane::Running)), later), []);
    assert!(app.next_deadline(later) > later);
}

//! What is on the screen and what a key does: the pure part. Events and the time go in, questions for the broker and orders to
//! the terminal come out; it asks nothing and draws nothing itself.
//!
//! What would change something is asked back first, with the thing's name, and whatever the pictures do meanwhile, the answer is
//! about that thing.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::change::Change;
use super::eye::{Answer, Question};
use super::history::History;
use super::picture::{Pane, Picture};
use super::sheet::{Key, Sheet};

/// How long the broker's word about a change stands.
const NOTICE_TIME: Duration = Duration::from_secs(6);
/// A broker that takes longer for a picture is said to be slow.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rows that a page up or down passes.
const PAGE: usize = 10;
/// Characters of a filter.
const FILTER_CHARS_MAX: usize = 40;

pub(super) struct Options {
    pub(super) endpoint: String,
    pub(super) interval: Duration,
    pub(super) pane: Pane,
    pub(super) read_only: bool,
}

pub(super) enum Event {
    Key(KeyEvent),
    Answer(Answer),
    /// A question found no room.
    Shed(Question),
    /// The terminal has another size.
    Resized,
    /// A deadline has come.
    Time,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Ask(Question),
    /// Paint all of the screen anew.
    Repaint,
    /// Give the terminal back to the shell until it continues this.
    Suspend,
    Quit,
}

/// Which rows the keys act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    Lanes,
    Pane,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Help,
    /// A filter is typed; what it was before.
    Filter(String),
    /// Asked back.
    Confirm(Change),
}

pub(super) struct Notice {
    pub(super) text: String,
    pub(super) is_bad: bool,
    until: Instant,
}

/// The selection and the filter of one list.
#[derive(Default)]
struct List {
    selected: Option<Key>,
    /// Where it was, for when it is gone.
    at: usize,
    filter: String,
}

pub(super) struct App {
    pub(super) options: Options,
    pub(super) picture: Option<Box<Picture>>,
    pub(super) history: History,
    pub(super) focus: Focus,
    pub(super) pane: Pane,
    pub(super) mode: Mode,
    pub(super) notice: Option<Notice>,
    pub(super) is_frozen: bool,
    /// Why the last look came to nothing.
    pub(super) lost: Option<String>,
    /// The lanes, then each pane.
    lists: [List; 5],
    looking_since: Option<Instant>,
    next_look: Instant,
}

impl App {
    pub(super) fn new(options: Options, now: Instant) -> Self {
        Self {
            pane: options.pane,
            options,
            picture: None,
            history: History::default(),
            focus: Focus::Lanes,
            mode: Mode::Plain,
            notice: None,
            is_frozen: false,
            lost: None,
            lists: Default::default(),
            looking_since: None,
            next_look: now,
        }
    }

    pub(super) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Key(key) => actions.extend(self.on_key(key, now)),
            Event::Answer(Answer::Looked(looked)) => self.on_looked(looked, now),
            Event::Answer(Answer::Changed(changed)) => {
                self.say(changed, now);
                // What has become of it.
                self.next_look = now;
            }
            Event::Shed(Question::Look(_)) => {
                self.looking_since = None;
                self.next_look = now + self.options.interval;
            }
            Event::Shed(Question::Change(_)) => {
                self.say(Err("the broker has not answered what was asked before: try again".into()), now);
            }
            Event::Resized | Event::Time => {}
        }
        if self.notice.as_ref().is_some_and(|notice| notice.until <= now) {
            self.notice = None;
        }
        if self.looking_since.is_none() && !self.is_content() && self.next_look <= now {
            self.looking_since = Some(now);
            actions.push(Action::Ask(Question::Look(self.pane)));
        }
        actions
    }

    /// When [`Event::Time`] has something to do.
    pub(super) fn next_deadline(&self, now: Instant) -> Instant {
        let look = match self.looking_since {
            // The seconds without an answer are counted on the screen.
            Some(since) if now < since + PATIENCE => since + PATIENCE,
            Some(_) => now + Duration::from_secs(1),
            None if self.is_content() => now + Duration::from_mins(1),
            None => self.next_look,
        };
        self.notice.as_ref().map_or(look, |notice| notice.until.min(look))
    }

    /// Whether no look is needed: the picture is frozen, and has what the pane shows.
    fn is_content(&self) -> bool {
        self.is_frozen && self.picture.as_ref().is_some_and(|picture| picture.pane == self.pane)
    }

    /// For how long the broker has not answered, once that is long.
    pub(super) fn silence(&self, now: Instant) -> Option<Duration> {
        self.looking_since.map(|since| now.duration_since(since)).filter(|silence| *silence >= PATIENCE)
    }

    /// The rows of a list, as its filter has them. With trends of so many points.
    pub(super) fn sheet(&self, list: Focus, points: usize) -> Option<Sheet> {
        let picture = self.picture.as_ref()?;
        let sheet = match list {
            Focus::Lanes => Sheet::of_lanes(picture, &self.history, points),
            Focus::Pane => Sheet::of_pane(picture, self.pane),
        };
        Some(sheet.filtered(self.filter(list)))
    }

    pub(super) fn filter(&self, list: Focus) -> &str {
        &self.lists[self.number(list)].filter
    }

    /// Which of these rows of a list is selected.
    pub(super) fn selected(&self, list: Focus, sheet: &Sheet) -> Option<usize> {
        let List { selected, at, .. } = &self.lists[self.number(list)];
        let found = selected.as_ref().and_then(|key| sheet.rows.iter().position(|row| row.key == *key));
        found.or_else(|| sheet.rows.len().checked_sub(1).map(|last| last.min(*at)))
    }

    // ---------------------------------------------------------------------------------------------------------- answers

    fn on_looked(&mut self, looked: Result<Box<Picture>, String>, now: Instant) {
        self.looking_since = None;
        // Another pane was chosen meanwhile.
        let is_of_before = looked.as_ref().is_ok_and(|picture| picture.pane != self.pane);
        self.next_look = if is_of_before { now } else { now + self.options.interval };
        match looked {
            Ok(picture) => {
                self.lost = None;
                self.history.note(&picture, now);
                self.picture = Some(picture);
                self.settle(Focus::Lanes);
                self.settle(Focus::Pane);
            }
            Err(why) => self.lost = Some(why),
        }
    }

    fn say(&mut self, said: Result<String, String>, now: Instant) {
        let is_bad = said.is_err();
        let (Ok(text) | Err(text)) = said;
        self.notice = Some(Notice { text, is_bad, until: now + NOTICE_TIME });
    }

    // ------------------------------------------------------------------------------------------------------------- keys

    fn on_key(&mut self, key: KeyEvent, now: Instant) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Action::Quit),
                KeyCode::Char('z') => Some(Action::Suspend),
                KeyCode::Char('l') => Some(Action::Repaint),
                _ => None,
            };
        }
        match std::mem::replace(&mut self.mode, Mode::Plain) {
            Mode::Plain => self.on_plain_key(key.code, now),
            // Any key closes it.
            Mode::Help => None,
            Mode::Filter(before) => {
                self.on_filter_key(key.code, before);
                None
            }
            Mode::Confirm(change) => {
                let is_yes = matches!(key.code, KeyCode::Char('y' | 'Y'));
                let text = if is_yes { "asking the broker" } else { "nothing was changed" };
                self.say(Ok(text.into()), now);
                is_yes.then_some(Action::Ask(Question::Change(change)))
            }
        }
    }

    fn on_plain_key(&mut self, key: KeyCode, now: Instant) -> Option<Action> {
        match key {
            KeyCode::Esc if !self.filter(self.focus).is_empty() => self.set_filter(String::new()),
            KeyCode::Char('q') | KeyCode::Esc => return Some(Action::Quit),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('0') => self.focus = Focus::Lanes,
            KeyCode::Char(digit @ '1'..='4') => self.show(digit as usize - '1' as usize, now),
            KeyCode::Tab | KeyCode::Right => self.turn(1, now),
            KeyCode::BackTab | KeyCode::Left => self.turn(4, now),
            KeyCode::Char('j') | KeyCode::Down => self.go(|at| at + 1),
            KeyCode::Char('k') | KeyCode::Up => self.go(|at| at.saturating_sub(1)),
            KeyCode::PageDown => self.go(|at| at + PAGE),
            KeyCode::PageUp => self.go(|at| at.saturating_sub(PAGE)),
            KeyCode::Char('g') | KeyCode::Home => self.go(|_| 0),
            KeyCode::Char('G') | KeyCode::End => self.go(|_| usize::MAX),
            KeyCode::Char('/') => self.mode = Mode::Filter(self.filter(self.focus).into()),
            KeyCode::Char(' ') => {
                self.is_frozen = !self.is_frozen;
                self.next_look = now;
            }
            KeyCode::Char(letter @ ('p' | 'c' | 'r' | 'd')) => match self.wish(letter) {
                Ok(change) => self.mode = Mode::Confirm(change),
                Err(why) => self.say(Err(why), now),
            },
            _ => {}
        }
        None
    }

    fn on_filter_key(&mut self, key: KeyCode, before: String) {
        let mut filter = self.filter(self.focus).to_owned();
        match key {
            KeyCode::Enter => return,
            KeyCode::Esc => return self.set_filter(before),
            KeyCode::Backspace => {
                filter.pop();
            }
            KeyCode::Char(letter) if filter.chars().count() < FILTER_CHARS_MAX => filter.push(letter),
            _ => {}
        }
        self.set_filter(filter);
        self.mode = Mode::Filter(before);
    }

    fn set_filter(&mut self, filter: String) {
        self.lists[self.number(self.focus)].filter = filter;
        self.settle(self.focus);
    }

    /// Another pane, whose rows may have to be asked for.
    fn show(&mut self, n: usize, now: Instant) {
        self.focus = Focus::Pane;
        if self.pane != Pane::ALL[n] {
            self.pane = Pane::ALL[n];
            self.next_look = now;
        }
    }

    /// To the list that comes so many behind this one: the lanes and each pane, in a ring.
    fn turn(&mut self, by: usize, now: Instant) {
        match (self.number(self.focus) + by) % self.lists.len() {
            0 => self.focus = Focus::Lanes,
            n => self.show(n - 1, now),
        }
    }

    fn number(&self, list: Focus) -> usize {
        match list {
            Focus::Lanes => 0,
            Focus::Pane => 1 + self.pane as usize,
        }
    }

    fn go(&mut self, to: impl FnOnce(usize) -> usize) {
        let Some(sheet) = self.sheet(self.focus, 0) else { return };
        if let Some(at) = self.selected(self.focus, &sheet) {
            self.select(self.focus, &sheet, to(at).min(sheet.rows.len() - 1));
        }
    }

    /// Keeps to what is selected, wherever its row is now; when it is gone, to the row in its place.
    fn settle(&mut self, list: Focus) {
        let Some(sheet) = self.sheet(list, 0) else { return };
        if let Some(at) = self.selected(list, &sheet) {
            self.select(list, &sheet, at);
        }
    }

    fn select(&mut self, list: Focus, sheet: &Sheet, at: usize) {
        let list = &mut self.lists[self.number(list)];
        list.at = at;
        list.selected = Some(sheet.rows[at].key.clone());
    }

    /// What this key would do to what is selected. Fails with what to do instead.
    fn wish(&self, key: char) -> Result<Change, String> {
        if self.options.read_only {
            return Err("nothing can be changed here: start it without --read-only".into());
        }
        let picture = self.picture.as_ref().ok_or("there is no picture of the broker yet")?;
        let sheet = self.sheet(self.focus, 0);
        let row = sheet.as_ref().and_then(|sheet| Some(&sheet.rows[self.selected(self.focus, sheet)?]));
        Change::of_key(key, row.map(|row| &row.key), self.pane, picture)
    }
}

#[cfg(test)]
mod tests;

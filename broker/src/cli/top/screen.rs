//! The terminal, and the loop that turns while it is ours: keys, answers, signals and time in, pictures out.
//!
//! The terminal is given back whatever happens: at the end and after an error by `Drop`, after a panic by the hook that
//! `ratatui` sets, on SIGTERM, SIGINT, SIGQUIT and SIGHUP because they come as values.

use std::collections::VecDeque;
use std::io::{self, Stdout, stdout};
use std::time::Instant;

use crossbeam_channel::{Receiver, TrySendError, bounded, select};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, enable_raw_mode};
use ratatui::crossterm::{event, execute};

use super::app::{Action, App, Event};
use super::eye::Eye;
use super::view::{self, Look};
use crate::error::Error;

/// Keys that wait to be handled; then the terminal keeps the rest.
const KEYS_MAX: usize = 64;

/// Until a key or a signal ends it.
pub(super) fn run(eye: Eye, mut app: App, look: Look, signals: &Receiver<()>) -> Result<(), Error> {
    let (questions, answers) = eye.start()?;
    let mut screen = Screen::open().map_err(|error| Error::other("use the terminal", error))?;
    let keys = keys()?;
    let mut event = Event::Time;
    loop {
        let mut actions = VecDeque::from(app.handle(event, Instant::now()));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Ask(question) => match questions.try_send(question) {
                    Ok(()) => {}
                    Err(TrySendError::Full(question)) => {
                        actions.extend(app.handle(Event::Shed(question), Instant::now()));
                    }
                    Err(TrySendError::Disconnected(_)) => return Err(ended("asks the broker")),
                },
                Action::Repaint => screen.enter().map_err(|error| Error::other("paint the terminal anew", error))?,
                Action::Suspend => screen.suspend().map_err(|error| Error::other("go to the shell", error))?,
                Action::Quit => return Ok(()),
            }
        }
        let now = Instant::now();
        let draw = |frame: &mut ratatui::Frame<'_>| view::draw(&app, look, now, frame.buffer_mut());
        screen.terminal.draw(draw).map_err(|error| Error::other("draw on the terminal", error))?;
        event = select! {
            recv(keys) -> key => key.map_err(|_| ended("reads the keys"))?,
            recv(answers) -> answer => Event::Answer(answer.map_err(|_| ended("asks the broker"))?),
            recv(signals) -> _ => return Ok(()),
            default(app.next_deadline(now).saturating_duration_since(now)) => Event::Time,
        };
    }
}

fn ended(who: &str) -> Error {
    Error::other(format!("go on: the thread that {who}"), "it has ended; start `laneway top` again")
}

/// Reads keys in a thread of its own. It ends with the process: nothing wakes it from its wait.
fn keys() -> Result<Receiver<Event>, Error> {
    let (sender, keys) = bounded(KEYS_MAX);
    let body = move || {
        while let Ok(event) = event::read() {
            let event = match event {
                event::Event::Key(key) => Event::Key(key),
                event::Event::Resize(..) => Event::Resized,
                _ => continue,
            };
            if sender.send(event).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("keys".into()).spawn(body);
    thread.map_err(|error| Error::other("start the thread that reads the keys", error))?;
    Ok(keys)
}

struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    fn open() -> Result<Self, io::Error> {
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        Ok(Self { terminal })
    }

    /// Takes the terminal again, whatever is on it. `Terminal::clear` would ask it where its cursor is, and the answer comes where
    /// the keys are read.
    fn enter(&mut self) -> Result<(), io::Error> {
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
        self.terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }

    /// Stops this process as Ctrl-Z does where nobody catches it, and returns when the shell continues it. In a session without
    /// a shell to do that the system ignores the signal.
    fn suspend(&mut self) -> Result<(), io::Error> {
        self.terminal.show_cursor()?;
        ratatui::try_restore()?;
        nix::sys::signal::raise(nix::sys::signal::SIGTSTP)?;
        self.enter()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing can be done when it is gone.
        self.terminal.show_cursor().ok();
        ratatui::try_restore().ok();
    }
}

//! The fenced blocks of a page: their language, their text, and why one is not run.

use std::fs;
use std::path::{Path, PathBuf};

/// What a page may hold that is run: by the shell, by a program of its language, or by the broker that reads settings.
pub(crate) const LANGUAGES: [&str; 10] = ["console", "sh", "sql", "toml", "python", "js", "ruby", "php", "go", "rust"];

/// One fenced block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// Where it stands, for people.
    pub(crate) place: String,
    /// Empty when the page does not say.
    pub(crate) language: String,
    /// The file that the page says it is; it is stored under this name and run by what comes behind it.
    pub(crate) file: Option<String>,
    pub(crate) text: String,
    /// The reason in the comment above it: `<!-- not run: REASON -->`.
    pub(crate) not_run: Option<String>,
}

impl Block {
    /// All blocks of a page, in its order.
    pub(crate) fn all(page: &str) -> Vec<Self> {
        let text = fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        let (mut blocks, mut open): (Vec<Self>, Option<Self>) = (Vec::new(), None);
        let mut above = "";
        for (n, line) in text.lines().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(words)) => open = Some(Self::begin(format!("{page}:{}", n + 1), words, above)),
                (None, None) => {}
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text.extend([line, "\n"]),
            }
            above = line;
        }
        assert!(open.is_none(), "{page} ends within a block");
        blocks
    }

    fn begin(place: String, words: &str, above: &str) -> Self {
        let mut words = words.split_whitespace().map(String::from);
        let reason = above.strip_prefix("<!-- not run: ").and_then(|rest| rest.strip_suffix(" -->"));
        Self {
            place,
            language: words.next().unwrap_or_default(),
            file: words.next(),
            text: String::new(),
            not_run: reason.map(String::from),
        }
    }

    /// The commands of a `console` block, each with the lines that the page shows behind it.
    pub(crate) fn commands(&self) -> Vec<(String, Vec<String>)> {
        let mut commands: Vec<(String, Vec<String>)> = Vec::new();
        for line in self.text.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
                (None, Some((_, shown))) => shown.push(line.to_owned()),
                (None, None) => panic!("{}: a console block begins with a command", self.place),
            }
        }
        commands
    }
}

/// Every page that is for users, relative to the root.
pub(crate) fn pages() -> Vec<String> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let texts = docs.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let mut pages: Vec<String> =
        texts.map(|path| format!("docs/{}", path.file_name().unwrap().to_string_lossy())).collect();
    pages.push("README.md".into());
    pages.sort();
    pages
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A line without what differs from run to run: a word with a digit in it is one number, blanks and capitals do not count.
pub(crate) fn alike(line: &str) -> String {
    let (mut out, mut word) = (String::new(), String::new());
    for c in line.chars().chain([' ']) {
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
            continue;
        }
        out.push_str(if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { &word });
        word.clear();
        if !c.is_whitespace() {
            out.push(c);
        }
    }
    out
}

//! The filter language of the tasks page and the API: `kind:mail lane:low attempt>2 error:"no route"`.
//!
//! Words are joined by AND. What it means for the table is `rows/tasks.rs`; here is only what can be said, and clear words
//! for what cannot.

use std::borrow::Cow;
use std::fmt;

use laneway::TaskState;
use laneway_protocol::message::BulkFilter;

/// Fields with an example each, as the help shows them.
pub(crate) const FIELDS: [(&str, &str); 11] = [
    ("kind", "kind:resize"),
    ("lane", "lane:low"),
    ("state", "state:dead"),
    ("key", "key:user-7"),
    ("worker", "worker:web-1"),
    ("fair", "fair:acme"),
    ("group", "group:12"),
    ("error", "error:\"no route\""),
    ("line", "line:\"no route to host\""),
    ("attempt", "attempt>2"),
    ("id", "id:4711"),
];

/// Which tasks: those that meet all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) state: Option<TaskState>,
    pub(crate) kind: Option<String>,
    pub(crate) lane: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) worker: Option<String>,
    pub(crate) fair: Option<String>,
    pub(crate) group: Option<i64>,
    pub(crate) error: Option<String>,
    /// The first line of its error; empty for none.
    pub(crate) line: Option<String>,
    pub(crate) attempt: Option<(Compare, u32)>,
    pub(crate) id: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

impl Compare {
    /// In SQL and in the language alike.
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Compare::Less => "<",
            Compare::AtMost => "<=",
            Compare::Equal => "=",
            Compare::AtLeast => ">=",
            Compare::More => ">",
        }
    }

    /// The least and the most that it lets through; `Less` than one at least.
    fn range(self, n: u32) -> (Option<u32>, Option<u32>) {
        match self {
            Compare::Less => (None, Some(n.saturating_sub(1))),
            Compare::AtMost => (None, Some(n)),
            Compare::Equal => (Some(n), Some(n)),
            Compare::AtLeast => (Some(n), None),
            Compare::More => (Some(n.saturating_add(1)), None),
        }
    }
}

/// What a worker may be called by: its session, the beginning of that, or its name while it is connected.
pub(crate) fn sessions(worker: &str, connected: &[(String, String)]) -> Vec<String> {
    let named = connected.iter().filter(|(_, name)| name == worker).map(|(session, _)| session.clone());
    std::iter::once(worker.to_owned()).chain(named).collect()
}

/// What is wrong with a filter: the word, why, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) word: String,
    pub(crate) why: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' {}", self.word, self.why)
    }
}

impl Filter {
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut filter = Self::default();
        for word in words(text)? {
            filter.add(&word).map_err(|why| Wrong { word: word.clone(), why })?;
        }
        Ok(filter)
    }

    /// The same for a batch in the broker, which knows workers by their sessions only: `workers` is sessions and names of those
    /// that are connected.
    pub(crate) fn to_bulk(&self, workers: &[(String, String)]) -> Result<BulkFilter, Wrong> {
        let Self { state, kind, lane, key, worker, fair, group, error, line, attempt, id } = self.clone();
        let wrong = |word: &str, why: &str| Err(Wrong { word: word.into(), why: why.into() });
        if id.is_some() {
            return wrong("id", "is one task: select it instead of all that match");
        }
        let (attempts_min, attempts_max) = match attempt {
            Some((Compare::Less, 0)) => return wrong("attempt<0", "meets no task"),
            Some((compare, n)) => compare.range(n),
            None => (None, None),
        };
        let Ok(group) = group.map(u64::try_from).transpose() else { return wrong("group", "is no number of a group") };
        let mut bulk = BulkFilter {
            state,
            kind,
            lane,
            error,
            error_line: line,
            unique_key: key,
            fair_key: fair,
            group,
            workers: worker.map_or_else(Vec::new, |worker| sessions(&worker, workers)),
            attempts_min,
            attempts_max,
            ..BulkFilter::default()
        };
        bulk.all = bulk.is_open();
        Ok(bulk)
    }

    fn add(&mut self, word: &str) -> Result<(), String> {
        if let Ok(id) = word.parse() {
            return set(&mut self.id, id);
        }
        let Some(end) = word.find([':', '<', '>', '=']) else {
            return Err(format!("has no field: say kind:{word}, or one of {}", field_names()));
        };
        let (field, rest) = word.split_at(end);
        let (compare, value) = comparison(rest);
        let value = &*unquoted(value);
        if value.is_empty() && !may_be_empty(field, rest) {
            return Err("has no value".into());
        }
        if compare != Compare::Equal && field != "attempt" {
            return Err(format!("compares; only attempt does that, and {field} is said as {field}:{value}"));
        }
        match field {
            "kind" => set(&mut self.kind, value.into()),
            "lane" => set(&mut self.lane, value.into()),
            "key" => set(&mut self.key, value.into()),
            "worker" => set(&mut self.worker, value.into()),
            "fair" => set(&mut self.fair, value.into()),
            "error" => set(&mut self.error, value.into()),
            "line" => set(&mut self.line, value.into()),
            "state" => {
                let states = TaskState::ALL.map(TaskState::as_str).join(", ");
                let state = TaskState::parse(value).ok_or_else(|| format!("names no state: they are {states}"))?;
                set(&mut self.state, state)
            }
            "group" => set(&mut self.group, number(value)?),
            "id" => set(&mut self.id, number(value)?),
            "attempt" | "attempts" => {
                set(&mut self.attempt, (compare, value.parse().map_err(|_| "needs a whole number".to_owned())?))
            }
            other => Err(format!("has the field {other}, which is none of {}", field_names())),
        }
    }
}

/// As it is written, without the state, which the page has tabs for.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [
            ("kind", &self.kind),
            ("lane", &self.lane),
            ("key", &self.key),
            ("worker", &self.worker),
            ("fair", &self.fair),
            ("error", &self.error),
            ("line", &self.line),
        ];
        let mut words: Vec<String> = texts
            .into_iter()
            .filter_map(|(field, value)| value.as_ref().map(|value| format!("{field}:{}", quoted(value))))
            .collect();
        words.extend(self.group.map(|group| format!("group:{group}")));
        words.extend(self.attempt.map(|(compare, n)| format!("attempt{}{n}", compare.sign())));
        words.extend(self.id.map(|id| format!("id:{id}")));
        f.write_str(&words.join(" "))
    }
}

fn set<T>(field: &mut Option<T>, value: T) -> Result<(), String> {
    if field.is_some() {
        return Err("is the second of its field, and a task has one".into());
    }
    *field = Some(value);
    Ok(())
}

fn number(value: &str) -> Result<i64, String> {
    value.parse().ok().filter(|n| *n > 0).ok_or_else(|| "needs a whole number from 1".into())
}

fn comparison(rest: &str) -> (Compare, &str) {
    let signs = [
        (">=", Compare::AtLeast),
        ("<=", Compare::AtMost),
        (">", Compare::More),
        ("<", Compare::Less),
        ("=", Compare::Equal),
        (":", Compare::Equal),
    ];
    for (sign, compare) in signs {
        if let Some(value) = rest.strip_prefix(sign) {
            // `attempt:>2` as well.
            return if sign == ":" && value.starts_with(['<', '>', '=']) {
                comparison(value)
            } else {
                (compare, value)
            };
        }
    }
    (Compare::Equal, rest)
}

fn field_names() -> String {
    FIELDS.map(|(field, _)| field).join(", ")
}

/// Said with quotes, no error has a first line that is empty, and a row that makes no sense a kind that is.
fn may_be_empty(field: &str, rest: &str) -> bool {
    matches!(field, "kind" | "line") && rest.ends_with(['"', '\''])
}

/// Splits at white space outside quotes. A quote opens where a value begins, so that an apostrophe in a word is one; within quotes
/// two of them are one that does not close.
fn words(text: &str) -> Result<Vec<String>, Wrong> {
    let (mut words, mut word, mut open) = (Vec::new(), String::new(), None);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if open == Some(c) {
            match chars.next_if_eq(&c) {
                Some(twin) => word.push(twin),
                None => open = None,
            }
        } else if open.is_none() && (c == '"' || c == '\'') && word.ends_with([':', '=']) {
            open = Some(c);
        }
        if c.is_whitespace() && open.is_none() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
        } else {
            word.push(c);
        }
    }
    if open.is_some() {
        return Err(Wrong { word, why: "has no closing quote".into() });
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

fn unquoted(value: &str) -> Cow<'_, str> {
    let within = |quote: char| Some((value.strip_prefix(quote)?.strip_suffix(quote)?, quote));
    match within('"').or_else(|| within('\'')) {
        Some((inner, quote)) => Cow::Owned(inner.replace(&format!("{quote}{quote}"), quote.encode_utf8(&mut [0; 4]))),
        None => Cow::Borrowed(value),
    }
}

/// As a value of the language, in quotes where it needs them.
pub(crate) fn quoted(value: &str) -> String {
    let needs_quotes = |c: char| c.is_whitespace() || c == '"' || c == '\'';
    let is_plain = !value.contains(needs_quotes) && !value.starts_with(['<', '>', '=']);
    if is_plain && !value.is_empty() {
        value.into()
    } else if value.contains('"') && !value.contains('\'') {
        format!("'{value}'")
    } else {
        format!("\"{}\"", value.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_of_the_help_is_a_filter() {
        // Proves that the help does not promise what is not understood, and that a filter is written as it is read.
        let all = FIELDS.map(|(_, example)| example).join(" ");
        let filter = Filter::parse(&all).unwrap();
        assert_eq!(filter.error.as_deref(), Some("no route"));
        assert_eq!(filter.attempt, Some((Compare::More, 2)));
        assert_eq!(filter.state, Some(TaskState::Dead));
        let again = Filter { state: filter.state, ..Filter::parse(&filter.to_string()).unwrap() };
        assert_eq!(again, filter);
    }

    #[test]
    fn a_wrong_word_is_told_with_the_right_ones() {
        // Proves that each slip has an answer that leads on.
        for (text, says) in [
            ("resize", "say kind:resize"),
            ("knd:x", "the field knd, which is none of kind, lane"),
            ("kind:", "has no value"),
            ("key:\"\"", "has no value"),
            ("line:", "has no value"),
            ("kind>2", "said as kind:2"),
            ("state:failed", "waiting, queued, running, done, dead, cancelled"),
            ("attempt>x", "whole number"),
            ("kind:a kind:b", "second of its field"),
            ("error:\"no route", "no closing quote"),
            ("group:0", "from 1"),
        ] {
            let wrong = Filter::parse(text).unwrap_err().to_string();
            assert!(wrong.contains(says), "{text}: {wrong}");
        }
        assert_eq!(Filter::parse("4711").unwrap().id, Some(4711));
        assert_eq!(Filter::parse("attempt:>=3").unwrap().attempt, Some((Compare::AtLeast, 3)));
        assert_eq!(Filter::parse("  ").unwrap(), Filter::default());
        // Either quote, and an apostrophe within a word.
        for (text, error) in
            [("error:'a \"b\" c'", "a \"b\" c"), ("error:don't", "don't"), ("error:\"it's\" kind:k", "it's")]
        {
            assert_eq!(Filter::parse(text).unwrap().error.as_deref(), Some(error), "{text}");
        }
        // Whatever a line is, the language can say it, and the empty one too.
        for line in ["", "x", "it's \"b\"", "\"", "\"\" '", "'", "say \"hi\"", "a:b='c d'", "x=\"y", "back\\ \"slash\""]
        {
            let filter = Filter { line: Some(line.into()), kind: Some("a b".into()), ..Filter::default() };
            assert_eq!(Filter::parse(&filter.to_string()).unwrap(), filter, "{filter}");
        }
    }

    #[test]
    fn a_batch_takes_only_what_the_broker_can_tell() {
        // Proves that no condition is dropped on the way to a change of many tasks.
        let connected = [("00ff".to_owned(), "web-1".to_owned()), ("00fe".to_owned(), "web-2".to_owned())];
        let bulk = |text: &str| Filter::parse(text).unwrap().to_bulk(&connected);
        let many = bulk("kind:a lane:b error:c line:c state:dead key:x fair:f group:1 attempt>1 worker:web-1").unwrap();
        let expected = BulkFilter {
            state: Some(TaskState::Dead),
            kind: Some("a".into()),
            lane: Some("b".into()),
            error: Some("c".into()),
            error_line: Some("c".into()),
            unique_key: Some("x".into()),
            fair_key: Some("f".into()),
            group: Some(1),
            workers: vec!["web-1".into(), "00ff".into()],
            attempts_min: Some(2),
            ..BulkFilter::default()
        };
        assert_eq!(many, expected);
        assert!(bulk("").unwrap().all);
        for (text, range) in [
            ("attempt<2", (None, Some(1))),
            ("attempt<=2", (None, Some(2))),
            ("attempt:2", (Some(2), Some(2))),
            ("attempt>=2", (Some(2), None)),
        ] {
            let bulk = bulk(text).unwrap();
            assert_eq!((bulk.attempts_min, bulk.attempts_max), range, "{text}");
        }
        for text in ["id:1", "attempt<0"] {
            assert!(bulk(text).is_err(), "{text}");
        }
    }
}

//! What a program says of its progress: one line each, on the descriptor that `LANEWAY_PROGRESS_FD` names.

/// How far it is; 0 of 0 where it says only words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) done: u64,
    pub(super) total: u64,
    pub(super) note: String,
}

/// `3 10 resized`, `3/10`, `30%`, or any other words.
pub(super) fn read(line: &str) -> Said {
    let line = line.trim();
    let (first, rest) = split(line);
    let percent = first.strip_suffix('%').and_then(|number| number.parse().ok()).map(|done| (done, 100, rest));
    let fraction = || {
        let (done, total) = first.split_once('/')?;
        Some((done.parse().ok()?, total.parse().ok()?, rest))
    };
    let two_numbers = || {
        let (second, rest) = split(rest);
        Some((first.parse().ok()?, second.parse().ok()?, rest))
    };
    let (done, total, note) = percent.or_else(fraction).or_else(two_numbers).unwrap_or((0, 0, line));
    Said { done, total, note: note.into() }
}

fn split(line: &str) -> (&str, &str) {
    let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (first, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_where_a_line_begins_with_them() {
        // Proves each form, and that what only looks like one is taken as words.
        for (line, done, total, note) in [
            ("3 10 resized a.png", 3, 10, "resized a.png"),
            ("3 10", 3, 10, ""),
            ("3/10  half", 3, 10, "half"),
            ("30% of it", 30, 100, "of it"),
            ("  reading\n", 0, 0, "reading"),
            ("3 files left", 0, 0, "3 files left"),
            ("-1 10", 0, 0, "-1 10"),
            ("a/b", 0, 0, "a/b"),
            ("", 0, 0, ""),
        ] {
            assert_eq!(read(line), Said { done, total, note: note.into() }, "{line:?}");
        }
    }
}

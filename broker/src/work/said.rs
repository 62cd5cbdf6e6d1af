//! What a program says of its progress: one line each, on the descriptor that `LANEWAY_PROGRESS_FD` names.

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Done and total; `None` where it says only words, and the count stays as it was.
    pub(super) count: Option<(u64, u64)>,
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
    match percent.or_else(fraction).or_else(two_numbers) {
        Some((done, total, note)) => Said { count: Some((done, total)), note: note.into() },
        None => Said { count: None, note: line.into() },
    }
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
        for (line, count, note) in [
            ("3 10 resized a.png", Some((3, 10)), "resized a.png"),
            ("3 10", Some((3, 10)), ""),
            ("3/10  half", Some((3, 10)), "half"),
            ("30% of it", Some((30, 100)), "of it"),
            ("  reading\n", None, "reading"),
            ("3 files left", None, "3 files left"),
            ("-1 10", None, "-1 10"),
            ("a/b", None, "a/b"),
            ("", None, ""),
        ] {
            assert_eq!(read(line), Said { count, note: note.into() }, "{line:?}");
        }
    }
}

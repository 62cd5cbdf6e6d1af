//! The deliberate mistakes in `mutations/` still fit the code that they are to break; whether the auditor finds each is for
//! `mutations/run`, which builds Laneway once for every one of them.

use std::fs;
use std::path::Path;

/// Every hunk finds its lines, once: a patch that does not fit proves nothing.
#[test]
fn every_mutation_fits_the_code() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut n_patches = 0;
    for entry in fs::read_dir(here.join("mutations")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        n_patches += 1;
        let text = fs::read_to_string(&path).unwrap();
        let mut source = String::new();
        for part in text.split("\n@@ ") {
            if let Some(before) = hunk(part).filter(|_| !source.is_empty()) {
                assert_eq!(source.matches(&before).count(), 1, "{} does not fit:\n{before}", path.display());
            }
            if let Some((_, file)) = part.split_once("\n+++ b/") {
                let file = file.lines().next().unwrap();
                source = fs::read_to_string(here.join("../..").join(file)).unwrap();
            }
        }
        assert!(!source.is_empty(), "{} changes no file", path.display());
    }
    assert!(n_patches >= 10, "{n_patches} mutations");
}

/// The lines that a hunk expects, context and removed ones.
fn hunk(part: &str) -> Option<String> {
    let (_, lines) = part.split_once('\n')?;
    let body = lines
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with([' ', '-', '+']) && !line.starts_with("---"));
    let before = body.filter(|line| line.starts_with([' ', '-'])).map(|line| format!("{}\n", &line[1..]));
    Some(before.collect())
}

//! Any file, any environment and any flags: settings are refused with a sentence, or printed and read back as themselves.

use std::cell::RefCell;

use crate::config::{Config, Flag, Sources};

thread_local! {
    static FOLDER: RefCell<tempfile::TempDir> = RefCell::new(tempfile::tempdir().unwrap());
}

/// Pieces between zero bytes: the file, then `NAME=VALUE` each, of the environment where the name is in capitals and of a flag
/// otherwise.
pub fn config(input: &[u8]) {
    let mut pieces = input.split(|byte| *byte == 0);
    let file = pieces.next().unwrap_or_default();
    let mut sources = Sources::default();
    for piece in pieces {
        let text = String::from_utf8_lossy(piece);
        let Some((name, value)) = text.split_once('=') else { continue };
        if name.starts_with(|first: char| first.is_ascii_uppercase()) {
            sources.environment.push((name.into(), value.into()));
        } else {
            sources.flags.push(Flag { written: "--set", name: name.into(), values: vec![value.into()] });
        }
    }
    FOLDER.with_borrow(|folder| {
        let path = folder.path().join("laneway.toml");
        std::fs::write(&path, file).unwrap();
        sources.file = Some(path.clone());
        match Config::resolve(&sources) {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(mut resolved) => {
                std::fs::write(&path, resolved.print()).unwrap();
                let again = Config::resolve(&Sources { file: Some(path), ..Sources::default() }).unwrap();
                assert_eq!(again.config, resolved.config);
            }
        }
    });
}

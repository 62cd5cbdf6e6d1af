//! `corpora unpack FOLDER` makes a folder of files for the fuzzer of each kept corpus, `corpora pack FOLDER` keeps what is in
//! them instead. A target without a folder keeps what it has.

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use laneway_fuzz::{TARGETS, bundle};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let done = match &words[..] {
        [word, folder] if word == "unpack" => unpack(Path::new(folder)),
        [word, folder] if word == "pack" => pack(Path::new(folder)),
        _ => Err(io::Error::other("usage: corpora unpack|pack FOLDER")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corpora: {error}");
            ExitCode::FAILURE
        }
    }
}

fn unpack(folder: &Path) -> io::Result<()> {
    for (target, _) in TARGETS {
        fs::create_dir_all(folder.join(target))?;
        for (n, input) in bundle::read(target)?.into_iter().enumerate() {
            fs::write(folder.join(target).join(n.to_string()), input)?;
        }
    }
    Ok(())
}

fn pack(folder: &Path) -> io::Result<()> {
    for (target, _) in TARGETS {
        if let Ok(files) = fs::read_dir(folder.join(target)) {
            let inputs = files.map(|file| fs::read(file?.path())).collect::<io::Result<_>>()?;
            bundle::write(target, inputs)?;
        }
    }
    Ok(())
}

//! Builds the file system layer of `shim.c` and says how a process gets it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Place;

// Not LANEWAY_*: the broker takes those for settings.
pub(crate) const DATABASE: &str = "POWER_SHIM_DB";
pub(crate) const LOG: &str = "POWER_SHIM_LOG";
const SYNC_US: &str = "POWER_SHIM_SYNC_US";

/// How long most syncs take.
const SYNC_TAKES_US: u64 = 500;

/// What a process needs in its environment so that the log of this place has all that it does to the database.
pub(crate) struct Shim {
    env: [(&'static str, OsString); 4],
}

impl Shim {
    pub(crate) fn build(place: &Place) -> Self {
        let library = place.path("shim.so");
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/power/shim.c");
        let status = Command::new(&compiler)
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
            .args([&library, &source])
            .args(["-ldl", "-lpthread"])
            .status()
            .unwrap_or_else(|error| panic!("{}: {error}", compiler.display()));
        assert!(status.success(), "the shim does not compile");
        let env = [
            ("LD_PRELOAD", library.into()),
            (DATABASE, place.db().into()),
            (LOG, log_of(place).into()),
            (SYNC_US, SYNC_TAKES_US.to_string().into()),
        ];
        Self { env }
    }

    pub(crate) fn env(&self) -> &[(&'static str, OsString)] {
        &self.env
    }
}

pub(crate) fn log_of(place: &Place) -> PathBuf {
    place.path("disk.log")
}

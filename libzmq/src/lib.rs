//! Stands in for the registry's `zeromq-src` 0.2: builds libzmq 4.3.5 with CURVE over libsodium.
//!
//! The `zmq` crate alone compiles libzmq 4.3.4 without CURVE and with an empty `platform.hpp`, so its timers run on the
//! wall clock and TCP keepalive does nothing. The flags below are what a configured Linux build would find,
//! but for `HAVE_FORK`: it asks for the number of the process at each look into a mailbox, five times for each task, in case a
//! child that was forked without an exec goes on with its parent's sockets. Ours exec.
//!
//! The C++ library is linked as an archive where the compiler has one: a program runs on a machine without it, and has a
//! megabyte less of memory.

use std::path::{Path, PathBuf};
use std::process::Command;

const PLATFORM: &[&str] = &[
    "HAVE_CLOCK_GETTIME",
    "HAVE_MKDTEMP",
    "HAVE_ACCEPT4",
    "ZMQ_HAVE_EVENTFD",
    "ZMQ_HAVE_EVENTFD_CLOEXEC",
    "ZMQ_HAVE_IFADDRS",
    "ZMQ_HAVE_SO_PEERCRED",
    "ZMQ_HAVE_O_CLOEXEC",
    "ZMQ_HAVE_SOCK_CLOEXEC",
    "ZMQ_HAVE_SO_KEEPALIVE",
    "ZMQ_HAVE_TCP_KEEPCNT",
    "ZMQ_HAVE_TCP_KEEPIDLE",
    "ZMQ_HAVE_TCP_KEEPINTVL",
    "ZMQ_IOTHREAD_POLLER_USE_EPOLL_CLOEXEC",
];

/// Two faults by which peers end the process, mended where libzmq calls the system: it accepts when there are no descriptors
/// left, and it hears that a peer has gone that it does not read from.
const MENDED: [&str; 2] =
    [concat!(env!("CARGO_MANIFEST_DIR"), "/src/accept.h"), concat!(env!("CARGO_MANIFEST_DIR"), "/src/hangup.h")];
/// Read here so that cargo builds libzmq anew when they change.
const _: [&str; 2] = [include_str!("accept.h"), include_str!("hangup.h")];

/// Where a prebuilt libsodium lies; `zmq-sys` always passes `None` and gets the bundled one.
pub type LibLocation = upstream::LibLocation;

/// The subset of the original builder that `zmq-sys` calls from its build script.
#[derive(Debug, Default)]
pub struct Build(());

impl Build {
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the signature of version 0.2; the bundled libsodium is used whatever is passed.
    #[must_use]
    pub fn with_libsodium(self, _location: Option<LibLocation>) -> Self {
        self
    }

    /// Compiles libzmq and tells cargo how to link it. Runs inside the build script of `zmq-sys`.
    #[expect(clippy::print_stdout, reason = "a build script speaks to cargo on standard output")]
    pub fn build(self) {
        let mut flags = std::env::var("CXXFLAGS").unwrap_or_default();
        for name in PLATFORM {
            flags.push_str(" -D");
            flags.push_str(name);
            flags.push_str("=1");
        }
        for header in MENDED {
            flags.push_str(" -include ");
            flags.push_str(header);
        }
        std::env::set_var("CXXFLAGS", flags);
        if let Some(folder) = static_library("libstdc++.a") {
            std::env::set_var("CXXSTDLIB", "static:-bundle=stdc++");
            println!("cargo:rustc-link-search=native={}", folder.display());
        }
        let (lib, include) = (env!("SODIUM_LIB"), env!("SODIUM_INCLUDE"));
        let mut build = upstream::Build::new();
        build.with_libsodium(Some(upstream::LibLocation::new(lib, include)));
        build.build();
        println!("cargo:rustc-link-search=native={lib}");
        println!("cargo:rustc-link-lib=static=sodium");
    }
}

/// Where the C++ compiler has this archive. `None` where it comes without: then the program needs the shared library.
fn static_library(name: &str) -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".into());
    let asked = Command::new(compiler).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(asked.stdout).ok()?.trim());
    // A compiler that does not know of it repeats the name.
    path.is_absolute().then(|| path.parent().map(Path::to_path_buf))?
}

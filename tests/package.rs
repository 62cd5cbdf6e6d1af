//! The Debian package: that its metadata, its unit and its scripts fit each other, and that what it installs works.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Place, output_of, tools};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines that mean something to systemd.
fn unit(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[test]
fn the_unit_fits_what_the_package_installs() {
    // Proves that program and settings of the packaged unit are where the package puts them, that the unit for machines without the
    // package differs from it in the program's place alone, and that each file which is packaged is there.
    let manifest: toml::Table = read("broker/Cargo.toml").parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let assets: Vec<(&str, &str)> = deb["assets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|asset| (asset[0].as_str().unwrap(), asset[1].as_str().unwrap()))
        .collect();
    for (source, _) in assets.iter().filter(|(source, _)| !source.starts_with("target/release/")) {
        let file = root().join("broker").join(source.replace("*.md", "operations.md"));
        assert!(file.exists(), "{source} is not there");
    }
    let packaged = read("config/deb/laneway.service");
    let plain = read("config/laneway.service").replace("/usr/local/bin/", "/usr/bin/");
    assert_eq!(unit(&packaged), unit(&plain));
    let start = unit(&packaged).into_iter().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words: Vec<&str> = start.split(' ').collect();
    assert!(words.starts_with(&["/usr/bin/laneway", "broker", "--config", "/etc/laneway/laneway.toml"]), "{start}");
    assert!(assets.contains(&("target/release/laneway", "usr/bin/")), "{assets:?}");
    assert!(assets.contains(&("target/release/laneway.toml", "etc/laneway/")), "{assets:?}");
    for script in ["postinst", "postrm"] {
        assert!(read(&format!("config/deb/{script}")).contains("#DEBHELPER#"), "{script} has no place for the unit");
    }
}

#[test]
fn a_package_is_made_and_what_it_installs_works() {
    // Proves that the script makes a package with the program, its unit, settings that an upgrade leaves alone, manual pages and
    // completions; that it makes the user and starts nothing by itself; and that the program in it runs with the settings in it.
    let place = Place::new();
    let path = std::env::join_paths(
        std::iter::once(tools::cargo_deb()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let mut build = Command::new(root().join("config/deb/build"));
    build.arg(env!("CARGO_BIN_EXE_laneway")).args(["--fast", "--compress-system"]).env("PATH", path.unwrap());
    let made = build.env("CARGO_TARGET_DIR", place.path("target")).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{said}");
    let package = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim().lines().last().unwrap());
    let dpkg = |words: &[&str]| output_of(Command::new("dpkg-deb").args(words).arg(&package));

    let field = |name: &str| output_of(Command::new("dpkg-deb").arg("-f").arg(&package).arg(name)).trim().to_owned();
    assert_eq!((field("Package").as_str(), field("Section").as_str()), ("laneway", "net"));
    assert_eq!(field("Version"), format!("{}-1", env!("CARGO_PKG_VERSION")));
    let depends = field("Depends");
    assert!(depends.contains("libc6 (>= ") && depends.contains("adduser"), "{depends}");
    assert!(!depends.contains("libstdc++"), "the program brings its own: {depends}");

    let installed = place.path("root");
    output_of(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&installed));
    let control = place.path("control");
    output_of(Command::new("dpkg-deb").arg("-e").arg(&package).arg(&control));
    let listed = dpkg(&["-c"]);
    assert!(listed.lines().all(|line| line.contains(" root/root ") || line.contains(" 0/0 ")), "{listed}");
    let script = |name: &str| std::fs::read_to_string(control.join(name)).unwrap();
    assert_eq!(script("conffiles").trim(), "/etc/laneway/laneway.toml");
    for name in ["postinst", "postrm"] {
        output_of(Command::new("sh").arg("-n").arg(control.join(name)));
        assert!(!script(name).contains("#DEBHELPER#"), "{name} is not filled in");
    }
    assert!(script("postinst").contains("adduser --system --group"));
    assert!(script("postinst").contains("try-restart"), "an upgrade would leave the old program running");
    for word in ["_dh_action=start", "systemctl start", "enable --now"] {
        assert!(!script("postinst").contains(word), "it would be started: {word}");
    }

    let there = |file: &str| assert!(installed.join(file).is_file(), "{file} is not in the package:\n{listed}");
    let unit =
        ["lib/systemd/system", "usr/lib/systemd/system"].map(|folder| installed.join(folder).join("laneway.service"));
    let unit = unit.into_iter().find(|file| file.exists()).expect("the unit is in the package");
    assert_eq!(std::fs::read_to_string(unit).unwrap(), read("config/deb/laneway.service"));
    for file in [
        "usr/share/bash-completion/completions/laneway",
        "usr/share/zsh/vendor-completions/_laneway",
        "usr/share/fish/vendor_completions.d/laneway.fish",
        "usr/share/doc/laneway/copyright",
        "usr/share/doc/laneway/README.md",
        "usr/share/doc/laneway/docs/operations.md",
        "usr/share/doc/laneway/examples/alerts.yml",
    ] {
        there(file);
    }
    // A page for each command, as the program itself makes them.
    let pages = place.path("pages");
    std::fs::create_dir(&pages).unwrap();
    output_of(Command::new(env!("CARGO_BIN_EXE_laneway")).arg("man").arg(&pages));
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".gz").to_owned()).collect()
    };
    assert_eq!(names(&installed.join("usr/share/man/man1")), names(&pages));

    let program = installed.join("usr/bin/laneway");
    let config = installed.join("etc/laneway/laneway.toml");
    let mut check = Command::new(&program);
    let checked = output_of(
        check.args(["broker", "--check-config", "--db", "here.db", "--config"]).arg(&config).current_dir(place.dir()),
    );
    assert_eq!(checked.trim(), "the settings are fine");
    let mut print = Command::new(&program);
    let settings = output_of(print.args(["broker", "--print-config", "--config"]).arg(&config));
    assert!(settings.contains("db = \"/var/lib/laneway/laneway.db\" # file "), "{settings}");
    assert!(output_of(Command::new(&program).arg("--version")).contains(env!("CARGO_PKG_VERSION")));
}

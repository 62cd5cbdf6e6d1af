//! Tests of the settings as a whole: layers, suggestions, bounds, and the sample file.

use super::reload::RELOADED;
use super::settings::SETTINGS;
use super::*;

fn file(text: &str) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("laneway.toml");
    std::fs::write(&path, text).unwrap();
    (dir, Sources { file: Some(path), ..Sources::default() })
}

fn from_file(text: &str) -> Result<Resolved, String> {
    let (_dir, sources) = file(text);
    Config::resolve(&sources).map_err(|error| error.to_string())
}

fn from_environment(variables: &[(&str, &str)]) -> Result<Resolved, String> {
    let environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Config::resolve(&Sources { environment, ..Sources::default() }).map_err(|error| error.to_string())
}

fn set(name: &str, value: &str) -> Flag {
    Flag { written: "--set", name: name.into(), values: vec![value.into()] }
}

fn from_flags(flags: &[(&str, &str)]) -> Result<Resolved, String> {
    let flags = flags.iter().map(|(name, value)| set(name, value)).collect();
    Config::resolve(&Sources { flags, ..Sources::default() }).map_err(|error| error.to_string())
}

#[test]
fn nothing_said_is_the_default() {
    // Proves that the defaults pass the validation and come with both default endpoints.
    let resolved = Config::resolve(&Sources::default()).unwrap();
    assert_eq!(resolved.config, Config::default());
    assert_eq!(resolved.config.bind, ["ipc://laneway.db.sock", "tcp://127.0.0.1:7733"]);
    assert!(resolved.origins.is_empty());
}

#[test]
fn flags_win_over_environment_over_file() {
    // Proves the order of the layers and that each value's origin is kept.
    let (_dir, mut sources) = file("beat_ms = 1000\nstall_ms = 1001\npoll_us = 1002");
    sources.environment = vec![("LANEWAY_STALL_MS".into(), "2001".into()), ("LANEWAY_POLL_US".into(), "2002".into())];
    sources.flags = vec![set("poll_us", "3002")];
    let Resolved { config, origins, .. } = Config::resolve(&sources).unwrap();
    assert_eq!((config.beat_ms, config.stall_ms, config.poll_us), (1000, 2001, 3002));
    assert!(matches!(origins["beat_ms"], Origin::File(_)));
    assert_eq!(origins["stall_ms"], Origin::Environment("LANEWAY_STALL_MS".into()));
    assert_eq!(origins["poll_us"], Origin::Flag("--set".into()));
}

#[test]
fn the_default_socket_lies_beside_the_database() {
    // Proves that `--db` alone moves the socket, and that a path too long for one leaves tcp with a warning.
    let resolved = from_flags(&[("db", "/srv/app/tasks.db")]).unwrap();
    assert_eq!(resolved.config.bind[0], "ipc:///srv/app/tasks.db.sock");
    let resolved = from_flags(&[("db", &"d".repeat(120))]).unwrap();
    assert_eq!(resolved.config.bind, ["tcp://127.0.0.1:7733"]);
    assert!(resolved.warnings[0].contains("120") || resolved.warnings[0].contains("125"), "{:?}", resolved.warnings);
}

#[test]
fn the_network_is_let_in_by_keys_or_by_plain_words() {
    // Proves that an open endpoint needs keys or the flag that says what it means, that the flag is warned about at each start,
    // and that keys alone are enough.
    let open = ("bind", "tcp://0.0.0.0:7733");
    assert!(from_flags(&[open]).unwrap_err().contains("open to other machines"));
    let resolved = from_flags(&[open, ("anyone_on_the_network_may_do_anything", "true")]).unwrap();
    assert!(resolved.warnings[0].contains("anyone who reaches tcp://0.0.0.0:7733"), "{:?}", resolved.warnings);
    let keys = "bind = []\n[curve]\nbind = [\"tcp://0.0.0.0:7734\"]\nkey_file = \"b.secret\"\nkeys_folder = \"keys\"";
    let resolved = from_file(keys).unwrap();
    assert_eq!((resolved.config.bind.len(), resolved.config.curve.bind.len(), resolved.warnings.len()), (0, 1, 0));
}

#[test]
fn a_file_in_the_way_of_the_socket_is_kept() {
    // Proves that a slip in `--bind` cannot delete a file, while an old socket is no hindrance.
    let dir = tempfile::tempdir().unwrap();
    let bind = |name: &str| format!("ipc://{}", dir.path().join(name).display());
    std::fs::write(dir.path().join("letter"), "dear").unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap());
    let error = from_flags(&[("bind", &bind("letter"))]).unwrap_err();
    assert!(error.contains("no socket and would be lost"), "{error}");
    from_flags(&[("bind", &bind("socket"))]).unwrap();
    from_flags(&[("bind", &bind("none"))]).unwrap();
}

#[test]
fn sections_and_kinds_are_read() {
    // Proves that every section of the file reaches its field, and a kind its own overrides.
    let text = "[retention]\ndone_count_max = 5\n[defaults]\nmax_attempts = 7\n\
                [kinds.\"mail.send\"]\nlane = \"low\"\ntimeout_ms = 60000\n[kinds.empty]";
    let config = from_file(text).unwrap().config;
    assert_eq!(config.retention.done_count_max, Some(5));
    assert_eq!(config.defaults.max_attempts, 7);
    assert_eq!(config.kinds.len(), 2);
    let mail = &config.kinds[&Kind::new("mail.send").unwrap()];
    assert_eq!(mail.lane.as_ref().map(LaneName::as_str), Some("low"));
    assert_eq!((mail.timeout_ms, mail.max_attempts), (Some(60_000), None));
    let text = "[kinds.mail]\ncap = 4\nrate = \"10/s\"\nrate_burst = 20\n[lane_limits.low]\nshare = 10";
    let config = from_file(text).unwrap().config;
    let mail = &config.kinds[&Kind::new("mail").unwrap()];
    assert_eq!((mail.cap, mail.rate, mail.rate_burst), (Some(4), Some("10/s".parse().unwrap()), Some(20)));
    assert_eq!(config.lane_limits[&LaneName::new("low").unwrap()].share, Some(10));
    let config = from_flags(&[("lane_limits.low.rate", "90/m")]).unwrap().config;
    assert_eq!(config.lane_limits[&LaneName::new("low").unwrap()].rate, Some("90/m".parse().unwrap()));
    let config =
        from_file("[fair_keys.\"*\"]\ncap = 4\n[fair_keys.\"a.b\"]\nweight = 3\nrate = \"10/s\"").unwrap().config;
    assert_eq!(config.fair_keys[&FairKey::every()].cap, Some(4));
    let own = &config.fair_keys[&FairKey::new("a.b").unwrap()];
    assert_eq!((own.weight, own.cap, own.rate), (Some(3), None, Some("10/s".parse().unwrap())));
    let config = from_flags(&[("fair_keys.a.b.weight", "9")]).unwrap().config;
    assert_eq!(config.fair_keys[&FairKey::new("a.b").unwrap()].weight, Some(9));
    let config = from_flags(&[("kinds.mail.send.max_attempts", "9")]).unwrap().config;
    assert_eq!(config.kinds[&Kind::new("mail.send").unwrap()].max_attempts, Some(9));
}

#[test]
fn lists_come_from_commas_in_environment_and_flags() {
    // Proves that a list can be given where there is only text.
    let config = from_environment(&[("LANEWAY_LANES", "a, normal,b")]).unwrap().config;
    assert_eq!(config.lanes.iter().map(LaneName::as_str).collect::<Vec<_>>(), ["a", "normal", "b"]);
    let flag = Flag { written: "--bind", name: "bind".into(), values: vec!["ipc://a".into(), "tcp://[::1]:0".into()] };
    let config = Config::resolve(&Sources { flags: vec![flag], ..Sources::default() }).unwrap().config;
    assert_eq!(config.bind, ["ipc://a", "tcp://[::1]:0"]);
}

#[test]
fn an_unknown_key_is_an_error_with_a_suggestion() {
    // Proves that a slip in a name is told with the right name, wherever it stands.
    for (text, says) in [
        ("stop_timout_ms = 1", "'stop_timout_ms' (file "),
        ("stop_timout_ms = 1", "did you mean 'stop_timeout_ms'?"),
        ("[retention]\ndone_age = 1", "did you mean 'retention.done_age_ms'?"),
        ("[retenton]\ndone_age_ms = 1", "did you mean 'retention.done_age_ms'?"),
        ("[kinds.resize]\ntimeout = 1", "did you mean 'kinds.resize.timeout_ms'?"),
        ("colour = 1", "--print-config"),
    ] {
        let error = from_file(text).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
    let error = from_environment(&[("LANEWAY_STOP_TIMEOUT", "1")]).unwrap_err();
    assert!(error.contains("did you mean 'LANEWAY_STOP_TIMEOUT_MS'?"), "{error}");
    let error = from_flags(&[("dib", "x")]).unwrap_err();
    assert!(error.contains("'dib' (flag --set)"), "{error}");
}

#[test]
fn foreign_variables_are_only_warned_about() {
    // Proves that what Kubernetes sets beside a service called laneway does not keep the broker from starting.
    let resolved = from_environment(&[
        ("LANEWAY_SERVICE_HOST", "10.0.0.1"),
        ("LANEWAY_PORT_7733_TCP", "tcp://10.0.0.1:7733"),
        ("LANEWAY_ENDPOINT", "tcp://127.0.0.1:1"),
        ("LANEWAY_DB", ""),
        ("HOME", "/"),
    ])
    .unwrap();
    assert_eq!(resolved.warnings.len(), 2, "{:?}", resolved.warnings);
    assert_eq!(resolved.config, Config::default());
}

#[test]
fn wrong_values_name_field_value_and_bound() {
    // Proves that each refusal says what was wrong and what would be right.
    for (text, says) in [
        ("beat_ms = 5", "beat_ms is 5 (file "),
        ("beat_ms = 5", "must be 100 to 60000"),
        ("beat_ms = -5", "beat_ms is -5 "),
        ("beat_ms = -5", "must be 100 to 60000"),
        ("heartbeat_timeout_ms = 60000", "must be 200 to 59999"),
        ("heartbeat_timeout_ms = 5000", "more than heartbeat_interval_ms, which is 5000"),
        ("payload_bytes_max = 16777217", "must be 1024 to 16777216"),
        ("beat_ms = \"5s\"", "must be a whole number"),
        ("durability = \"off\"", "must be \"full\" or \"normal\""),
        ("lanes = []", "1 to 64 lanes"),
        ("lanes = [\"normal\", \"normal\"]", "stands twice"),
        ("lanes = [\"a\\n\"]", "control characters"),
        ("lanes = [\"a\"]", "default_lane is 'normal' (default): must be one of lanes, which are a"),
        ("bind = [\"tcp://0.0.0.0:1\"]", "'tcp://0.0.0.0:1'"),
        ("bind = [\"tcp://0.0.0.0:1\"]", "curve.bind"),
        ("bind = []", "1 to 16 endpoints"),
        ("anyone_on_the_network_may_do_anything = 1", "must be true or false"),
        ("[curve]\nbind = [\"tcp://0.0.0.0:1\"]", "curve.key_file is not set"),
        ("[curve]\nbind = [\"tcp://*:1\"]\nkey_file = \"k\"", "curve.keys_folder is not set"),
        ("[curve]\nkey_file = \"k\"", "would be used by nobody"),
        ("bind = [\"ipc://a\"]\n[curve]\nbind = [\"ipc://./a\"]", "stands in bind too"),
        ("bind = [\"ipc://a\", \"ipc://../broker/a\"]", "stands twice"),
        ("[curve]\nbind = [\"udp://a\"]", "curve.bind is 'udp://a'"),
        ("log_file_bytes_max = 100", "must be at least 4096, or 0 for no bound"),
        ("log_file_age_ms = 999", "must be at least 1000, or 0 for no bound"),
        ("log_files_max = 0", "must be 1 to 1000"),
        ("[web]\ncors_origins = [\"https://a.example/\"]", "web.cors_origins is 'https://a.example/'"),
        ("[web]\ncors_origins = [\"*\"]", "whose keys web.link_key_file names"),
        ("[web]\nlink_key_file = 3", "must be a text in quotes"),
        ("log = \"deubg\"", "log is 'deubg'"),
        ("log = \"info,laneway=loud\"", "error, warn, info, debug, trace or off"),
        ("kinds = 3", "a section for each kind"),
        ("[kinds]\nresize = 3", "a section for each kind"),
        ("[kinds.resize]\nlane = \"x\"", "kinds.resize.lane is 'x'"),
        ("[kinds.resize]\nmax_attempts = 0", "kinds.resize.max_attempts is 0"),
        ("[kinds.resize]\nbackoff_max_ms = 10", "kinds.resize.backoff_base_ms is 1000 (default): must be at most"),
        ("[defaults]\nmax_attempts = 4294967296", "must be 1 to 1000000"),
        ("[defaults]\nbackoff_max_ms = 10", "defaults.backoff_base_ms is 1000"),
        ("beat_ms = ", "not valid TOML"),
        ("[kinds.resize]\ncap = 1000001", "kinds.resize.cap is 1000001 (file "),
        ("[kinds.resize]\nrate = \"10\"", "as in 10/s"),
        ("[kinds.resize]\nrate = 10", "must be a text in quotes"),
        ("lane_limits = 3", "a section for each lane, as in [lane_limits.low]"),
        ("fair_keys = 3", "as in [fair_keys.acme]"),
        ("[fair_keys.acme]\nweight = 0", "must be 1 to 1000"),
        ("[fair_keys.acme]\nwieght = 1", "did you mean 'fair_keys.acme.weight'?"),
        ("[lane_limits.low]\ncap = -1", "must be 0 to 1000000"),
        ("[web]\ntrace_url = \"https://jaeger.example\"", "web.trace_url is \"https://jaeger.example\" (file "),
        ("[web]\ntrace_url = \"https://jaeger.example\"", "with {trace_id} in it"),
        ("[lane_limits.none]\ncap = 1", "lane_limits is 'none'"),
        ("[lane_limits.low]\nshares = 1", "did you mean 'lane_limits.low.share'?"),
        ("[lane_limits.low]\nshare = 60\n[lane_limits.high]\nshare = 50", "over 100 per cent"),
    ] {
        let error = from_file(text).err().unwrap_or_else(|| panic!("{text} was taken"));
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn whoever_mends_settings_is_told_of_all_faults_at_once() {
    // Proves that no wrong key, type or bound hides another, and that relations are looked at when all of them are right.
    let (_dir, mut sources) = file("baet_ms = 1\nstall_ms = \"long\"\n[kinds.resize]\ncap = -1\n[kinds.\"\"]\ncap = 1");
    sources.environment = vec![("LANEWAY_POLL_US".into(), "soon".into())];
    sources.flags = vec![set("lanes", "a,a")];
    let error = Config::resolve(&sources).unwrap_err().to_string();
    assert!(error.starts_with("5 settings are wrong\n  "), "{error}");
    for says in ["'baet_ms' (file", "stall_ms is", "kinds.resize.cap is -1", "kinds is \"\"", "poll_us is"] {
        assert!(error.contains(says), "{says}: {error}");
    }
    let error = from_flags(&[("beat_ms", "5"), ("kinds.resize.cap", "9999999"), ("lanes", "a,a")]).unwrap_err();
    assert!(error.starts_with("2 settings") && error.contains("beat_ms") && error.contains("resize.cap"), "{error}");
    let error = from_flags(&[("lanes", "a,a"), ("heartbeat_timeout_ms", "5000")]).unwrap_err();
    assert!(error.contains("stands twice") && error.contains("heartbeat_timeout_ms"), "{error}");
}

#[test]
fn what_is_printed_reads_back_the_same() {
    // Proves that `--print-config` makes a file for `--config`, odd names included.
    let text = "db = \"a \\\"b\\\".db\"\n[retention]\ndone_count_max = 1\n[kinds.\"a.b c\"]\nlane = \"high\"\nrate = \"1/h\"\n[lane_limits.low]\nshare = 5\n[fair_keys.\"*\"]\nweight = 2";
    let mut resolved = from_file(text).unwrap();
    let printed = resolved.print();
    assert!(printed.contains("lane = \"high\" # file "), "{printed}");
    assert_eq!(from_file(&printed).unwrap().config, resolved.config);
}

#[test]
fn each_value_is_shown_with_its_origin() {
    // Proves that no line with a value leaves out where it came from, and that the page about the broker has the sections of
    // kinds, lanes and fair keys as well.
    let text = "poll_us = 700\n[kinds.\"a.b\"]\ncap = 3\n[lane_limits.low]\nshare = 5\n[fair_keys.\"*\"]\nweight = 2";
    let mut resolved = from_file(text).unwrap();
    let printed = resolved.print();
    for line in printed.lines().filter(|line| line.contains(" = ")) {
        assert!(line.contains(" # file ") || line.ends_with(" # default"), "{line}");
    }
    assert!(printed.contains("durability = \"full\" # default"), "{printed}");
    let shown = resolved.shown();
    let of = |name: &str| shown.iter().find(|line| line.0 == name).map(|line| (line.1.as_str(), &line.2[..4]));
    assert_eq!(of("poll_us"), Some(("700", "file")));
    assert_eq!(of("kinds.a.b.cap"), Some(("3", "file")));
    assert_eq!(of("lane_limits.low.share"), Some(("5", "file")));
    assert_eq!(of("fair_keys.*.weight"), Some(("2", "file")));
    assert_eq!((of("stall_ms").map(|found| found.1), of("kinds.a.b.rate")), (Some("defa"), None));
}

#[test]
fn the_sample_file_has_every_setting_at_its_default() {
    // Proves that config/laneway.toml changes nothing and leaves no setting out.
    let sample = include_str!("../../../config/laneway.toml");
    assert_eq!(from_file(sample).unwrap().config, Config::default());

    // `#name = ` shows a setting that is off or derived: taken in, each is valid and the list is complete.
    let uncomment = |line: &str| line.strip_prefix('#').filter(|l| l.starts_with(char::is_lowercase)).map(String::from);
    let full: Vec<String> = sample.lines().map(|line| uncomment(line).unwrap_or_else(|| line.into())).collect();
    let resolved = from_file(&full.join("\n")).unwrap();
    for setting in SETTINGS {
        assert!(resolved.origins.contains_key(setting.name), "config/laneway.toml lacks {}", setting.name);
    }
    assert_eq!(resolved.config.bind, Config::default().bind);
}

#[test]
fn the_sample_file_marks_what_a_running_broker_takes_anew() {
    // Proves that who edits the file sees which lines a SIGHUP is enough for, and that each name of the list is a setting.
    let sample = include_str!("../../../config/laneway.toml");
    let (mut section, mut marked) = (String::new(), Vec::new());
    for line in sample.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
        }
        let is_marked = line.ends_with(" # reload");
        if let Some((name, _)) = line.trim_start_matches('#').split_once(" = ").filter(|_| is_marked) {
            marked.push(format!("{section}{name}"));
        }
    }
    assert_eq!(marked, RELOADED);
    assert!(RELOADED.iter().all(|name| SETTINGS.iter().any(|setting| setting.name == *name)));
}

#[test]
fn a_second_reading_changes_what_may_and_names_the_rest() {
    // Proves for values that are changed, set and taken away that those which may change are taken over with their origin, and that
    // the others stay as they are and are named each time.
    let mut running =
        from_file("stop_timeout_ms = 1\nbeat_ms = 100\n[retention]\ndead_age_ms = 5\n[kinds.mail]\ncap = 3").unwrap();
    let text = "log = \"debug\"\nbeat_ms = 200\n[retention]\ndone_count_max = 7\n[lane_limits.low]\nshare = 5";
    let told = |changes: &[Change], reloaded: bool| -> Vec<String> {
        let of = changes.iter().filter(|change| change.reloaded == reloaded);
        of.map(|change| format!("{} {} {}", change.name, change.old, change.new)).collect()
    };
    let changes = running.take_over(&mut from_file(text).unwrap());
    let expected = [
        "stop_timeout_ms 1 10000",
        "log \"info\" \"debug\"",
        "retention.done_count_max not set 7",
        "retention.dead_age_ms 5 not set",
    ];
    assert_eq!(told(&changes, true), expected);
    assert_eq!(
        told(&changes, false),
        ["beat_ms 100 200", "kinds.mail.cap 3 not set", "lane_limits.low.share not set 5"]
    );
    let Config { stop_timeout_ms, log, retention, beat_ms, .. } = &running.config;
    assert_eq!((*stop_timeout_ms, log.as_str(), *beat_ms), (10_000, "debug", 100));
    assert_eq!((retention.done_count_max, retention.dead_age_ms), (Some(7), None));
    assert!(
        matches!(running.origins.get("log"), Some(Origin::File(_))) && !running.origins.contains_key("stop_timeout_ms")
    );
    let again = running.take_over(&mut from_file(text).unwrap());
    assert_eq!((told(&again, true).len(), told(&again, false).len()), (0, 3));
}

//! The WAL-reset fault of SQLite before 3.51.3 in an app's process: real without the broker, kept from happening by it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::tools::python3;
use crate::harness::{Broker, Place, Table, output_of};

/// What `wal_reset.py` told of these moments.
fn attack(place: &Place, moments: [u32; 3], pause_ms: u32, hold_ms: u32) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests/faults/wal_reset.py");
    let mut command = Command::new(python3());
    command.arg(script).arg(place.db()).args(moments.map(|n| n.to_string()));
    command.args([pause_ms, hold_ms].map(|ms| ms.to_string()));
    let told = output_of(&mut command);
    serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}"))
}

/// Whether the fault is in this version: sqlite.org/wal.html lists where it was repaired.
fn is_faulty(version: &str) -> bool {
    let numbers: Vec<u32> = version.split('.').map(|number| number.parse().unwrap()).collect();
    match numbers[..] {
        [3, 44, patch] => patch < 6,
        [3, 50, patch] => patch < 7,
        [3, 51, patch] => patch < 3,
        [3, minor, _] => minor < 51,
        _ => false,
    }
}

#[test]
fn the_wal_reset_fault_is_real_in_an_old_sqlite_and_cannot_happen_beside_a_broker() {
    // Proves, instruction by instruction, that an app's checkpoint can make committed pages count as copied which are not,
    // when nobody stands in its way and its SQLite is old; and that it cannot beside a broker, neither at any of these
    // moments, nor when the app stands still in one of them for as long as the broker's own checkpoints need to come by.
    let alone = Place::new();
    let init = [env!("CARGO_BIN_EXE_laneway"), "db", "init", "--db"];
    output_of(Command::new(init[0]).args(&init[1..]).arg(alone.db()));
    // Kept open, as a broker would: the first connection to close would take the log with it.
    let _table = Table::open(&alone);
    let control = attack(&alone, [0, 1_200, 20], 0, 0);
    let place = Place::new();
    let broker = Broker::start(&place);
    let table = Table::open(&place);
    if control["traced"] == false {
        eprintln!("tracing is not allowed here: the fault is not shown, only that old and new SQLite get along");
        table.insert_many(20_000, "normal", "nobody", "1");
    } else {
        let version = control["sqlite"].as_str().unwrap();
        let (hit, damage) = (&control["hit"], &control["damage"]);
        assert!(hit.is_u64() == is_faulty(version) && hit.is_null() == damage.is_null(), "{control}");
        let fast = attack(&place, [0, 1_200, 20], 0, 0);
        assert!(fast["tried"] == 60 && fast["hit"].is_null() && fast["damage"].is_null(), "{fast}");
        // The moments that hit alone, or some where another build of SQLite would have them.
        let first = hit.as_u64().map_or(200, |moment| u32::try_from(moment).unwrap());
        // And when the commit is that of a long transaction: together with the checkpoint that stands still it has the locks of
        // one that truncates the log, for which the broker makes way.
        for (pause_ms, hold_ms) in [(700, 0), (50, 1_500)] {
            let slow = attack(&place, [first, first + 160, 40], pause_ms, hold_ms);
            assert!(slow["tried"] == 4 && slow["hit"].is_null() && slow["damage"].is_null(), "{hold_ms} ms: {slow}");
            assert_eq!(slow["copied"], 4, "the broker's own checkpoints had no part in it: {slow}");
        }
    }
    assert_eq!(table.one::<String>("PRAGMA integrity_check", []), "ok");
    assert_eq!(broker.stop(), 0);
}

//! What filters meet, how pages follow each other, and that every way in is an index.

use super::*;
use crate::rows::testing::{self, assert_indexed};

fn query(text: &str) -> PageQuery {
    PageQuery {
        filter: Filter::parse(text).unwrap(),
        rows_max: 3,
        kind_lanes: vec![("a".into(), "normal".into()), ("b".into(), "low".into())],
        workers: vec![("s1".into(), "web-1".into())],
        ..PageQuery::default()
    }
}

fn ids(place: &testing::Place, text: &str) -> Vec<i64> {
    let (mut table, mut query, mut ids) = (Table::new(place.db()), query(text), Vec::new());
    loop {
        let found = page(&mut table, &query).unwrap();
        assert!(found.rows.len() <= query.rows_max && !found.is_partial);
        ids.extend(found.rows.iter().map(|row| row.id));
        query.before = found.next;
        if query.before.is_none() {
            return ids;
        }
    }
}

#[test]
fn pages_meet_the_filter_and_follow_each_other() {
    // Proves every field, over several pages and by whichever index: nothing is missing and nothing comes twice.
    let place = testing::Place::new();
    place
        .conn()
        .execute_batch(
            "INSERT INTO task_groups(name) VALUES ('g');
             INSERT INTO tasks(kind, lane, state, attempts, worker, unique_key, error, group_id, fair_key) VALUES
               ('a', NULL,   'done',    1, 's1', 'k', NULL,             1,    NULL),
               ('a', 'high', 'dead',    3, 's2', 'k', 'no route: x',    1,    NULL),
               ('b', NULL,   'dead',    1, 's2', 'k', 'no route: y',    NULL, 'acme'),
               ('b', NULL,   'queued',  0, NULL, 'k', NULL,             1,    'acme'),
               ('a', 'high', 'running', 0, 's1', NULL, NULL,            NULL, NULL),
               ('a', NULL,   'queued',  0, NULL, NULL, NULL,            1,    NULL),
               ('a', x'01',  'queued',  0, NULL, NULL, NULL,            NULL, NULL),
               (x'02', NULL, 'queued',  0, NULL, NULL, NULL,            NULL, NULL)",
        )
        .unwrap();
    for (text, wanted) in [
        ("", vec![8, 7, 6, 5, 4, 3, 2, 1]),
        ("kind:\"\"", vec![8]),
        ("state:queued", vec![8, 7, 6, 4]),
        ("state:dead", vec![3, 2]),
        ("state:running", vec![5]),
        ("kind:a", vec![7, 6, 5, 2, 1]),
        ("lane:normal", vec![6, 1]),
        ("lane:low", vec![4, 3]),
        ("lane:high state:dead", vec![2]),
        ("key:k", vec![4, 3, 2, 1]),
        ("key:k kind:a", vec![2, 1]),
        ("key:k state:done", vec![1]),
        ("worker:web-1", vec![5, 1]),
        ("worker:s2", vec![3, 2]),
        ("fair:acme", vec![4, 3]),
        ("group:1", vec![6, 4, 2, 1]),
        ("group:1 state:queued", vec![6, 4]),
        ("error:\"no route\"", vec![3, 2]),
        ("line:\"no route: x\"", vec![2]),
        ("line:\"no route\"", vec![]),
        ("state:dead line:\"\"", vec![]),
        ("kind:b line:\"\"", vec![4]),
        ("attempt>2", vec![2]),
        ("attempt:1", vec![3, 1]),
        ("5", vec![5]),
        ("id:5 kind:b", vec![]),
        ("id:99", vec![]),
    ] {
        assert_eq!(ids(&place, text), wanted, "{text}");
    }
}

#[test]
fn every_way_in_is_an_index() {
    // Proves by SQLite's own plan that no filter reads a whole table or sorts one: the walk is a range of ids.
    let place = testing::Place::new();
    let conn = place.conn();
    for text in [
        "",
        "state:queued",
        "state:dead",
        "state:running kind:a",
        "kind:a lane:low",
        "key:k",
        "key:k kind:a state:done",
        "worker:web-1",
        "group:1",
        "group:1 state:dead",
        "error:x attempt>1",
        "state:dead kind:a line:x",
        "id:5 kind:b",
    ] {
        for source in sources(&query(text)) {
            assert_indexed(&conn, &source.sql());
        }
    }
}

#[test]
fn a_needle_in_a_haystack_is_reached_over_partial_pages() {
    // Proves that a walk whose time is over says where to go on, and that going on arrives.
    let place = testing::Place::new();
    let conn = place.conn();
    conn.execute_batch(
        "INSERT INTO tasks(kind, worker) VALUES ('needle', 'w');
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 60000)
         INSERT INTO tasks(kind) SELECT 'hay' FROM n",
    )
    .unwrap();
    let mut table = Table::new(place.db());
    let mut query = PageQuery { rows_max: 50, ..query("kind:needle") };
    for _ in 0..1_000 {
        let found = page(&mut table, &query).unwrap();
        if let Some(row) = found.rows.first() {
            assert_eq!(row.id, 1);
            return;
        }
        assert!(found.is_partial && found.next < query.before.or(Some(i64::MAX)));
        query.before = found.next;
    }
    panic!("the needle was not found");
}

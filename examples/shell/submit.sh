#!/bin/sh
# Submits tasks from the shell: a row is a task. Needs the sqlite3 program.
#
#     sh submit.sh [DATABASE]                     default: laneway.db
set -eu
db=${1:-laneway.db}
here=$(cd "$(dirname "$0")" && pwd)

# The path stands in an SQL string, where a quote is written twice; json_object does the rest.
path=$(printf '%s' "$here/submit.sh" | sed "s/'/''/g")

# .timeout: wait for the write lock as long as another app holds it.
sqlite3 -cmd '.timeout 10000' "$db" <<SQL
-- One task, everything else at the broker's defaults.
INSERT INTO tasks(kind, payload) VALUES ('wordcount', json_object('path', '$path'));

-- Urgent, tried at most twice, 30 seconds for each try.
INSERT INTO tasks(kind, payload, lane, max_attempts, timeout_ms)
VALUES ('echo', json_object('hello', 'shell'), 'high', 2, 30000);

-- In one minute, and only once as long as it has not ended.
INSERT INTO tasks(kind, payload, unique_key, run_at)
VALUES ('echo', '"daily"', 'daily', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + 60000)
ON CONFLICT DO NOTHING;

-- A cancel is an UPDATE.
-- UPDATE tasks SET cancel_requested = 1 WHERE id = 42;

.headers on
.mode column
SELECT id, kind, lane, state, result, error FROM tasks ORDER BY id DESC LIMIT 5;
SQL

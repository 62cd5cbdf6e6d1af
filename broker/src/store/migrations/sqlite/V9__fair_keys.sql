-- Rows of one lane and kind are read by turns of their fair keys, so each key is a range of its own in the index; rows without
-- one are the first, in the order that they had.
DROP INDEX tasks_queue;
CREATE INDEX tasks_queue ON tasks (lane, kind, fair_key, run_at) WHERE state = 'queued';

-- When the next row with a key is due, whatever its key.
CREATE INDEX tasks_fair_later ON tasks (lane, kind, run_at)
    WHERE fair_key IS NOT NULL AND state = 'queued' AND run_at IS NOT NULL;

-- What people have set of fair keys while a broker ran, over its settings; '*' is every key. NULL: as the settings say. Read
-- at the broker's start and written by it alone; `laneway fair-key set` changes it.
CREATE TABLE laneway_fair_keys (
    name       TEXT PRIMARY KEY,
    weight     INTEGER,                           -- tasks in each round of its lane
    cap        INTEGER,                           -- tasks that run at a time; 0 is no cap
    rate       TEXT,                              -- '10/s', '90/m', '1/h', '5/d', 'none'
    rate_burst INTEGER
);

DROP VIEW task_view;
CREATE VIEW task_view AS
SELECT id, kind, lane, state,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', run_at / 1000.0, 'unixepoch') AS run_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at / 1000.0, 'unixepoch') AS finished_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', expires_at / 1000.0, 'unixepoch') AS expires_at,
       runs, attempts, losses, releases, max_attempts, timeout_ms, worker, unique_key, cancel_requested,
       progress_done, progress_total, progress_note, trace, error, payload, result, fair_key
FROM tasks;

-- The whole schema. Defaults, checks and indexes run inside the SQLite of the app that inserts, so everything in here
-- is valid on 3.31 and newer. Never edited once released: a change is a new file.

-- Apps write: kind, lane, payload, run_at, unique_key, max_attempts, timeout_ms, expires_at, trace; cancel_requested by
-- UPDATE. NULL means the broker's default for the kind. Times are Unix milliseconds. All else is the broker's.
-- Wide columns stand last, so that a scan reads none of their pages.
CREATE TABLE tasks (
    id                INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 9007199254740991),
    kind              TEXT    NOT NULL,
    lane              TEXT,
    state             TEXT    NOT NULL DEFAULT 'queued'
                      CHECK (state = 'queued' OR state = 'running' OR state = 'done'
                             OR state = 'waiting' OR state = 'dead' OR state = 'cancelled'),
    run_at            INTEGER,                    -- NULL: at once, whatever the clocks say
    lease             INTEGER,                    -- of the current hand-out; ended rows keep their last one
    runs              INTEGER NOT NULL DEFAULT 0, -- hand-outs
    attempts          INTEGER NOT NULL DEFAULT 0, -- runs that ended in success, failure or timeout
    losses            INTEGER NOT NULL DEFAULT 0, -- runs whose worker died
    releases          INTEGER NOT NULL DEFAULT 0, -- runs handed back on purpose
    cancel_requested  INTEGER NOT NULL DEFAULT 0,
    created_at        INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER)),
    started_at        INTEGER,
    finished_at       INTEGER,
    max_attempts      INTEGER,
    timeout_ms        INTEGER,
    expires_at        INTEGER,                    -- not started for the first time after this
    open_dependencies INTEGER NOT NULL DEFAULT 0,
    group_id          INTEGER,
    fair_key          TEXT,
    progress_done     INTEGER,
    progress_total    INTEGER,
    worker            TEXT,                       -- the session that runs it, or ran it last
    unique_key        TEXT,
    trace             TEXT,
    progress_note     TEXT,
    error             TEXT,
    payload,                                      -- TEXT is JSON, BLOB is MessagePack or raw
    checkpoint,
    result
);

-- The conditions of the indexes are worked out for every row written. So they are comparisons: IN with three words or more
-- fills a temporary table each time, at ten times the cost. In order of the alphabet the states that are not live
-- (cancelled, dead, done) come before those that are (queued, running, waiting).

-- What load reads: the head of one lane and kind.
CREATE INDEX tasks_queue ON tasks (lane, kind, run_at) WHERE state = 'queued';

-- One live task for a key: INSERT ... ON CONFLICT DO NOTHING works in any language.
CREATE UNIQUE INDEX tasks_live_key ON tasks (kind, unique_key) WHERE unique_key IS NOT NULL AND state >= 'queued';

-- The newest task with a key, ended or not.
CREATE INDEX tasks_key ON tasks (kind, unique_key) WHERE unique_key IS NOT NULL;

-- Running and dead rows, both few beside the rest.
CREATE INDEX tasks_marked ON tasks (state) WHERE state = 'running' OR state = 'dead';

-- Live rows that an app has put where no queue finds them: a cancel requested, a time that is not in milliseconds, or a
-- type that no value of the column can have. Every number sorts below every text and every text below every blob, so one
-- comparison tells each type apart, where typeof() is a call.
CREATE INDEX tasks_attention ON tasks (state)
    WHERE (cancel_requested <> 0
           OR kind >= x'' OR lane >= x'' OR run_at >= 1e14 OR expires_at >= 1e14
           OR (state = 'running' AND (lease IS NULL OR lease >= 9.3e18)))
      AND state >= 'queued';

CREATE INDEX tasks_expires ON tasks (expires_at)
    WHERE expires_at IS NOT NULL AND runs = 0 AND (state = 'queued' OR state = 'waiting');

-- Why runs ended badly, one row for each.
CREATE TABLE failures (
    id         INTEGER PRIMARY KEY,
    task       INTEGER NOT NULL,
    run        INTEGER NOT NULL,
    cause      TEXT    NOT NULL,                  -- failed, timeout, lost, rejected
    worker     TEXT,
    started_at INTEGER,
    failed_at  INTEGER NOT NULL,
    error      TEXT    NOT NULL
);
CREATE INDEX failures_task ON failures (task, run);

-- Each start of a broker. The secret makes its leases; stopped_at stays NULL when it ended without a word.
CREATE TABLE laneway_epochs (
    number     INTEGER PRIMARY KEY,
    secret     BLOB    NOT NULL,
    started_at INTEGER NOT NULL,
    stopped_at INTEGER,
    pid        INTEGER NOT NULL,
    host       TEXT    NOT NULL
);

-- Every lane ever configured; rank counts from the most urgent. Rows without a lane go to the fallback, but for kinds
-- whose settings name another.
CREATE TABLE laneway_lanes (
    name       TEXT    PRIMARY KEY,
    rank       INTEGER,
    paused     INTEGER NOT NULL DEFAULT 0,
    configured INTEGER NOT NULL DEFAULT 1,
    fallback   INTEGER NOT NULL DEFAULT 0
);

-- Worker processes that were connected last; the next start waits for them.
CREATE TABLE laneway_sessions (
    session TEXT    PRIMARY KEY,
    name    TEXT    NOT NULL,
    plain   INTEGER NOT NULL
);

-- Submits of the last minutes, so that one said twice stores once. `tasks` is 8 bytes for each id, big-endian.
CREATE TABLE laneway_requests (
    id      INTEGER PRIMARY KEY,
    request BLOB    NOT NULL UNIQUE,
    at      INTEGER NOT NULL,
    tasks   BLOB    NOT NULL
);

-- For people: times as ISO text, UTC.
CREATE VIEW task_view AS
SELECT id, kind, lane, state,
       strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', run_at / 1000.0, 'unixepoch') AS run_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_at / 1000.0, 'unixepoch') AS finished_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', expires_at / 1000.0, 'unixepoch') AS expires_at,
       runs, attempts, losses, releases, max_attempts, timeout_ms, worker, unique_key, cancel_requested,
       progress_done, progress_total, progress_note, trace, error, payload, result
FROM tasks;

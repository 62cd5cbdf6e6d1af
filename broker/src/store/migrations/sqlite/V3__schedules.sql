-- Tasks that come again and again. Apps write every column up to catch_up_max, NULL meaning the broker's default, and may
-- write next_at and error to have them worked out anew; the rest is the broker's. As few rows come and go here, the checks
-- can afford to be many: what they refuse is told by their names.
CREATE TABLE schedules (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT    NOT NULL UNIQUE
                 CONSTRAINT "name is a text of 1 to 128 characters"
                 CHECK (typeof(name) = 'text' AND length(name) BETWEEN 1 AND 128),
    cron         TEXT    NOT NULL
                 CONSTRAINT "cron is a text" CHECK (typeof(cron) = 'text'),
    time_zone    TEXT    DEFAULT 'UTC'
                 CONSTRAINT "time_zone is a text" CHECK (typeof(time_zone) IN ('text', 'null')),
    kind         TEXT    NOT NULL
                 CONSTRAINT "kind is a text" CHECK (typeof(kind) = 'text'),
    lane         TEXT
                 CONSTRAINT "lane is a text" CHECK (typeof(lane) IN ('text', 'null')),
    unique_key   TEXT                             -- a slot whose key is live makes no second task
                 CONSTRAINT "unique_key is a text" CHECK (typeof(unique_key) IN ('text', 'null')),
    max_attempts INTEGER
                 CONSTRAINT "max_attempts is at least 1"
                 CHECK (max_attempts IS NULL OR (typeof(max_attempts) = 'integer' AND max_attempts >= 1)),
    timeout_ms   INTEGER
                 CONSTRAINT "timeout_ms is at least 1"
                 CHECK (timeout_ms IS NULL OR (typeof(timeout_ms) = 'integer' AND timeout_ms >= 1)),
    catch_up     TEXT    DEFAULT 'one'            -- what becomes of slots that passed while no broker ran
                 CONSTRAINT "catch_up is skip, one or all"
                 CHECK (catch_up IS NULL OR catch_up IN ('skip', 'one', 'all')),
    catch_up_max INTEGER
                 CONSTRAINT "catch_up_max is 1 to 1000"
                 CHECK (catch_up_max IS NULL OR (typeof(catch_up_max) = 'integer' AND catch_up_max BETWEEN 1 AND 1000)),
    paused       INTEGER NOT NULL DEFAULT 0
                 CONSTRAINT "paused is 0 or 1" CHECK (paused IN (0, 1)),
    created_at   INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER)),
    next_at      INTEGER                          -- NULL: to be worked out
                 CONSTRAINT "next_at is in Unix milliseconds" CHECK (typeof(next_at) IN ('integer', 'null')),
    last_at      INTEGER                          -- the last slot that was fired
                 CONSTRAINT "last_at is in Unix milliseconds" CHECK (typeof(last_at) IN ('integer', 'null')),
    last_task    INTEGER,
    error        TEXT,                            -- why it does not fire; gone as soon as the row is changed
    payload      CONSTRAINT "payload is TEXT, which is JSON, or a BLOB"
                 CHECK (typeof(payload) IN ('text', 'blob', 'null'))
);

-- What is to be worked out, then what is due first: the one row that a broker looks at after a commit of an app.
CREATE INDEX schedules_next ON schedules (next_at) WHERE paused = 0 AND error IS NULL;

-- Slots that were fired, the newest of each schedule: one row, once, whoever comes first.
CREATE TABLE schedule_slots (
    schedule INTEGER NOT NULL,
    slot     INTEGER NOT NULL,                    -- the time it stands for, Unix milliseconds
    task     INTEGER NOT NULL,                    -- the task it made, or the live one with its key that it met
    new      INTEGER NOT NULL,                    -- 0: it met one
    fired_at INTEGER NOT NULL,
    PRIMARY KEY (schedule, slot)
) WITHOUT ROWID;
CREATE INDEX schedule_slots_task ON schedule_slots (task);

-- An app's plain UPDATE is all it takes. What was wrong is looked at again; another rhythm, or the end of a pause, begins
-- from now.
CREATE TRIGGER schedules_changed
AFTER UPDATE OF cron, time_zone, kind, lane, unique_key, max_attempts, timeout_ms, catch_up, catch_up_max, paused, payload
ON schedules
BEGIN
    UPDATE schedules
    SET error = NULL,
        next_at = CASE WHEN OLD.cron IS NEW.cron AND OLD.time_zone IS NEW.time_zone AND OLD.paused <= NEW.paused
                       THEN next_at END
    WHERE id = NEW.id;
END;

CREATE TRIGGER schedules_deleted AFTER DELETE ON schedules
BEGIN
    DELETE FROM schedule_slots WHERE schedule = OLD.id;
END;

-- What people have set of kinds and lanes while a broker ran, over its settings. NULL: as the settings say. Read at the
-- broker's start and written by it alone; `laneway kind set` and `laneway lane set` change it.
CREATE TABLE laneway_kinds (
    name            TEXT    PRIMARY KEY,
    paused          INTEGER NOT NULL DEFAULT 0,
    cap             INTEGER,                      -- tasks that run at a time; 0 is no cap
    rate            TEXT,                         -- '10/s', '90/m', '1/h', '5/d', 'none'
    rate_burst      INTEGER,
    lane            TEXT,
    max_attempts    INTEGER,
    timeout_ms      INTEGER,
    backoff_base_ms INTEGER,
    backoff_max_ms  INTEGER
);

ALTER TABLE laneway_lanes ADD COLUMN cap INTEGER;
ALTER TABLE laneway_lanes ADD COLUMN rate TEXT;
ALTER TABLE laneway_lanes ADD COLUMN rate_burst INTEGER;
ALTER TABLE laneway_lanes ADD COLUMN share INTEGER;

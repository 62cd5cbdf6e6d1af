-- Tasks that submits asked to be kept for a time after they are done, so that late callers get their result. NULL nowhere.
CREATE TABLE laneway_windows (
    task          INTEGER PRIMARY KEY,
    unique_for_ms INTEGER NOT NULL
);

-- Workflows: tasks that wait for the ends of others, and groups of tasks. The names say 'task', so that no app has them
-- already. Valid on 3.31 and newer, like all of the schema.

-- One row: `task` waits for the end of `parent`. Apps write task, parent and anyway, in the transaction that inserts the task
-- with state 'waiting'. All else is the broker's.
CREATE TABLE task_dependencies (
    id     INTEGER PRIMARY KEY,
    task   INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    anyway INTEGER NOT NULL DEFAULT 0,            -- 1: runs all the same when the parent is dead or cancelled
    open   INTEGER NOT NULL DEFAULT 1,            -- the broker has not seen the parent's end
    UNIQUE (task, parent)
);

-- Whom an end concerns; and which parents somebody may still ask for.
CREATE INDEX task_dependencies_parent ON task_dependencies (parent, open);

-- Whether a task still waits, and for whom. Holds nothing once all have run.
CREATE INDEX task_dependencies_open ON task_dependencies (task, parent) WHERE open = 1;

-- Tasks that belong together name it in their group_id.
CREATE TABLE task_groups (
    id         INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 9007199254740991),
    name       TEXT,
    last_task  INTEGER,                           -- waits for all others, those that join later among them
    anyway     INTEGER NOT NULL DEFAULT 0,        -- and runs though some are dead or cancelled
    created_at INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER))
);

-- Counts of a group. Holds nothing of tasks without one.
CREATE INDEX tasks_group ON tasks (group_id, state) WHERE group_id IS NOT NULL;

-- The group that a submit made, for when it is said again.
ALTER TABLE laneway_requests ADD COLUMN group_id INTEGER;

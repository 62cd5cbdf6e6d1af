-- A group that was cancelled takes no more tasks, whether or not one of them is there to show it.
ALTER TABLE task_groups ADD COLUMN cancel_requested INTEGER NOT NULL DEFAULT 0;

-- Queued rows with a fair key that an UPDATE has given another time, key, lane or kind. The broker knows which keys have rows that
-- are due and looks at no others, so it is told of these as it is of new rows, which have higher ids. It deletes what it has read.
CREATE TABLE laneway_moved (
    task INTEGER PRIMARY KEY
);

-- An INSERT pays nothing for it, nor does what the broker itself writes when a task starts and ends: those change the state. The
-- condition in place of OR IGNORE, which the UPDATE's own conflict clause would overrule.
CREATE TRIGGER tasks_moved AFTER UPDATE OF kind, lane, fair_key, run_at ON tasks
WHEN new.fair_key IS NOT NULL AND new.state = 'queued' AND old.state = 'queued'
BEGIN
    INSERT INTO laneway_moved (task) SELECT new.id WHERE NOT EXISTS (SELECT 1 FROM laneway_moved WHERE task = new.id);
END;

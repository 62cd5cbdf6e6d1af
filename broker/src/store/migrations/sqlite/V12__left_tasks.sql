-- How many ended rows have left their place, by whatever hand: the broker deletes the oldest of what is counted only as far as its count still
-- holds, and an app's DELETE between its count and its delete is seen by no watermark.
CREATE TABLE laneway_left (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    n  INTEGER NOT NULL
);

INSERT INTO laneway_left (id, n) VALUES (1, 0);

-- Neither is of anything that an INSERT, a start or an outcome does.
CREATE TRIGGER tasks_left AFTER DELETE ON tasks
WHEN old.state < 'queued'
BEGIN
    UPDATE laneway_left SET n = n + 1;
END;

CREATE TRIGGER tasks_left_kind AFTER UPDATE OF kind ON tasks
WHEN old.state < 'queued' AND old.kind IS NOT new.kind
BEGIN
    UPDATE laneway_left SET n = n + 1;
END;

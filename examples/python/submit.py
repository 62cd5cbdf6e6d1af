#!/usr/bin/env python3
"""Submits tasks the plain way: by inserting rows. Needs nothing but Python's own sqlite3.

    python3 submit.py [DATABASE]                  default: laneway.db
"""

import json
import sqlite3
import sys
import time

db = sqlite3.connect(sys.argv[1] if len(sys.argv) > 1 else "laneway.db", timeout=10)


def submit(kind, payload, **columns):
    """Inserts one task and gives its id, or None when one with the same unique key has not ended."""
    columns |= {"kind": kind, "payload": json.dumps(payload)}
    names, marks = ", ".join(columns), ", ".join(":" + name for name in columns)
    # The conflict is that of (kind, unique_key) among tasks that have not ended.
    cursor = db.execute(f"INSERT INTO tasks({names}) VALUES ({marks}) ON CONFLICT DO NOTHING", columns)
    return cursor.lastrowid if cursor.rowcount else None


# One row is one task. A worker that is idle has it about a millisecond after the commit.
with db:
    first = submit("wordcount", {"path": __file__})
print("task", first)

# In the app's own transaction, together with its own table: both happen or neither does.
with db:
    db.execute("CREATE TABLE IF NOT EXISTS example_orders (id INTEGER PRIMARY KEY, item TEXT, task INTEGER)")
    task = submit("echo", {"order": "tea"}, lane="high")
    db.execute("INSERT INTO example_orders(item, task) VALUES (?, ?)", ("tea", task))
print("task", task, "and its order")

# With a unique key: as long as the first one has not ended, the second insert changes nothing. It runs in a minute.
in_a_minute = int((time.time() + 60) * 1000)
with db:
    print("task", submit("echo", {"report": "daily"}, unique_key="daily", run_at=in_a_minute))
    print("task", submit("echo", {"report": "daily"}, unique_key="daily", run_at=in_a_minute))

# The result is in the row.
deadline = time.monotonic() + 5
while time.monotonic() < deadline:
    state, result, error = db.execute("SELECT state, result, error FROM tasks WHERE id = ?", (first,)).fetchone()
    if state in ("done", "dead", "cancelled"):
        print("task", first, "is", state, result or error)
        break
    time.sleep(0.05)
else:
    print("task", first, "is", state, "after 5 s: is a worker running? try: python3 worker.py")

#!/usr/bin/env python3
"""A worker on the broker's database that does each task's work once: the work and the task's end are one transaction.

    pip install pyzmq msgpack
    python3 fenced.py DATABASE [ENDPOINT]         default: tcp://127.0.0.1:7733

A task of the kind `pay` writes a row of the table `payments`. Whatever is killed and whenever, each task has one in the end:
a worker that dies before its COMMIT has done nothing, and one that dies behind it has ended the task.
"""

import json
import sqlite3
import sys

from worker import work

PAID = "CREATE TABLE IF NOT EXISTS payments(task INTEGER, cents INTEGER)"  # nothing in it forbids a second row
PAY = "INSERT INTO payments(task, cents) VALUES (?, ?)"
END = """
UPDATE tasks SET state = 'done', attempts = attempts + 1, result = ?,
                 finished_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)
 WHERE id = ? AND lease = ? AND state = 'running'
"""


def pay(db, task, frame):
    outcome = {"task": task["task"], "lease": task["lease"]}
    try:
        cents = json.loads(frame)["cents"]  # what takes long comes here: a transaction holds up all other writers
        with db:  # COMMIT at its end, ROLLBACK on an error
            db.execute("BEGIN IMMEDIATE")
            db.execute(PAY, (task["task"], cents))
            if db.execute(END, (json.dumps(cents), task["task"], task["lease"])).rowcount == 0:
                raise LookupError("the lease is over: the task is another worker's")
    except Exception as error:
        return outcome | {"end": "fail", "error": f"{type(error).__name__}: {error}"}, []
    return outcome | {"end": "already"}, []


def main(database, endpoint="tcp://127.0.0.1:7733"):
    db = sqlite3.connect(database, timeout=30, isolation_level=None)
    db.execute(PAID)
    # `committed`: the row shows the lease before the task comes, so that the UPDATE finds it.
    work(endpoint, ["pay"], lambda task, frame: pay(db, task, frame), committed=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

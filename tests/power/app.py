"""An app of the power loss audit: inserts groups of tasks with the SQLite of the system and marks each in the log after its
COMMIT has returned. Goes on until it is killed. Usage: app.py DATABASE LOG; see said.rs for payloads, log.rs for marks."""

import fcntl, json, os, random, sqlite3, struct, sys, time

MARK = 7
table = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)


def mark(said):
    data = json.dumps(said).encode()
    record = struct.pack("=IBBHIIQQQ", 40 + len(data), MARK, 0, 0, os.getpid(), 0, 0, 0, 0) + data
    fcntl.flock(log, fcntl.LOCK_EX)
    os.write(log, record)
    fcntl.flock(log, fcntl.LOCK_UN)


def payload(n, group, of):
    filling = chr(ord("a") + n % 26) * [10, 700, 5000][max(n % 7 - 4, 0)]
    fields = {"by": "python", "filling": filling, "group": group, "n": n, "of": of}
    return json.dumps(fields, separators=(",", ":"))


n, group = 0, 0
while True:
    of = random.randint(1, 3)
    tasks = [payload(n + i, group, of) for i in range(of)]
    table.execute("BEGIN IMMEDIATE")
    ids = [table.execute("INSERT INTO tasks(kind, payload) VALUES ('echo', ?)", (task,)).lastrowid for task in tasks]
    table.execute("COMMIT")
    for id, task in zip(ids, tasks):
        mark({"said": "stored", "by": "python", "id": id, "payload": task})
    n, group = n + of, group + 1
    time.sleep(random.random() * 0.03)

#!/usr/bin/env python3
"""An hour at moderate load: does anything grow?

Starts the real broker and worker processes on a new database, inserts rows by plain SQL at a steady rate, replaces a worker
process every minute, asks for numbers by the command line every ten seconds, and records once in ten seconds what the
broker holds (memory, descriptors, threads, write-ahead log, database file) and how long tasks waited from their commit to their
start. Fails when a task is missing at the end. Needs nothing but Python 3.11 and the release binary:

    cargo build --release
    python3 bench/soak/soak.py --minutes 60 --csv soak.csv
    python3 bench/soak/plot.py soak.csv docs/soak.png      # needs matplotlib
"""

import argparse
import csv
import os
import pathlib
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

EVERY_S = 10
# Ended rows are kept for two minutes, so that the file has its final size soon.
SETTINGS = """
[retention]
done_age_ms = 120_000
interval_ms = 1_000
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=int, default=300, help="tasks a second")
    parser.add_argument("--csv", type=pathlib.Path, default=pathlib.Path("soak.csv"))
    parser.add_argument("--laneway", default="target/release/laneway", help="the program to soak")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="laneway-soak-") as folder:
        sys.exit(Soak(args, pathlib.Path(folder)).run())


class Soak:
    def __init__(self, args, folder):
        self.args, self.folder = args, folder
        self.endpoint = f"ipc://{folder}/socket"
        self.database = folder / "soak.db"
        config = folder / "laneway.toml"
        config.write_text(SETTINGS)
        self.broker = self.start("broker", "--db", self.database, "--bind", self.endpoint, "--config", config)
        self.wait_for_broker()
        self.workers = [self.hire() for _ in range(2)]
        self.app = sqlite3.connect(self.database, isolation_level=None, timeout=30)
        self.app.execute("PRAGMA synchronous = NORMAL")
        self.inserted, self.committed_at = 0, {}

    def start(self, *words, **more):
        log = open(self.folder / f"{words[0]}.log", "ab")
        command = [self.args.laneway, *map(str, words)]
        return subprocess.Popen(command, stdout=log, stderr=log, **more)

    def wait_for_broker(self):
        until = time.monotonic() + 30
        while subprocess.run([self.args.laneway, "--endpoint", self.endpoint, "stats"], capture_output=True).returncode:
            if time.monotonic() > until:
                raise SystemExit("the broker does not answer")
            time.sleep(0.05)

    def hire(self):
        return self.start("bench-worker", "--to", self.endpoint, "--slots", 4, stdin=subprocess.PIPE)

    def dismiss(self, worker):
        worker.stdin.close()
        worker.wait(30)

    def run(self):
        begun = time.monotonic()
        end, next_row, next_hire = begun + 60 * self.args.minutes, begun + EVERY_S, begun + 60
        with open(self.args.csv, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow("seconds tasks rss_kib fds threads wal_kib db_kib wait_p50_us wait_p99_us".split())
            while (now := time.monotonic()) < end:
                self.insert_until(begun, now)
                if now >= next_hire:
                    next_hire += 60
                    self.dismiss(self.workers.pop(0))
                    self.workers.append(self.hire())
                if now >= next_row:
                    next_row += EVERY_S
                    rows.writerow([round(now - begun), self.inserted, *self.sample()])
                    file.flush()
                time.sleep(0.002)
        return self.audit()

    def insert_until(self, begun, now):
        while self.inserted < (now - begun) * self.args.rate:
            kind = "stamp" if self.inserted % 10 == 0 else "noop"
            task = self.app.execute("INSERT INTO tasks(kind) VALUES (?)", [kind]).lastrowid
            if kind == "stamp":
                self.committed_at[task] = time.time_ns()
            self.inserted += 1

    def sample(self):
        subprocess.run([self.args.laneway, "--endpoint", self.endpoint, "stats"], capture_output=True, check=True)
        process = pathlib.Path(f"/proc/{self.broker.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        number = lambda key: int(status[key].split()[0])
        size = lambda path: path.stat().st_size // 1024
        wal = self.database.with_name(self.database.name + "-wal")
        descriptors = len(os.listdir(process / "fd"))
        return [number("VmRSS"), descriptors, number("Threads"), size(wal), size(self.database), *self.waits()]

    def waits(self):
        """From the commit of a row to the start of its handler, in microseconds: median and 99th percentile."""
        tasks, self.committed_at = self.committed_at, {}
        found = self.app.execute(
            "SELECT id, CAST(result AS INTEGER) FROM tasks WHERE kind = 'stamp' AND state = 'done' AND id BETWEEN ? AND ?",
            [min(tasks), max(tasks)],
        )
        waits = sorted((started - tasks[task]) / 1000 for task, started in found if task in tasks)
        return [round(statistics.median(waits)), round(waits[int(len(waits) * 0.99)])]

    def audit(self):
        until, live = time.monotonic() + 60, 1
        while live and time.monotonic() < until:
            live = self.app.execute("SELECT count(*) FROM tasks WHERE state IN ('queued', 'running')").fetchone()[0]
            time.sleep(0.1)
        bad = self.app.execute("SELECT count(*) FROM tasks WHERE state <> 'done' OR runs <> 1").fetchone()[0]
        for worker in self.workers:
            self.dismiss(worker)
        self.broker.terminate()
        code = self.broker.wait(30)
        print(f"{self.inserted} tasks, {live} not ended, {bad} not done in one run, the broker's exit code {code}")
        return 1 if live or bad or code else 0


if __name__ == "__main__":
    main()

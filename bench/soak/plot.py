#!/usr/bin/env python3
"""Draws what soak.py recorded: python3 plot.py soak.csv soak.png"""

import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PANELS = [
    ("memory, MiB", {"rss_kib": ("resident", 1 / 1024)}),
    ("descriptors and threads", {"fds": ("descriptors", 1), "threads": ("threads", 1)}),
    ("write-ahead log and database, MiB", {"wal_kib": ("log", 1 / 1024), "db_kib": ("database", 1 / 1024)}),
    ("commit to start, ms", {"wait_p50_us": ("median", 1 / 1000), "wait_p99_us": ("99th percentile", 1 / 1000)}),
]


def main(source, target):
    with open(source) as file:
        rows = list(csv.DictReader(file))
    minutes = [int(row["seconds"]) / 60 for row in rows]
    tasks = int(rows[-1]["tasks"])
    figure, panels = plt.subplots(len(PANELS), 1, figsize=(9, 10), sharex=True)
    for panel, (title, lines) in zip(panels, PANELS):
        for column, (label, scale) in lines.items():
            panel.plot(minutes, [int(row[column]) * scale for row in rows], label=label, linewidth=1.2)
        panel.set_title(title, loc="left", fontsize=10)
        # Room for the legend, and waits of a millisecond beside those of a second.
        panel.set_ylim(0, panel.get_ylim()[1] * 1.25)
        if title.endswith("ms"):
            panel.set_yscale("log")
            panel.set_ylim(0.5, 10_000)
            panel.yaxis.set_major_formatter("{x:g}")
        panel.grid(alpha=0.3)
        panel.legend(loc="upper right", fontsize=8, frameon=False)
    panels[-1].set_xlabel("minutes")
    figure.suptitle(f"Laneway: {tasks:,} tasks in {minutes[-1]:.0f} minutes", fontsize=12)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])

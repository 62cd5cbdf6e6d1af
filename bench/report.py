"""Writes what was measured: a table in Markdown, everything in JSON, and a bar chart for each figure in SVG."""

import html
import json
import statistics

# Figure, unit, and whether less is better.
FIGURES = [
    ("submit, one by one", "/s", False), ("submit, 16 clients", "/s", False), ("submit, bulk", "/s", False),
    ("submit, bulk by SQL", "/s", False),
    *((f"drain, {word}, {n} workers", "/s", False) for word in ("one at a time", "batches of 64") for n in (4, 16, 64)),
    *((f"{what}, {word}", "/s", False) for word in ("one at a time", "batches of 64")
      for what in ("drain beside 4 apps by SQL", "commits of 4 apps by SQL beside a drain")),
    *((f"a commit beside a drain, {word}, p99", "µs", True) for word in ("one at a time", "batches of 64")),
    ("submit while draining, batches", "/s", False), ("submit to start, p50", "µs", True), ("submit to start, p99", "µs", True),
    ("submit to result, p50", "µs", True), ("SQL commit to start, p50", "µs", True), ("SQL commit to start, p99", "µs", True),
    ("makespan", "x ideal", True), ("urgent, p99", "µs", True), ("memory", "MiB", True), ("idle, 64 workers", "% of a core", True),
]
# The first table: a column's heading, and the figures that stand in it.
SUMMARY = [
    ("submit, one by one /s", ["submit, one by one"]), ("submit, 16 clients /s", ["submit, 16 clients"]),
    ("submit, bulk /s", ["submit, bulk"]),
    ("drain, one at a time /s", ["drain, one at a time, 4 workers"]), ("drain, batched /s", ["drain, batches of 64, 4 workers"]),
    ("submit while draining /s", ["submit while draining, batches"]),
    ("drain beside 4 apps by SQL /s", ["drain beside 4 apps by SQL, batches of 64"]),
    ("submit to start p50, p99 µs", ["submit to start, p50", "submit to start, p99"]), ("makespan / ideal", ["makespan"]),
    ("urgent p99 µs", ["urgent, p99"]), ("MiB, many queued", ["memory"]), ("idle, % of a core", ["idle, 64 workers"]),
]
SYNCED = "synced before the answer"


def median(values):
    return statistics.median(values)


def number(value):
    if value >= 10_000:
        return f"{value / 1000:.0f}k"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def spread(values):
    """How far the runs lie apart, over the median."""
    return (max(values) - min(values)) / median(values) if median(values) else 0


def ratio_to_best(figures, figure, less, durability):
    """Laneway's figure over the best other one of the same durability: over 1 is better. None without both."""
    ours = figures.get(("Laneway", durability), {}).get(figure)
    theirs = [(median(values[figure]), system) for (system, other), values in figures.items()
              if other == durability and system != "Laneway" and not system.startswith("limit") and figure in values]
    if not ours or not theirs:
        return None
    best, system = min(theirs) if less else max(theirs)
    ratio = best / median(ours) if less else median(ours) / best
    return ratio, system


def write(folder, figures, about):
    folder.mkdir(parents=True, exist_ok=True)
    names = [figure for figure in FIGURES if any(figure[0] in values for values in figures.values())]
    everything = [{"system": system, "durability": durability,
                   "figures": {name: {"median": median(runs), "runs": runs} for name, runs in values.items()}}
                  for (system, durability), values in figures.items()]
    (folder / "report.json").write_text(json.dumps({"about": about, "systems": everything}, indent=1) + "\n")
    (folder / "report.md").write_text(markdown(figures, names, about))
    for name, unit, less in names:
        file = name.replace(", ", "-").replace(" ", "-") + ".svg"
        (folder / file).write_text(chart(figures, name, unit, less))


def markdown(figures, names, about):
    lines = [f"Measured on {about['date']}, {about['cpus']} cores, Linux {about['kernel']}; median of {about['runs']} runs, in brackets how far "
             "the runs lie apart."]
    if about["quick"]:
        lines.append("\n**A quick run: the figures mean little.**")
    lines += ["", *summary(figures)]
    for name, unit, less in names:
        rows = sorted(((median(values[name]), system, durability, values[name]) for (system, durability), values in figures.items()
                       if name in values), reverse=not less)
        lines += ["", f"### {name[0].upper() + name[1:]} ({unit}{', less is better' if less else ''})", "", "| system | durability | |",
                  "|---|---|--:|"]
        for value, system, durability, runs in rows:
            lines.append(f"| {shown(system)} | {durability} | {number(value)} ({spread(runs):.0%}) |")
        found = ratio_to_best(figures, name, less, SYNCED)
        if found:
            ratio, system = found
            lines.append(f"\nLaneway over the best other that syncs, {system}: {ratio:.2f}.")
    return "\n".join(lines) + "\n"


def summary(figures):
    """One row for each system, with the medians of the main figures. Empty columns are left out."""
    columns = [(heading, names) for heading, names in SUMMARY if any(name in values for values in figures.values() for name in names)]
    lines = [f"| system | durability | {' | '.join(heading for heading, _ in columns)} |", f"|---|---|{'--:|' * len(columns)}"]
    for (system, durability), values in figures.items():
        cells = [", ".join(number(median(values[name])) for name in names if name in values) for _, names in columns]
        lines.append(f"| {shown(system)} | {durability} | {' | '.join(cells)} |")
    return lines


def shown(system):
    return f"**{system}**" if system == "Laneway" else system


def chart(figures, name, unit, less):
    rows = sorted(((median(values[name]), system, durability) for (system, durability), values in figures.items() if name in values),
                  reverse=not less)
    top = max(value for value, _, _ in rows) or 1
    height, left, width = 24, 330, 420
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{len(rows) * height + 40}" '
             'font-family="sans-serif" font-size="13">',
             f'<text x="8" y="20" font-weight="bold">{html.escape(name)}, {html.escape(unit)}</text>']
    for i, (value, system, durability) in enumerate(rows):
        y = 32 + i * height
        colour = "#c2571a" if system == "Laneway" else "#b9bec6" if system.startswith("limit") else "#5b7fa6"
        label = html.escape(f"{system} ({durability})")
        parts.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{label}</text>'
                     f'<rect x="{left}" y="{y + 3}" width="{max(1, width * value / top):.0f}" height="{height - 6}" fill="{colour}"/>'
                     f'<text x="{left + max(1, width * value / top) + 6:.0f}" y="{y + 15}">{number(value)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"

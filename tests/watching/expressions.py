"""What the alert rules and the board for Grafana ask Prometheus, one JSON object for each expression: where it stands, the series it
selects with the labels that they must have, and the labels that its result is told by. Usage: expressions.py ALERTS GRAFANA."""

import json, re, sys

import promql_parser as promql
import yaml


def rules(path):
    with open(path) as file:
        groups = yaml.safe_load(file)["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        texts = " ".join(rule["annotations"].values())
        yield rule["alert"], rule["expr"], re.findall(r"\$labels\.(\w+)", texts)


def targets(value, title=""):
    if isinstance(value, dict):
        title = value.get("title", title)
        if "expr" in value:
            yield title, value["expr"], re.findall(r"{{\s*(\w+)\s*}}", value.get("legendFormat", ""))
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from targets(inner, title)


def tell(where, expression, labels):
    series = []

    def visit(node):
        modifier = getattr(node, "modifier", None)
        # Of an aggregation, and of an operation between two.
        grouping = getattr(modifier, "matching", None) or modifier
        labels.extend(getattr(grouping, "labels", None) or [])
        if isinstance(node, promql.VectorSelector):
            matchers = [[m.name, str(m.op), m.value] for m in node.matchers.matchers]
            series.append({"name": node.name, "matchers": matchers})

    promql.walk(promql.parse(expression), visit)
    print(json.dumps({"where": where, "expression": expression, "series": series, "labels": labels}))


for rule in rules(sys.argv[1]):
    tell(*rule)
with open(sys.argv[2]) as board:
    for target in targets(json.load(board)):
        tell(*target)

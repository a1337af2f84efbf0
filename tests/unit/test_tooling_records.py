"""Our own data are records: JSON of any form has one home, and the product hardly reads anything by a string."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOME = "include/scorecard_backfill/foreign.py"

AT_MOST = 7
"""Reads of our own data by a string in plugins/; it may only become smaller."""

AIRFLOWS = frozenset({"context", "get_current_context", "kwargs", "router"})
"""Airflow's context, what it hands back to a resumed task, FastAPI's router: everywhere."""

HTTP = "an answer over HTTP, by which the command knows Airflow and the page's routes"
CLICKHOUSE, KUBERNETES, CONNECTION, HITL, MATCH = (
    "a row of ClickHouse's answer",
    "an object or answer of the Kubernetes API",
    "the extras of an Airflow Connection, which people write",
    "Airflow's record of a person's answer",
    "a group of a regular expression",
)

FOREIGN: Mapping[str, Mapping[str, str]] = {
    "cli/client.py": dict.fromkeys(("_json", "json", "headers", "errors", "item"), HTTP),
    "cli/commands.py": dict.fromkeys(("answer", "dag", "shown"), HTTP),
    "deleting/sweep.py": {"event": HITL},
    "api/read.py": {"responded_by": HITL},
    "hooks/clickhouse.py": {"row": CLICKHOUSE, "rows": CLICKHOUSE, "values": CLICKHOUSE},
    "hooks/clickhouse_hosts.py": {"row": CLICKHOUSE},
    "hooks/clickhouse_spool.py": {"row": CLICKHOUSE},
    "hooks/internal_jobs.py": {"extra": CONNECTION, "methods_by_name": "gRPC's descriptor of a service"},
    "hooks/kubernetes.py": {
        "answer": KUBERNETES,
        "body": KUBERNETES,
        "found": KUBERNETES,
        "manifest": KUBERNETES,
        "asked": KUBERNETES,
    },
    "hooks/port_forward.py": {
        "as_json": KUBERNETES,
        "container": KUBERNETES,
        "found": KUBERNETES,
        "match": MATCH,
        "one": KUBERNETES,
        "pod": KUBERNETES,
        "service": KUBERNETES,
    },
    "hooks/secrets.py": {"extra": CONNECTION, "match": MATCH},
    "hooks/temporal/codec.py": {"_headers": "headers of an HTTP request"},
    "hooks/temporal/connection.py": {"extra": CONNECTION, "options": "keyword arguments of Temporal's client"},
    "hooks/temporal/facts.py": {"metadata": "a payload of Temporal", "v": "a failure of Temporal"},
    "kit/refusal.py": dict.fromkeys(("event", "get_config"), "structlog's configuration and an event of its"),
    "notify/channels.py": {"extra": CONNECTION, "headers": "headers of an HTTP request"},
    "notify/tell.py": {
        "conf": "Airflow's own configuration",
        "kept": "what the asset state holds of any release",
    },
    "operators/question.py": {"event": HITL, "user": HITL},
    "operators/checks/clickhouse.py": {"row": CLICKHOUSE},
    "operators/checks/kubernetes.py": dict.fromkeys(("answer", "c", "cronjob", "manifest", "spec"), KUBERNETES),
    "operators/checks/table.py": {"data": KUBERNETES, "headers": "headers of an HTTP answer", "row": CLICKHOUSE},
    "reindexing/jobmaker.py": dict.fromkeys(("found", "j", "job", "made", "others"), KUBERNETES),
    "reindexing/window_job.py": dict.fromkeys(("job", "newest"), KUBERNETES),
    "slots.py": {"job": KUBERNETES},
    "snapshots.py": {"r": CLICKHOUSE, "row": CLICKHOUSE},
    "triggers/job.py": dict.fromkeys(("job", "pod", "thing"), KUBERNETES),
}
"""Names by module that hold what others have made, and what that is."""


def root_of(node: ast.expr) -> str:
    """Return the name that a chain of subscripts, calls and attributes begins with: the object that is read."""
    if isinstance(node, ast.Subscript):
        return root_of(node.value)
    if isinstance(node, ast.BoolOp):
        return root_of(node.values[0])
    if isinstance(node, ast.Await):
        return root_of(node.value)
    if isinstance(node, ast.Call):
        of_mapping = isinstance(node.func, ast.Attribute) and node.func.attr in ("get", "pop", "setdefault")
        return root_of(node.func.value) if of_mapping and isinstance(node.func, ast.Attribute) else root_of(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else type(node).__name__


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def reads(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield name and line of every access by a string; types such as Literal["x"] begin with a capital letter."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_text(node.slice):
            name = root_of(node.value)
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args and is_text(node.args[0])
        ):
            if node.func.attr not in ("get", "pop", "setdefault"):
                continue
            name = root_of(node.func.value)
        else:
            continue
        if not name[:1].isupper():
            yield name, node.lineno


def sources(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def test_our_own_data_are_hardly_read_by_a_string() -> None:
    own, used = [], defaultdict(set)
    for path, tree in sources("plugins/backfill"):
        module = path.removeprefix("plugins/backfill/")
        for name, line in reads(tree):
            if name in FOREIGN.get(module, {}):
                used[module].add(name)
            elif name not in AIRFLOWS:
                own.append(f"{path}:{line}: {name}")
    assert len(own) <= AT_MOST, "\n".join(own)
    assert {m: set(names) for m, names in FOREIGN.items()} == used, "a name of FOREIGN is not used any more"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("report['complete']", ["report"]),
        ("(run.get('sources') or {}).get('max_parallel')", ["run", "run"]),
        ("self.given['cluster']", ["given"]),
        ("frozen['terms']['windows']", ["frozen", "frozen"]),
        ("(await look()).pop('x')", ["look"]),
        ("state: Literal['a', 'b'] = fields[NAME]", []),
        ("rows[0]; text.format('x'); found.get(KEY)", []),
    ],
)
def test_what_counts_as_a_read_by_a_string(code: str, expected: list[str]) -> None:
    tree = ast.parse(f"async def f():\n    {code}")
    assert sorted(name for name, _ in reads(tree)) == expected


def test_json_of_any_form_has_a_name_in_one_place_only() -> None:
    found = []
    for path, tree in sources("include", "plugins", "dags"):
        for node in ast.walk(tree):
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            if value is not None and ast.unparse(value) in ("dict[str, Any]", "Mapping[str, Any]"):
                found.append(path)
    assert set(found) == {HOME}, found

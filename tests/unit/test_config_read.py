"""No setting without an effect: each field of a cluster's configuration is read by what works with it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import pytest

from include.scorecard_backfill.config import ClusterConfig, HealthConfig
from include.scorecard_backfill.config.fields import Frozen
from include.scorecard_backfill.verdicts.health import FREE_DISK, MEASURES

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "include" / "scorecard_backfill" / "config"

READ_OTHERWISE: Mapping[str, str] = {
    "ScheduleConfig.allow_scheduled_cleanup": "loading asks it: a schedule that deletes is refused without it",
    "HealthConfig.unfinished_mutations": "verdicts/health.py asks by the names of MEASURES",
    "HealthConfig.active_parts": "verdicts/health.py asks by the names of MEASURES",
    "HealthConfig.replication_queue": "verdicts/health.py asks by the names of MEASURES",
    "HealthConfig.running_workflows": "verdicts/health.py asks by the names of MEASURES",
}


def models(kind: object = ClusterConfig) -> Iterator[type[Frozen]]:
    """Yield a model and every model within it."""
    if isinstance(kind, type) and issubclass(kind, Frozen):
        yield kind
        for field in kind.model_fields.values():
            yield from models(field.annotation)
    for argument in get_args(kind):
        yield from models(argument)


FIELDS = sorted({f"{model.__name__}.{name}" for model in models() for name in model.model_fields})


def names_in(tree: ast.AST) -> set[str]:
    """Return the attributes and names that a piece of code reads."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
    return found


def read_names(outside: list[ast.Module], within: list[ast.Module]) -> set[str]:
    """Return the names that are read outside of config/, or by a function of config/ whose own name is.

    A validator has a name that nobody reads: that a value is checked gives it no effect.
    """
    read = {name for tree in outside for name in names_in(tree)}
    functions = {
        node.name: names_in(node)
        for tree in within
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    while more := {n for name, names in functions.items() if name in read for n in names} - read:
        read |= more
    return read


def parsed() -> tuple[list[ast.Module], list[ast.Module]]:
    paths = [path for folder in ("include", "plugins", "dags") for path in sorted((ROOT / folder).rglob("*.py"))]
    trees = {path: ast.parse(path.read_text()) for path in paths}
    return (
        [tree for path, tree in trees.items() if CONFIG not in path.parents],
        [tree for path, tree in trees.items() if CONFIG in path.parents],
    )


def test_each_field_is_read() -> None:
    read = read_names(*parsed())
    dead = [field for field in FIELDS if field.partition(".")[2] not in read]
    assert sorted(dead) == sorted(READ_OTHERWISE), f"{len(FIELDS)} fields"
    assert len(FIELDS) > 100


def test_measures_are_the_fields_that_are_asked_by_name() -> None:
    by_name = {name.partition(".")[2] for name in READ_OTHERWISE if name.startswith("HealthConfig.")}
    assert by_name <= set(MEASURES)
    assert set(MEASURES) - {FREE_DISK} <= set(HealthConfig.model_fields)


@pytest.mark.parametrize(
    ("outside", "within", "expected"),
    [
        ("print(config.limits.rows)", "", True),
        ("config.rows = 1", "", False),
        ("config.allowed(5)", "def allowed(self, n):\n    return self.rows > n", True),
        ("config.share", "def allowed(self, n):\n    return self.rows > n", False),
        ("config.share", "def share(self):\n    return self._half()\ndef _half(self):\n    return self.rows", True),
    ],
)
def test_what_counts_as_read(outside: str, within: str, expected: bool) -> None:
    assert ("rows" in read_names([ast.parse(outside)], [ast.parse(within)])) is expected

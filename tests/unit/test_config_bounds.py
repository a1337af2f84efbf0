"""Every field of a cluster file: a value of a wrong type or out of its bounds is refused with file and dotted path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import ClusterError, load_clusters

SCHEMA = ClusterConfig.model_json_schema()
Path_ = tuple[str, ...]


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema behind a reference, and the one that is not null of several."""
    if "$ref" in schema:
        return resolve(SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[-1]])
    for branch in schema.get("anyOf", []):
        if branch.get("type") != "null":
            return resolve(branch)
    return schema


def leaves(schema: dict[str, Any], at: Path_ = ()) -> Iterator[tuple[Path_, dict[str, Any]]]:
    for name, field in schema["properties"].items():
        found = resolve(field)
        if found.get("type") == "object" and "properties" in found:
            yield from leaves(found, (*at, name))
        else:
            yield (*at, name), found


LEAVES = [(at, found) for at, found in leaves(SCHEMA) if at != ("name",)]


def out_of_range() -> Iterator[tuple[Path_, float]]:
    for at, schema in LEAVES:
        step = 1 if schema.get("type") == "integer" else 0.001
        if "minimum" in schema:
            yield at, schema["minimum"] - step
        if "exclusiveMinimum" in schema:
            yield at, schema["exclusiveMinimum"]
        if "maximum" in schema:
            yield at, schema["maximum"] + step


def wrong_types() -> Iterator[tuple[Path_, Any]]:
    wrong: dict[str, list[Any]] = {
        "integer": ["10", 1.5, True, [1]],
        "number": ["10", True, float("nan"), {"a": 1}],
        "string": [3, True, ["a"]],
        "boolean": ["true", 1, 0],
        "array": ["scorecard", 3, {"a": 1}],
        "object": [["a"], "a", 3],
    }
    for at, schema in LEAVES:
        for value in wrong[schema["type"]]:
            yield at, value


def refused(folder: Path, at: Path_, value: Any) -> str:
    content: Any = value
    for part in reversed(at):
        content = {part: content}
    (folder / "demo.yaml").write_text(yaml.safe_dump({"name": "demo", **content}))
    (loaded,) = load_clusters(folder)
    assert isinstance(loaded, ClusterError), f"{'.'.join(at)} = {value!r} was taken"
    return str(loaded)


def test_the_walk_finds_every_section() -> None:
    assert {at[0] for at, _ in LEAVES} == set(ClusterConfig.model_fields) - {"name"}
    assert len(LEAVES) > 70
    assert len(list(out_of_range())) > 70


@pytest.mark.parametrize(("at", "value"), list(out_of_range()), ids=str)
def test_a_number_out_of_its_bounds_is_refused(tmp_path: Path, at: Path_, value: float) -> None:
    message = refused(tmp_path, at, value)
    assert f"demo.yaml: {'.'.join(at)}: {value!r}: input should be " in message


@pytest.mark.parametrize(
    ("at", "values"), [(at, [v for a, v in wrong_types() if a == at]) for at, _ in LEAVES], ids=str
)
def test_a_value_of_another_type_is_refused_and_not_converted(tmp_path: Path, at: Path_, values: list[Any]) -> None:
    for value in values:
        assert f"demo.yaml: {'.'.join(at)}: " in refused(tmp_path, at, value)


def test_every_number_has_both_bounds_and_every_field_a_description() -> None:
    for at, schema in LEAVES:
        if schema.get("type") in ("integer", "number"):
            assert "maximum" in schema, at
            assert "minimum" in schema or "exclusiveMinimum" in schema, at
    for model in (SCHEMA, *SCHEMA["$defs"].values()):
        for name, field in model.get("properties", {}).items():
            assert field.get("description"), (model["title"], name)


@pytest.mark.parametrize("at", [at for at, schema in LEAVES if schema.get("type") in ("integer", "number")], ids=str)
def test_the_bounds_themselves_and_the_default_are_allowed(tmp_path: Path, at: Path_) -> None:
    schema = dict(LEAVES)[at]
    values = [schema.get("minimum"), schema["maximum"]]
    for value in (v for v in values if v is not None):
        content: Any = value
        for part in reversed(at):
            content = {part: content}
        (tmp_path / "demo.yaml").write_text(yaml.safe_dump({"name": "demo", **content}))
        (loaded,) = load_clusters(tmp_path)
        # The only thing that may still be wrong is an order between two fields, which names no bound.
        assert isinstance(loaded, ClusterConfig) or "input should be" not in str(loaded), str(loaded)

"""Reading cluster files: what is wrong is named with file, field, value and line, and a bad file harms no other."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config import fields as config_fields
from include.scorecard_backfill.config import load as config_load
from include.scorecard_backfill.config.load import (
    DEFAULTS_FILE,
    ClusterError,
    ConfigFileError,
    load_clusters,
    merge,
    read_mapping,
)


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def error_of(folder: Path, text: str) -> str:
    """The message for a file demo.yaml of this text."""
    (loaded,) = load_clusters(write(folder, demo=text))
    assert isinstance(loaded, ClusterError), loaded
    assert loaded.name == "demo"
    return str(loaded)


def cluster_of(folder: Path) -> ClusterConfig:
    (loaded,) = load_clusters(folder)
    assert isinstance(loaded, ClusterConfig), str(loaded)
    return loaded


@pytest.mark.parametrize("module", [config_load, config_fields])
def test_doctests_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_a_name_alone_is_a_whole_cluster(tmp_path: Path) -> None:
    assert cluster_of(write(tmp_path, demo="name: demo\n")) == ClusterConfig(name="demo")


def test_own_values_come_over_defaults_and_lists_are_replaced(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        defaults="tags: [a, b]\nadmission: {max_parallel: 3, max_failures: 7}\n",
        demo="name: demo\ntags: [c]\nadmission: {max_parallel: 5}\n",
    )
    cluster = cluster_of(folder)
    assert cluster.tags == ("c",)
    assert (cluster.admission.max_parallel, cluster.admission.max_failures) == (5, 7)


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("admission: {max_paralel: 3}", "demo.yaml: admission.max_paralel", "did you mean admission.max_parallel?"),
        ("max_parallel: 3", "demo.yaml: max_parallel", "it belongs to admission.max_parallel"),
        ("zzz: 3", "demo.yaml: zzz", "valid here: admission, approve, clickhouse"),
        ("admission: {health: {active_part: null}}", "demo.yaml: admission.health.active_part", "active_parts?"),
        ("clickhouse: {delete: {xx: 1}}", "demo.yaml: clickhouse.delete.xx", "valid here: drop_partition"),
        ("clickhouse: {verify_bands: {score: {min: 0.5}}}", "clickhouse.verify_bands.score.min", "min_ratio"),
        ("clickhouse: {must_be_zero: [{column: a, equals: 1, sql: b}]}", "clickhouse.must_be_zero.0.sql", "valid here"),
    ],
)
def test_an_unknown_key_is_named_with_the_closest_valid_one(tmp_path: Path, text: str, where: str, hint: str) -> None:
    message = error_of(tmp_path, f"name: demo\n{text}\n")
    assert where in message
    assert hint in message


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("owner: a\nowner: b", "demo.yaml: owner (line 3): is there twice, first in line 2"),
        ("admission:\n  max_parallel: 3\n  max_parallel: 3", "demo.yaml: admission.max_parallel (line 4)"),
        ("admission: {}\nadmission: {}", "demo.yaml: admission (line 3)"),
    ],
)
def test_a_key_that_is_there_twice_is_named_with_both_lines(tmp_path: Path, text: str, where: str) -> None:
    assert where in error_of(tmp_path, f"name: demo\n{text}\n")


def test_every_problem_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    message = error_of(
        tmp_path, "name: demo\nowner: 3\nadmission: {max_parallel: 0, max_failures: '5'}\ntimezone: Mars\n"
    )
    for field in ("owner", "admission.max_parallel", "admission.max_failures", "timezone"):
        assert sum(line.startswith(f"demo.yaml: {field}: ") for line in message.splitlines()) == 1, message


def test_a_fault_of_the_defaults_names_the_defaults_for_every_cluster(tmp_path: Path) -> None:
    folder = write(tmp_path, defaults="admission: {max_parallel: 0}\n", one="name: one\n", two="name: two\n")
    errors = load_clusters(folder)
    assert [item.name for item in errors] == ["one", "two"]
    assert all(f"{DEFAULTS_FILE}: admission.max_parallel: 0" in str(item) for item in errors)
    write(tmp_path, two="name: two\nadmission: {max_parallel: 2}\n")
    assert isinstance(load_clusters(folder)[1], ClusterConfig)


def test_defaults_that_are_no_yaml_are_an_error_of_every_cluster(tmp_path: Path) -> None:
    folder = write(tmp_path, defaults="a: [", one="name: one\n", two="name: two\n")
    assert [(item.name, DEFAULTS_FILE in str(item)) for item in load_clusters(folder)] == [("one", True), ("two", True)]


def test_a_bad_file_does_not_take_the_others_down(tmp_path: Path) -> None:
    folder = write(tmp_path, bad="name: [", good="name: good\n", worse="- 1\n")
    assert [type(item) for item in load_clusters(folder)] == [ClusterError, ClusterConfig, ClusterError]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "name is missing; add `name: demo`"),
        ("owner: a\n", "name is missing"),
        ("name: other\n", "name is 'other', the file says 'demo'"),
        ("name: 3\n", "name is 3"),
        ("- name: demo\n", "holds no mapping at its top"),
        ("just text\n", "holds no mapping at its top"),
        ("name: demo\n---\nname: demo\n", "not valid YAML"),
        ("name: demo\nowner: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("name: demo\n\towner: a\n", "not valid YAML"),
        ("name: demo\nadmission: null\n", "admission: None"),
        ("name: demo\nkubernetes: 3\n", "kubernetes: 3"),
        ("name: demo\n1: a\n", "key that is not plain text"),
        ("name: demo\nyes: a\n", "key that is not plain text"),
        ("name: demo\n<<: {owner: a}\n", "key that is not plain text"),
        ("name: demo\nwindows: &w {mode: auto}\nschedule: *w\n", "schedule (line 2): is an alias"),
        (
            "name: demo\nadmission: {max_parallel: 010}\n",
            "admission.max_parallel (line 2): 010 is not read as it looks",
        ),
        ("name: demo\nadmission: {max_parallel: 1:30}\n", "1:30 is not read as it looks"),
        ("name: demo\nclickhouse: {poll: 2026-02-30}\n", "not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, part: str) -> None:
    message = error_of(tmp_path, text)
    assert part in message
    assert "demo.yaml" in message


@pytest.mark.parametrize(
    "text",
    [
        "clickhouse: {password: hunter2}",
        "clickhouse: {pasword: hunter2}",
        "admin_password: hunter2",
        "temporal: {api-key: hunter2}",
        "kubernetes: {extra_env: {DB_TOKEN: hunter2}}",
        "kubernetes: {extra_env: {URL: 'https://admin:hunter2@example.com/'}}",
        "owner: https://admin:hunter2@example.com",
    ],
)
def test_a_secret_is_refused_and_its_value_never_shown(tmp_path: Path, text: str) -> None:
    message = error_of(tmp_path, f"name: demo\n{text}\n")
    assert "hunter2" not in message
    assert "conn_id" in message


def test_broken_yaml_does_not_show_the_text_around_it(tmp_path: Path) -> None:
    message = error_of(tmp_path, "name: demo\npassword: hunter2 : x: [\n")
    assert "hunter2" not in message
    assert "line 2" in message


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_bytes(b"name: demo\nowner: \xff\n")
    (loaded,) = load_clusters(tmp_path)
    assert "cannot be read" in str(loaded)


def test_the_other_ending_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "demo.yml").write_text("name: demo\n")
    (tmp_path / "README.md").write_text("# no cluster\n")
    (loaded,) = load_clusters(tmp_path)
    assert isinstance(loaded, ClusterError)
    assert "rename it to demo.yaml" in str(loaded)


def test_no_folder_and_an_empty_one_say_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_clusters(tmp_path / "missing")
    write(tmp_path, defaults="owner: a\n")
    with pytest.raises(FileNotFoundError, match="no cluster file"):
        load_clusters(tmp_path)


def test_deep_nesting_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text("a: " + "[" * 700 + "]" * 700)
    with pytest.raises(ConfigFileError, match=r"demo\.yaml"):
        read_mapping(path)


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    message = error_of(tmp_path, f"name: demo\ntimezone: {'x' * 5_000}\n")
    assert len(message) < 400


TREES = st.recursive(
    st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


@given(MAPPINGS, MAPPINGS)
def test_merge_keeps_what_is_not_overruled(base: dict[str, Any], over: dict[str, Any]) -> None:
    merged = merge(base, over)
    assert merge(base, {}) == base
    assert merge({}, over) == over
    assert merge(merged, over) == merged
    assert set(merged) == set(base) | set(over)
    assert all(merged[key] == value for key, value in over.items() if not isinstance(value, dict))
    assert all(merged[key] == value for key, value in base.items() if key not in over)

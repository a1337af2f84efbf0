"""What is said of a cluster file that cannot be used, whole: file, field, line, value and what would be right."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.clickhouse import ClickHouseConfig
from include.scorecard_backfill.config.load import (
    ClusterError,
    ClusterFolder,
    ConfigFileError,
    load_clusters,
    read_mapping,
)
from include.scorecard_backfill.config.rules import can_tell_old_rows, census_part, condition_of, judging, told_tables
from include.scorecard_backfill.proof import Band
from include.scorecard_backfill.sql.census import Written
from tests.kit.build import TABLE, database, day, table, window


def said(folder: Path, text: str, name: str = "demo.yaml", defaults: str = "") -> list[str]:
    (folder / name).write_text(text, encoding="utf-8")
    if defaults:
        (folder / "defaults.yaml").write_text(defaults, encoding="utf-8")
    (loaded,) = load_clusters(folder)
    assert isinstance(loaded, ClusterError), loaded
    assert (loaded.file, loaded.name) == (folder / name, "demo")
    assert str(loaded) == loaded.message
    return loaded.message.splitlines()


HINT = "put it into {} and remove it here. Its value is not shown."
ANY, OF = "an Airflow connection (conn_id)", "the Airflow connection of {}.conn_id"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ["demo.yaml: name is missing; add `name: demo`."]),
        ("name: other", ["demo.yaml: name is 'other', the file says 'demo'; make them the same."]),
        ("- a", ["demo.yaml: holds no mapping at its top; write fields as `name: value`."]),
        ("name: demo\nname: demo", ["demo.yaml: name (line 2): is there twice, first in line 1; keep one of them."]),
        ("name: demo\n1: a", ["demo.yaml: top (line 2): has a key that is not plain text; quote it."]),
        ("name: demo\nwindows: {2: a}", ["demo.yaml: windows (line 2): has a key that is not plain text; quote it."]),
        ("name: demo\n? [a]\n: b", ["demo.yaml: top (line 2): has a key that is not plain text; quote it."]),
        ("name: demo\ntags: [&a x, *a]", ["demo.yaml: tags.1 (line 2): is an alias (*name); write the value out."]),
        ("name: demo\nadmission: {max_parallel: 010}",
         ["demo.yaml: admission.max_parallel (line 2): 010 is not read as it looks; write a plain decimal number, or"
          " quote a text."]),
        ("name: demo\npassword: x", [f"demo.yaml: password (line 2): looks like a secret; {HINT.format(ANY)}"]),
        ("name: demo\nclickhouse:\n  mode: x\n  api-key: y",
         [f"demo.yaml: clickhouse.api-key (line 4): looks like a secret; {HINT.format(OF.format('clickhouse'))}"]),
        ("name: demo\nkubernetes: {Secret: x}",
         [f"demo.yaml: kubernetes.Secret (line 2): looks like a secret; {HINT.format(OF.format('kubernetes'))}"]),
        ("name: demo\ntemporal: {x: 'https://a:b@c'}",
         [f"demo.yaml: temporal.x (line 2): holds a URL with a password; {HINT.format(OF.format('temporal'))}"]),
        ("name: demo\ntags: ['https://a:b@c']",
         [f"demo.yaml: tags.0 (line 2): holds a URL with a password; {HINT.format(ANY)}"]),
        ("name: demo\nowner: 3", ["demo.yaml: owner: 3: input should be a valid string."]),
        ("name: demo\nadmission: {max_paralel: 3}",
         ["demo.yaml: admission.max_paralel: unknown key (value 3); did you mean admission.max_parallel?"]),
        ("name: demo\nmax_failures: 3",
         ["demo.yaml: max_failures: unknown key (value 3); it belongs to admission.max_failures."]),
        ("name: demo\ncron: x",
         ["demo.yaml: cron: unknown key (value 'x'); it belongs to schedule.cron."]),
        ("name: demo\nclickhouse: {must_be_zero: [{equals: 1}]}",
         ["demo.yaml: clickhouse.must_be_zero.0.column: is missing; add it."]),
        ("name: demo\nschedule: {all_customers: false}",
         ["demo.yaml: schedule: nobody is chosen; name customers, set all_customers: true, or cron: null for no"
          " schedule."]),
        (f"name: demo\nowner: [{'x' * 100}]",
         [f"demo.yaml: owner: ['{'x' * 78}...: input should be a valid string."]),
    ],
)  # fmt: skip
def test_each_fault_of_a_file_has_its_sentence(tmp_path: Path, text: str, lines: list[str]) -> None:
    assert said(tmp_path, text) == lines


def test_a_fault_of_the_defaults_is_named_there_and_one_beside_it_here(tmp_path: Path) -> None:
    lines = said(
        tmp_path, "name: demo\nadmission: {max_failures: 0}", defaults="admission: {max_parallel: 0}\nowner: 3\n"
    )
    assert [line.partition(":")[0] for line in lines] == ["defaults.yaml", "defaults.yaml", "demo.yaml"]


def test_a_list_of_the_file_is_its_own(tmp_path: Path) -> None:
    (line,) = said(tmp_path, "name: demo\ntags: [a, 3]")
    assert line == "demo.yaml: tags.1: 3: input should be a valid string."


def test_the_other_ending(tmp_path: Path) -> None:
    assert said(tmp_path, "name: demo", "demo.yml") == ["demo.yml: the ending is '.yml'; rename it to demo.yaml."]


def test_broken_yaml_is_told_with_its_line_and_without_its_text(tmp_path: Path) -> None:
    (line,) = said(tmp_path, "name: demo\n\tpassword: hunter2")
    assert line == ("demo.yaml: is not valid YAML: found character '\\t' that cannot start any token (line 2).")
    (tmp_path / "demo.yaml").write_text("name: demo\nday: 2026-02-30\n")
    (loaded,) = load_clusters(tmp_path)
    assert str(loaded).startswith("demo.yaml: is not valid YAML: day is out of range for month")


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"^gone\.yaml: cannot be read: .*No such file") as refused:
        read_mapping(tmp_path / "gone.yaml")
    assert refused.value.problems == [str(refused.value)]
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_mapping(tmp_path / "empty.yaml") == {}


def test_defaults_that_cannot_be_read_are_the_fault_of_every_cluster(tmp_path: Path) -> None:
    (tmp_path / "defaults.yaml").write_text("- a\n")
    (tmp_path / "demo.yaml").write_text("name: demo\n")
    assert load_clusters(tmp_path) == (
        ClusterError(tmp_path / "defaults.yaml", "demo",
                     "defaults.yaml: holds no mapping at its top; write fields as `name: value`."),
    )  # fmt: skip


def test_a_cluster_is_found_by_its_name_with_every_file_of_it(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml", "b.yml"):
        (tmp_path / name).write_text(f"name: {name[0]}\n")
    folder = ClusterFolder(tmp_path)
    (one,) = folder.named("a")
    assert isinstance(one, ClusterConfig)
    assert one is folder.all()[0]
    assert [type(item) for item in folder.named("b")] == [ClusterConfig, ClusterError]
    assert folder.named("c") == ()
    assert [type(item) for item in folder.all()] == [ClusterConfig, ClusterConfig, ClusterError]


def test_a_folder_that_cannot_serve_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as refused:
        ClusterFolder(tmp_path / "gone")
    assert str(refused.value) == (
        f"{tmp_path / 'gone'}: no such folder of cluster files; give one that holds <cluster>.yaml"
    )
    with pytest.raises(FileNotFoundError) as refused:
        ClusterFolder(tmp_path)
    assert str(refused.value) == f"{tmp_path}: no cluster file in it; add one as <cluster>.yaml"


# -- what the file says about rows ----------------------------------------------------------------------------------

SINCE = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUSE = ClickHouseConfig.model_validate(
    {
        "written_columns": {"scorecard": {"column": "version", "unit": "seconds"}},
        "clock_skew_seconds": 60,
        "verify_tolerance_share": 0.25,
        "verify_tolerance_rows": 7,
        "verify_small_rows": 9,
        "stable_ids": False,
        "verify_band": {"min_ratio": 0.5, "max_ratio": 1.5},
        "verify_bands": {"score": {"min_ratio": 0.25, "max_ratio": 2.0}},
    }
)


def test_a_window_is_judged_by_what_its_clusters_file_says() -> None:
    rules = judging(HOUSE, window(before=(table({2: "ab"}),)))
    assert (rules.cleanup, rules.share, rules.rows, rules.small_rows, rules.stable_ids) == (True, 0.25, 7, 9, False)
    assert rules.band == {"scorecard": Band(0.5, 1.5), "score": Band(0.25, 2.0)}
    assert rules.owed == {TABLE: frozenset({day(2)})}
    assert judging(HOUSE, window(mode="reindex")).cleanup is False
    assert judging(ClickHouseConfig(), window()).stable_ids is True


def test_old_rows_are_told_where_every_table_of_a_window_has_a_column_for_it() -> None:
    both, one = window(), window(databases=(database().model_copy(update={"tables": ("scorecard",)}),))
    assert (can_tell_old_rows(HOUSE, both), can_tell_old_rows(HOUSE, one)) == (False, True)
    assert told_tables(HOUSE, both) == told_tables(HOUSE, one) == {"scorecard"}
    assert told_tables(ClickHouseConfig(), both) == frozenset()


def test_a_bounded_delete_takes_rows_of_before_its_bound_and_is_refused_where_none_is_known_to_be_old() -> None:
    assert condition_of(HOUSE, "scorecard", None) == condition_of(HOUSE, "score", None) == ""
    assert condition_of(HOUSE, "scorecard", SINCE.timestamp()) == f"`version` < {int(SINCE.timestamp()) - 60}"
    # 0 is a moment, and not no bound.
    assert condition_of(HOUSE, "scorecard", 0.0) == "`version` < -60"
    with pytest.raises(
        ValueError,
        match=r"^score: no written_columns is configured, so no row of it is known to be"
        r" old$",
    ):
        condition_of(HOUSE, "score", SINCE.timestamp())


def test_rows_written_since_a_moment_are_counted_apart_where_it_is_asked_for() -> None:
    (_, part), *_ = window().slices()
    assert census_part(HOUSE, "scorecard", part, ["scorecard"]).written is None
    counted = census_part(HOUSE, "scorecard", part, ["scorecard"], SINCE)
    assert counted.written == Written("version", SINCE - timedelta(seconds=60), "seconds")
    assert (counted.table, counted.part, counted.id_column) == ("scorecard", part, "scorecard_id")
    assert census_part(HOUSE, "score", part, ["score"], SINCE).written is None

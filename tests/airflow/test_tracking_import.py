"""The command that imports the old scripts' files: what it writes, says, refuses."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from backfill import tracking_import
from include.scorecard_backfill.tracking.history import History

EAST, WEST = "sandbox-east", "sandbox-west"
DAYS = ["--start", "2026-01-01", "--end", "2026-02-01"]
KEY = f"scorecard_backfill_history__{EAST}"


class Variables:
    """Airflow's command line with Variables of its own; keeps what it was asked."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.asked: list[list[str]] = []

    def __call__(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.asked.append(list(arguments))
        if arguments[:2] == ["variables", "get"]:
            key = arguments[2]
            if key not in self.values:
                return subprocess.CompletedProcess(arguments, 1, "", f"Variable {key} does not exist\n")
            return subprocess.CompletedProcess(arguments, 0, self.values[key], "")
        assert arguments[:2] == ["variables", "import"]
        for key, value in json.loads(Path(arguments[2]).read_text()).items():
            self.values[key] = json.dumps(value)
        return subprocess.CompletedProcess(arguments, 0, "", "")


@pytest.fixture
def variables() -> Variables:
    return Variables()


def write(folder: Path, name: str, document: Any) -> str:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def customers(history: History) -> dict[str, str]:
    return {entry.customer_id: entry.state for entry in history.entries}


def test_without_an_order_to_write_nothing_is_written(tmp_path: Path, capsys: Any, variables: Variables) -> None:
    file = write(tmp_path, f"{EAST}.json", {"acme": "completed", "globex": "deleted"})
    assert tracking_import.main([file, *DAYS], variables) == 0
    said = capsys.readouterr().out
    assert f"{EAST}: 1 open, 1 done" in said
    assert "open globex 2026-01-01..2026-02-01: rows may be deleted and not written again" in said
    assert "Nothing was written" in said
    assert variables.asked == []
    assert [path.name for path in tmp_path.iterdir()] == [f"{EAST}.json"]


def test_variables_are_merged_with_what_is_there(tmp_path: Path, variables: Variables) -> None:
    first = write(tmp_path, f"{EAST}.json", {"acme": "failed", "globex": "completed"})
    second = write(tmp_path, "later.json", {"cluster": EAST, "customers": {"acme": "completed", "hooli": "pending"}})
    assert tracking_import.main([first, *DAYS, "--set"], variables) == 0
    assert tracking_import.main([second, *DAYS, "--set"], variables) == 0
    once = variables.values[KEY]
    assert customers(History.from_json(once)) == {"acme": "done", "globex": "done", "hooli": "pending"}
    assert tracking_import.main([second, *DAYS, "--set"], variables) == 0
    assert variables.values[KEY] == once


def test_a_file_for_airflows_own_import(tmp_path: Path, variables: Variables) -> None:
    out = tmp_path / "history.json"
    one = write(tmp_path, f"{EAST}.json", {"acme": "completed"})
    two = write(tmp_path, f"{WEST}.json", {"wayne": "completed"})
    assert tracking_import.main([one, *DAYS, "--out", str(out)], variables) == 0
    assert tracking_import.main([two, *DAYS, "--out", str(out)], variables) == 0
    written = json.loads(out.read_text())
    assert set(written) == {KEY, f"scorecard_backfill_history__{WEST}"}
    assert customers(History.from_json(json.dumps(written[KEY]))) == {"acme": "done"}
    assert variables.asked == []


def test_one_refused_entry_keeps_everything_back_unless_it_may_be_skipped(
    tmp_path: Path, capsys: Any, variables: Variables
) -> None:
    file = write(tmp_path, f"{EAST}.json", {"acme": "completed", "globex": "finito"})
    assert tracking_import.main([file, *DAYS, "--set"], variables) == 1
    assert f"refused: {file}: globex: 'finito' is not a known state" in capsys.readouterr().err
    assert variables.values == {}
    assert tracking_import.main([file, *DAYS, "--set", "--skip-refused"], variables) == 1
    assert customers(History.from_json(variables.values[KEY])) == {"acme": "done"}


def test_the_mapping_of_one_file_holds_for_the_others(tmp_path: Path, variables: Variables) -> None:
    mapping = {
        "cluster": EAST,
        "databases": {"a_b_chat": {"customer_id": "a-b", "profile_id": "chat", "status": "done"}},
    }
    first = write(tmp_path, "backfill_tracking.json", mapping)
    second = write(tmp_path, f"{WEST}.json", {"databases": {"a_b_chat": "completed"}})
    assert tracking_import.main([second, first, *DAYS, "--set"], variables) == 0
    west = History.from_json(variables.values[f"scorecard_backfill_history__{WEST}"])
    assert [(entry.customer_id, entry.profile_id) for entry in west.entries] == [("a-b", "chat")]


@pytest.mark.parametrize(
    ("name", "document", "arguments", "word"),
    [
        ("x.json", "{", DAYS, "is not JSON"),
        ("x.json", {"acme": "done"}, [*DAYS, "--cluster", "moon"], f"known: {EAST}, {WEST}"),
        ("x.json", {"acme": "done"}, ["--start", "1/1/26"], "--start: '1/1/26' is not a date"),
    ],
)
def test_what_cannot_be_used_is_said(
    name: str, document: Any, arguments: list[str], word: str, tmp_path: Path, capsys: Any, variables: Variables
) -> None:
    assert tracking_import.main([write(tmp_path, name, document), *arguments], variables) == 2
    assert word in capsys.readouterr().err


def test_a_missing_file_and_a_spoiled_variable_are_said(tmp_path: Path, capsys: Any, variables: Variables) -> None:
    assert tracking_import.main([str(tmp_path / "no.json")], variables) == 2
    assert "No such file" in capsys.readouterr().err
    variables.values[KEY] = "[]"
    file = write(tmp_path, f"{EAST}.json", {"acme": "completed"})
    assert tracking_import.main([file, *DAYS, "--set"], variables) == 2
    assert variables.values[KEY] == "[]"

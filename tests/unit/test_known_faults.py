"""The tables of known faults name tests that exist."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = sorted((ROOT / "docs" / "known-faults.d").glob("*.md"))
ROW = re.compile(r"^\| (F\d{3}) \|")
REFERENCE = re.compile(r"`((?:[\w/]+\.py)?::[\w*]+(?:\[[^`]*\])?|[\w/]+\.py)`")


def known_tests() -> dict[str, set[str]]:
    """Names of the test functions of each file; a file is known by its path and by its name alone."""
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        names = set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
        found[path.name] = found[path.relative_to(ROOT).as_posix()] = names
    return found


KNOWN = known_tests()


def rows(table: Path) -> list[str]:
    """Lines of a table that are about one fault."""
    return [line for line in table.read_text(encoding="utf-8").splitlines() if ROW.match(line)]


def wrong(line: str) -> list[str]:
    """References of a row that name no test; `::name` is in the file named before."""
    missing, file = [], ""
    for reference in REFERENCE.findall(line):
        named, _, test = reference.partition("::")
        file = named or file
        pattern = test.partition("[")[0]
        tests = KNOWN.get(file, set())
        if not tests or (test and not any(fnmatchcase(name, pattern) for name in tests)):
            missing.append(reference)
    return missing


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.stem)
def test_each_row_names_tests_that_exist(table: Path) -> None:
    listed = rows(table)
    assert listed
    assert {line[:6]: wrong(line) for line in listed if wrong(line)} == {}
    assert [line[:6] for line in listed if not REFERENCE.search(line)] == []


def test_a_reference_that_is_wrong_is_found() -> None:
    assert wrong("| F001 | x | `test_nothing.py::test_a`, `test_known_faults.py::test_no_such`, `::test_each_*` |") == [
        "test_nothing.py::test_a",
        "test_known_faults.py::test_no_such",
    ]

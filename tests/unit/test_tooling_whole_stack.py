"""All tests of a shared sandbox run in one process: each process has a sandbox of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.whole_stack import SHARED, STACKS, OneStackScheduling

TESTS = Path(__file__).resolve().parents[1]
FILES = [path for folder in ("sandbox", "browser") for path in sorted((TESTS / folder).glob("test_*.py"))]


def scope(path: Path, test: str = "test_x[a@b]") -> str:
    node_id = f"{path.relative_to(TESTS.parent).as_posix()}::{test}"
    return OneStackScheduling._split_scope(OneStackScheduling.__new__(OneStackScheduling), node_id)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_of_a_shared_sandbox_are_one_scope_and_every_other_file_is_its_own(path: Path) -> None:
    with_it = next((files for files in STACKS if path.stem in files), (path.stem,))
    assert {other.stem for other in FILES if scope(other) == scope(path)} == set(with_it)


def test_every_file_that_is_named_is_there() -> None:
    assert set(SHARED) <= {path.stem for path in FILES}
    assert len(SHARED) == len(set(SHARED))

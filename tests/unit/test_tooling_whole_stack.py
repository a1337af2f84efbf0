"""All tests of the shared sandbox run in one process: a second sandbox on the same machine would be in their way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.whole_stack import BROWSER, FIRST, GROUP, OneStackScheduling

TESTS = Path(__file__).resolve().parents[1]
FILES = [path for folder in ("sandbox", "browser") for path in sorted((TESTS / folder).glob("test_*.py"))]


def scope(path: Path, test: str = "test_x[a@b]") -> str:
    node_id = f"{path.relative_to(TESTS.parent).as_posix()}::{test}"
    return OneStackScheduling._split_scope(OneStackScheduling.__new__(OneStackScheduling), node_id)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_of_the_shared_sandbox_are_one_scope_and_every_other_file_is_its_own(path: Path) -> None:
    shared = path.stem in (*FIRST, *BROWSER)
    assert scope(path) == (GROUP if shared else path.relative_to(TESTS.parent).as_posix())


def test_every_file_that_is_named_is_there() -> None:
    assert {*FIRST, *BROWSER} <= {path.stem for path in FILES}

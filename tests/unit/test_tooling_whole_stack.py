"""All tests of the shared sandbox run in one process: a second sandbox on the same machine would be in their way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.whole_stack import ALWAYS, BROWSER, FIRST, GROUP, OF_THE_SANDBOX, OWN_STACK, WHOLE, OneStackScheduling

TESTS = Path(__file__).resolve().parents[1]
FILES = [path for folder in ("sandbox", "browser") for path in sorted((TESTS / folder).glob("test_*.py"))]


STARTED = re.compile(r"running_stack\(|\(stack: Stack|: Driver[,)]|page: Page")
"""What a file that drives a running Airflow holds."""
OTHERWISE = ("test_chaos", "test_first_runs", "test_real_parts", "test_stack")
"""Of them those with a marker of their own, and the one whose sandbox has no Airflow."""


def scope(path: Path, test: str = "test_x[a@b]") -> str:
    node_id = f"{path.relative_to(TESTS.parent).as_posix()}::{test}"
    return OneStackScheduling._split_scope(OneStackScheduling.__new__(OneStackScheduling), node_id)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_of_the_shared_sandbox_are_one_scope_and_every_other_file_is_its_own(path: Path) -> None:
    shared = path.stem in (*FIRST, *BROWSER)
    assert scope(path) == (GROUP if shared else path.relative_to(TESTS.parent).as_posix())


def test_every_file_that_is_named_is_there() -> None:
    assert {*FIRST, *BROWSER, *OWN_STACK, *OF_THE_SANDBOX, *ALWAYS} <= {path.stem for path in FILES}


def test_files_that_start_an_airflow_are_named_and_nothing_is_run_by_neither_target() -> None:
    """`make test` leaves out what is `whole`: a file of that kind that is not named would make it minutes longer."""
    started = {path.stem for path in FILES if STARTED.search(path.read_text())}
    assert started - {*OTHERWISE} == {*WHOLE, *ALWAYS} - {*OF_THE_SANDBOX}
    makefile = (TESTS.parent / "Makefile").read_text()
    assert 'tests/sandbox tests/browser -m "whole and not chaos" ' in makefile
    assert 'tests/sandbox -m "not whole and not chaos and not real and not long" ' in makefile

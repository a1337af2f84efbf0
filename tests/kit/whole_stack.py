"""One whole sandbox for all tests of a session that ask for `stack`: its fixture's body, order, time-outs and logs.

The fixture itself is defined once, in tests/conftest.py: tests of several folders share it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from sandbox.stack import running_stack
from sandbox.stack_model import Stack
from sandbox.stack_wait import tail

# Starting all parts takes 30 to 60 s on two idle cores; several starts and some runs must fit.
STACK_TIMEOUT_SECONDS = 600
LOG_LINES = 15
KEEP_LOGS = "SANDBOX_LOGS"
"""Environment variable: folder into which the logs of a failed test's sandbox are copied."""
RUNNING = "SANDBOX_RUNNING"
"""Environment variable: state folder of a sandbox that runs already (make up), which is used then, and not ended."""
GROUP = "stack"
"""Scope of all tests of the shared sandbox: one process of pytest-xdist has them, and starts one sandbox."""

FIRST = (
    "test_demo",
    "test_big_customers",
    "test_kill",
    "test_main_job",
    "test_data_safety",
    "test_admission",
    "test_secrets",
    "test_shutdown",
    "test_orders",
)
"""Files of minutes, in their order; the browser's come after them, then whatever starts no sandbox."""
BROWSER = ("test_page", "test_run")
OWN_STACK = ("test_batches", "test_sweep_approval", "test_told")
"""Files of minutes that start an Airflow of their own, because its configuration is another one."""
OF_THE_SANDBOX = (
    "test_planning_scale",
    "test_stack",
    "test_stack_variants",
    "test_supervisor",
    "test_temporal_faults",
    "test_temporal_job",
    "test_temporal_workflow",
)
"""A minute or two of the sandbox itself, its data and its reindexer, without Airflow."""
ALWAYS = ("test_admission",)
"""Of all these the way that every change must go, a window to its green end: part of `make test`. The others are
`make test-whole`."""

WHOLE = tuple(name for name in (*FIRST, *BROWSER, *OWN_STACK, *OF_THE_SANDBOX) if name not in ALWAYS)
"""Files whose tests get the marker ``whole``."""

STACK_KEY = pytest.StashKey[Stack]()
RUNNING_KEY = pytest.StashKey[ExitStack]()
FAILED_KEY = pytest.StashKey[bool]()


def shared_stack(state: Path, session: pytest.Session) -> Iterator[Stack]:
    """Run a whole sandbox, Airflow included; its folder is removed unless a test failed."""
    if folder := os.environ.get(RUNNING):
        yield Stack.load(Path(folder))
        return
    with ExitStack() as until_the_last_test:
        running = until_the_last_test.enter_context(running_stack(state, say=print))
        session.stash[STACK_KEY] = running
        session.stash[RUNNING_KEY] = until_the_last_test
        yield running
    if not session.stash.get(FAILED_KEY, False):
        shutil.rmtree(state)


def end_after_last(item: pytest.Item, following: pytest.Item | None) -> None:
    """End the shared sandbox when no test of it follows: an Airflow that waits takes a third of a core."""
    running = item.session.stash.get(RUNNING_KEY, None)
    if running is not None and needs_stack(item) and following is not None and not needs_stack(following):
        running.close()


def needs_stack(item: pytest.Item) -> bool:
    """Whether a test asks for the shared sandbox."""
    return "stack" in getattr(item, "fixturenames", ())


def arrange(items: list[pytest.Item]) -> None:
    """Give tests of the whole sandbox their marker and their time, and put them in front.

    Raises UsageError for a test that uses it in a file of which the scheduler does not know that.
    """
    for item in items:
        if item.path.stem in WHOLE:
            item.add_marker("whole")
        if not needs_stack(item):
            continue
        if item.path.stem not in (*FIRST, *BROWSER):
            raise pytest.UsageError(f"{item.path.name} uses `stack`: name it in tests/kit/whole_stack.py")
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(STACK_TIMEOUT_SECONDS))
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    # The browser's driver keeps an event loop of its own in this thread, which others must not meet.
    order = (*FIRST, *BROWSER)
    return order.index(item.path.stem) if needs_stack(item) else len(order)


class OneStackScheduling(LoadScopeScheduling):
    """Gives all tests of the shared sandbox to one process, and the others to whichever is free, file by file.

    xdist's own groups need a node id that can be changed, which pytest 9.2 no longer has.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return GROUP if Path(file).stem in (*FIRST, *BROWSER) else file


def add_logs(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add the ends of all parts' logs to the report of a failed test that uses the shared sandbox."""
    if not report.failed or not needs_stack(item):
        return
    item.session.stash[FAILED_KEY] = True
    running = item.session.stash.get(STACK_KEY, None)
    if running is not None:
        report.sections.append(("sandbox", log_text(running)))
        keep_logs(running, item.name)


def log_text(running: Stack) -> str:
    """Return the end of each part's log."""
    logs = sorted(running.logs.glob("*.log"))
    return "\n".join([f"state folder: {running.state}", *(f"--- {log.name}\n{tail(log, LOG_LINES)}" for log in logs)])


def keep_logs(running: Stack, test: str) -> None:
    """Copy the logs into the folder that SANDBOX_LOGS names, in a folder with the test's name."""
    target = os.environ.get(KEEP_LOGS)
    if target:
        name = "".join(char if char.isalnum() or char in "-_" else "_" for char in test)
        shutil.copytree(running.logs, Path(target) / name, dirs_exist_ok=True)

"""One whole sandbox for all tests of a session that ask for `stack`, and its logs when one of them fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from sandbox.airflow_api import AirflowApi
from sandbox.stack import running_stack
from sandbox.stack_model import AIRFLOW_USER, Stack
from sandbox.stack_wait import tail

# Starting all parts takes 30 to 60 s on two idle cores; several starts and some runs must fit.
STACK_TIMEOUT_SECONDS = 600
LOG_LINES = 15
KEEP_LOGS = "SANDBOX_LOGS"
"""Environment variable: folder into which the logs of a failed test's sandbox are copied."""

LONGEST_FIRST = (
    "test_demo",
    "test_big_customers",
    "test_kill",
    "test_main_job",
    "test_data_safety",
    "test_admission",
    "test_secrets",
    "test_shutdown",
)
"""Files of minutes. Two processes take one file after the other; the demo, which has a sandbox of its own, comes before
a shared one runs."""

STACK_KEY = pytest.StashKey[Stack]()
FAILED_KEY = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Run a whole sandbox, Airflow included, in a temporary folder; removed unless a test failed.

    It is shared: a test takes customers, months or a cluster that no other test takes, and puts back what it
    stopped.
    """
    state = tmp_path_factory.mktemp("stack") / "state"
    with running_stack(state, say=print) as running:
        request.session.stash[STACK_KEY] = running
        yield running
    if not request.session.stash.get(FAILED_KEY, False):
        shutil.rmtree(state)


@pytest.fixture
def api(stack: Stack) -> Iterator[AirflowApi]:
    """Return a client of the shared sandbox's Airflow."""
    with AirflowApi(stack.airflow_url, AIRFLOW_USER, stack.airflow_password) as client:
        yield client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of the whole sandbox the time that they need, and begin with the files that take longest."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(STACK_TIMEOUT_SECONDS))
    items.sort(key=lambda item: LONGEST_FIRST.index(item.path.stem) if item.path.stem in LONGEST_FIRST else 99)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of all parts' logs to the report of a failed test that uses the shared sandbox."""
    report = yield
    if report.failed and "stack" in getattr(item, "fixturenames", ()):
        item.session.stash[FAILED_KEY] = True
        running = item.session.stash.get(STACK_KEY, None)
        if running is not None:
            report.sections.append(("sandbox", log_text(running)))
            keep_logs(running, item.name)
    return report


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

"""Marks each test by its folder, sets Hypothesis up, and has the one sandbox that tests of several folders share.

What is needed for the sandbox alone is imported when a test asks for it: the unit tests start without it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from sandbox.airflow_api import AirflowApi
    from sandbox.stack_model import Stack

TESTS = Path(__file__).resolve().parent
FOLDERS = ("unit", "airflow", "matrix", "standins", "sandbox", "browser")
WITH_STACK = ("sandbox", "browser")

# No deadline, as the machine may be busy; few examples, as the whole must be quick.
settings.register_profile("quick", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quick")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Add the marker of the folder. Raises UsageError for a test that lies in none of them."""
    for item in items:
        if not item.path.is_relative_to(TESTS):
            continue
        folder = item.path.relative_to(TESTS).parts[0]
        if folder not in FOLDERS:
            raise pytest.UsageError(
                f"{item.path} must be in one of {', '.join(FOLDERS)}: the make targets choose by it"
            )
        item.add_marker(folder)
    if any(item.get_closest_marker(folder) for folder in WITH_STACK for item in items):
        from tests.kit import whole_stack

        whole_stack.arrange(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let `--dist loadgroup` mean one process for all tests of the shared sandbox."""
    if config.getoption("dist") != "loadgroup":
        return None
    from tests.kit.whole_stack import OneStackScheduling

    return OneStackScheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the sandbox's logs when a test that uses it fails."""
    report = yield
    if report.failed and "stack" in getattr(item, "fixturenames", ()):
        from tests.kit import whole_stack

        whole_stack.add_logs(item, report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """End the shared sandbox after its last test; all of them come before the others."""
    yield
    if "stack" in getattr(item, "fixturenames", ()):
        from tests.kit import whole_stack

        whole_stack.end_after_last(item, nextitem)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Run a whole sandbox, Airflow included, in a temporary folder; removed unless a test failed.

    It is shared: a test takes customers, months or a cluster that no other test takes, and puts back what it
    stopped.
    """
    from tests.kit import whole_stack

    yield from whole_stack.shared_stack(tmp_path_factory.mktemp("stack") / "state", request.session)


@pytest.fixture(scope="session")
def api(stack: Stack) -> Iterator[AirflowApi]:
    """Return a client of the shared sandbox's Airflow."""
    from sandbox.airflow_api import AirflowApi
    from sandbox.stack_model import AIRFLOW_USER

    with AirflowApi(stack.airflow_url, AIRFLOW_USER, stack.airflow_password) as client:
        yield client

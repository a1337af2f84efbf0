"""A headless Chromium that is logged in to the shared sandbox's Airflow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from sandbox.airflow_api import AirflowApi
from sandbox.stack_model import AIRFLOW_USER, Stack
from tests.sandbox.drive import Driver

TIMEOUT_SECONDS = 600
PATIENCE_SECONDS = 90
"""Limit of one look at a page: Airflow's own bundle is large, and the machine may be busy with the sandbox."""

expect.set_options(timeout=PATIENCE_SECONDS * 1000)
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SHOTS = "SANDBOX_SHOTS"
"""Environment variable: folder for a picture of the page at the end of each test, also of one that failed."""

IMAGES = "SANDBOX_IMAGES"
"""Environment variable: folder into which the pictures of the documentation are written (docs/img)."""

# root has no other choice than --no-sandbox; without the last three Chromium calls its maker's servers at each start.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def program() -> str | None:
    """Return the path of the machine's Chromium, None when it has none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip without Chromium, which no Python package brings along; a whole sandbox needs its time."""
    missing = program() is None
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"no Chromium on this machine ({', '.join(PROGRAMS)})"))


@pytest.fixture(scope="module")
def east(stack: Stack, api: AirflowApi) -> Driver:
    """What the servers have seen."""
    return Driver(api, stack, stack.cluster("east"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium of the machine. Ended with the module: its driver keeps an event loop in this thread."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program(), args=list(ARGUMENTS))
        yield running
        running.close()


def picture(page: Page, name: str) -> None:
    """Keep a picture for the documentation, when a folder is named for them."""
    if folder := os.environ.get(IMAGES):
        page.screenshot(path=Path(folder) / f"{name}.png")


@contextmanager
def logged_in(browser: Browser, stack: Stack, width: int = 1600) -> Iterator[Page]:
    """A page of a logged-in user; no script error may happen on it."""
    context = browser.new_context(viewport={"width": width, "height": 1000}, base_url=stack.airflow_url)
    made = context.new_page()
    made.set_default_timeout(PATIENCE_SECONDS * 1000)
    errors: list[str] = []
    made.on("pageerror", lambda error: errors.append(str(error)))
    made.goto("/")
    made.get_by_label("Username").fill(AIRFLOW_USER)
    made.get_by_label("Password").fill(stack.airflow_password)
    made.get_by_role("button", name="Sign in").click()
    made.wait_for_url("**/")
    yield made
    context.close()
    assert errors == []


@pytest.fixture
def page(browser: Browser, stack: Stack, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of a logged-in user."""
    with logged_in(browser, stack) as made:
        yield made
        if folder := os.environ.get(SHOTS):
            made.screenshot(path=Path(folder) / f"{request.node.name}.png", full_page=True)

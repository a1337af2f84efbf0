"""Marks each test by its folder (unit, airflow, standins, sandbox, browser), and sets Hypothesis up for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).resolve().parent
FOLDERS = ("unit", "airflow", "matrix", "standins", "sandbox", "browser")

# No deadline, as the machine may be busy; few examples, as the whole must be quick.
settings.register_profile("quick", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quick")


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

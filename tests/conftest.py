"""Marks each test by its folder (unit, airflow, sandbox, browser); nothing else is common to all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
FOLDERS = ("unit", "airflow", "sandbox", "browser")


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

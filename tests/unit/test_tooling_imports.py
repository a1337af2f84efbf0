"""Every package that the code imports is pinned where it is needed: an upgrade elsewhere cannot take it away."""

from __future__ import annotations

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tests.unit.test_tooling_lock import pins

ROOT = Path(__file__).resolve().parents[2]
OURS = {"backfill", "benchmarks", "dags", "docs", "include", "sandbox", "standins", "tests"}
# Comes with a pinned package that decides its version: module -> that package.
COMES_WITH = {
    "aiohttp": "apache-airflow-providers-cncf-kubernetes",
    "airflow": "apache-airflow",
    "asgiref": "apache-airflow",
    "backports": "clickhouse-connect",
    "google": "temporalio",
    "kubernetes": "apache-airflow-providers-cncf-kubernetes",
    "kubernetes_asyncio": "apache-airflow-providers-cncf-kubernetes",
    "lz4": "clickhouse-connect",
    "urllib3": "apache-airflow-providers-cncf-kubernetes",
}
DISTRIBUTIONS = packages_distributions()


def imported(folder: str) -> dict[str, str]:
    """Return the top-level modules of others that a folder's files import, each with one file that does."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in names:
                found.setdefault(name.partition(".")[0], path.relative_to(ROOT).as_posix())
    return {name: file for name, file in found.items() if name not in OURS | set(sys.stdlib_module_names)}


def unpinned(folder: str, requirements: str) -> list[str]:
    """Return the imports of a folder that a requirements file does not pin."""
    pinned = set(pins(requirements))
    missing = []
    for name, file in imported(folder).items():
        packages = (
            {COMES_WITH[name]} if name in COMES_WITH else {canonicalize_name(d) for d in DISTRIBUTIONS.get(name, ())}
        )
        if not packages & pinned:
            missing.append(f"{file} imports {name}, which {requirements} does not pin (it is in {sorted(packages)})")
    return missing


@pytest.mark.parametrize("folder", ["dags", "plugins", "include"])
def test_what_ships_imports_only_what_requirements_txt_pins(folder: str) -> None:
    assert unpinned(folder, "requirements.txt") == []


@pytest.mark.parametrize("folder", ["sandbox", "standins", "tests"])
def test_sandbox_and_tests_import_only_what_requirements_dev_txt_pins(folder: str) -> None:
    assert imported(folder)
    assert unpinned(folder, "requirements-dev.txt") == []

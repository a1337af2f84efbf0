"""The wheel: what is in it, and that Airflow finds plugin, connection type and DAGs when it is only installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from backfill.provider_info import provider_info
from sandbox.stack_variants import WORKER_ENV

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
METADATA = next((ROOT / "plugins").glob("*.dist-info"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel; without a network if the build backend is in uv's cache."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        str(Path(sys.executable).with_name("uv")),
        "build",
        "--wheel",
        "--quiet",
        "--out-dir",
        str(out),
        str(ROOT),
    ]
    done = subprocess.run([*command, "--offline"], capture_output=True, text=True, check=False)
    if done.returncode:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Failed to fetch" in done.stderr or "Could not connect" in done.stderr:
        pytest.skip("hatchling is neither in uv's cache nor can it be fetched")
    assert done.returncode == 0, done.stderr
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds what an installation puts into site-packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(code: str, installed: Path, home: Path, *more: Path) -> str:
    """Run code in a process that sees the installed wheel and none of this project's folders; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "SCORECARD"))}
    environment |= {
        "PYTHONPATH": os.pathsep.join(map(str, [*more, installed])),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
    }
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_each_file_that_the_folders_hold(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "dags", "include/scorecard_backfill", "plugins"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    wanted = {
        name.removeprefix("plugins/").replace("dags/", "scorecard_backfill_dags/")
        for name in tracked
        if ".dist-info/" not in name and not name.endswith(".airflowignore")
    }
    assert wanted <= held
    assert {name.split("/")[0] for name in held} == {
        "backfill", "include", "scorecard_backfill_dags", "scorecard_backfill_plugin.py"
    }  # fmt: skip
    # A regular package of this name would hide the `include` folder of an Astro project.
    assert "include/__init__.py" not in held


def test_airflow_finds_plugin_timetable_and_connection_type_of_the_installed_package(
    installed: Path, tmp_path: Path
) -> None:
    code = (
        "from airflow import plugins_manager as m\n"
        "print('plugins', [p.name for p in m._get_plugins()[0]], m.get_import_errors())\n"
        "print('timetables', sorted(m.get_timetables_plugins()))\n"
        "from airflow.providers_manager import ProvidersManager\n"
        "print('hook', ProvidersManager().hooks['temporal'].hook_class_name)\n"
        "import backfill; print('from', backfill.__file__)\n"
    )
    said = run(code, installed, tmp_path)
    assert re.search(r"plugins \[.*'scorecard_backfill'.*\] \{\}", said)
    assert "backfill.timetable.ForwardCronTimetable" in said
    assert "hook backfill.hooks.temporal.TemporalHook" in said
    assert f"from {installed}" in said


def test_the_dags_of_the_installed_package_are_read_beside_another_include_folder(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "project" / "include").mkdir(parents=True)
    (tmp_path / "project" / "include" / "mine.py").write_text("X = 1\n")
    code = (
        "import include.mine, include.scorecard_backfill\n"
        "from importlib.util import find_spec\n"
        "from airflow.dag_processing.dagbag import DagBag\n"
        "(folder,) = find_spec('scorecard_backfill_dags').submodule_search_locations\n"
        "bag = DagBag(folder)\n"
        "print('errors', bag.import_errors)\n"
        "print('dags', len([d for d in bag.dags if d.startswith('scorecard_backfill__')]))\n"
    )
    said = run(code, installed, tmp_path, tmp_path / "project")
    assert "errors {}" in said
    assert "dags 8" in said


def test_the_metadata_beside_the_folders_is_that_of_the_package() -> None:
    entry_points = ConfigParser()
    entry_points.read(METADATA / "entry_points.txt")
    group = "apache_airflow_provider"
    assert dict(entry_points[group]) == PROJECT["project"]["entry-points"][group]
    assert f"Version: {PROJECT['project']['version']}\n" in (METADATA / "METADATA").read_text()
    assert METADATA.name.startswith(PROJECT["project"]["name"].replace("-", "_") + "-")
    assert provider_info()["package-name"] == PROJECT["project"]["name"]
    assert METADATA.name.endswith(f"-{PROJECT['project']['version']}.dist-info")


def test_what_the_package_asks_for_is_what_is_pinned() -> None:
    pinned = [Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1].isalpha()]
    asked = {one.name: one for one in map(Requirement, PROJECT["project"]["dependencies"])}
    assert set(asked) == {one.name for one in pinned}
    for one in pinned:
        (version,) = one.specifier
        assert asked[one.name].specifier.contains(version.version), one


LOADED = """
import sys
import airflow
from airflow import plugins_manager
heavy = ("backfill.operators.reindex", "kubernetes.client", "temporalio.client", "clickhouse_connect")
print([name for name in heavy if name not in sys.modules], plugins_manager.get_import_errors())
"""


def test_a_celery_workers_process_has_the_clients_before_it_forks(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment |= {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
        **WORKER_ENV,
    }
    done = subprocess.run(
        [sys.executable, "-c", LOADED], env=environment, capture_output=True, text=True, timeout=110, check=True
    )
    assert done.stdout.splitlines()[-1] == "[] {}", done.stdout

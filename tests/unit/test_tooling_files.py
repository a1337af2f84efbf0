"""What is in the repository: make targets that the README names exist, and no file tells where it was made."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pathspec import GitIgnoreSpec

ROOT = Path(__file__).resolve().parents[2]
MAX_PYTHON_LINES = 400
MAX_TEST_LINES = 480
"""A scene and its tests may be longer than a module: its functions are read one by one."""
# Put together so that this file does not name one either.
REGISTRY_HOSTS = re.compile(r"\b(?:pypi|pythonhosted|npmjs|debian)\.(?:org|com|net)\b", re.IGNORECASE)
MACHINE_PATHS = re.compile(r"(?<![\w.$}>/])/(?:home|root|Users|work|tmp|mnt)/[\w.-]+")
# A path inside the container image, the same everywhere.
ALLOWED_PATHS: tuple[str, ...] = ("/home/airflow",)


def repository_files(folder: Path, ignored: GitIgnoreSpec) -> Iterator[Path]:
    """Yield the texts that git would track: all that .gitignore does not name. Works without git, too."""
    for path in sorted(folder.iterdir()):
        name = path.relative_to(ROOT).as_posix()
        if name == ".git":
            continue
        # Ignored folders are not entered: what is in them may vanish meanwhile.
        if path.is_dir() and not ignored.match_file(f"{name}/"):
            yield from repository_files(path, ignored)
        elif path.is_file() and path.suffix != PICTURES and not ignored.match_file(name):
            yield path


PICTURES = ".png"
FILES = list(repository_files(ROOT, GitIgnoreSpec.from_lines((ROOT / ".gitignore").read_text().splitlines())))


def text_of(path: Path) -> str:
    """Return a file's text; one that is not text is a mistake here."""
    return path.read_text(encoding="utf-8")


def make_targets() -> set[str]:
    """Return the targets that the Makefile declares as phony."""
    match = re.search(r"^\.PHONY: (.*)$", text_of(ROOT / "Makefile"), re.MULTILINE)
    assert match
    return set(match[1].split())


def test_files_are_found() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {"README.md", "Makefile", "dags/scorecard_backfill.py", "tests/unit/test_tooling_files.py"} <= names
    assert not [name for name in names if name.startswith((".venv/", ".sandbox/"))]


@pytest.mark.parametrize("document", ["README.md", "docs/runbook.md", "CHANGELOG.md", ".ci/run"])
def test_make_targets_that_a_text_names_exist(document: str) -> None:
    named = set(re.findall(r"`make ([a-z][a-z-]*)", text_of(ROOT / document)))
    named |= set(re.findall(r"^make ([a-z][a-z-]*)", text_of(ROOT / document), re.MULTILINE))
    assert named <= make_targets()
    if document == "README.md":
        assert {"demo", "test", "up"} <= named


def test_every_make_target_is_explained_and_runs_something() -> None:
    makefile = text_of(ROOT / "Makefile")
    for target in make_targets():
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), target
    # Without the first option a make that runs these tests would add lines of its own.
    command = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} == make_targets()


def test_relative_links_of_the_documents_lead_somewhere() -> None:
    for path in FILES:
        if path.suffix == ".md":
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text_of(path)):
                if "://" not in target and not target.startswith("mailto:"):
                    assert (path.parent / target).exists(), f"{path.relative_to(ROOT)}: {target}"


def test_no_file_names_a_package_registry() -> None:
    hits = [f"{path.relative_to(ROOT)}: {m[0]}" for path in FILES if (m := REGISTRY_HOSTS.search(text_of(path)))]
    assert hits == []


def test_no_file_has_a_path_of_somebodys_machine() -> None:
    hits = [
        f"{path.relative_to(ROOT)}: {found}"
        for path in FILES
        for found in MACHINE_PATHS.findall(text_of(path))
        if not found.startswith(ALLOWED_PATHS)
    ]
    assert hits == []


def test_python_files_are_short_enough_to_read() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in FILES
        if path.suffix == ".py"
        and (lines := len(text_of(path).splitlines()))
        > (MAX_TEST_LINES if path.relative_to(ROOT).parts[0] == "tests" else MAX_PYTHON_LINES)
    }
    assert long == {}


def test_markers_of_the_folders_are_declared() -> None:
    from tests.conftest import FOLDERS

    declared = text_of(ROOT / "pyproject.toml")
    for folder in FOLDERS:
        assert f'"{folder}: ' in declared


def test_yaml_files_can_be_read() -> None:
    for path in FILES:
        if path.suffix in (".yaml", ".yml"):
            list(yaml.safe_load_all(text_of(path)))


def test_shell_scripts_stop_at_the_first_error() -> None:
    scripts = [path for path in FILES if text_of(path).startswith("#!/usr/bin/env bash")]
    assert ROOT / ".ci" / "run" in scripts
    for path in scripts:
        assert "set -euo pipefail" in text_of(path), path
        assert path.stat().st_mode & 0o100, f"{path} is not executable"

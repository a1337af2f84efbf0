"""requirements.lock holds exactly what is pinned, with hashes, and tells nothing about where it was made."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text()


def pins(name: str) -> dict[str, str]:
    """Return package -> version of a requirements file and of those that it includes."""
    found: dict[str, str] = {}
    for raw in (ROOT / name).read_text().splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith("-r "):
            found |= pins(line.removeprefix("-r ").strip())
        elif line:
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9a-z.]*)", line)
            assert match, f"{name}: {line!r} is not pinned as package==version"
            found[canonicalize_name(match[1])] = match[2]
    return found


def locked() -> dict[str, list[tuple[str, list[str]]]]:
    """Return package -> (version, hashes) of the lock; several when they differ by marker."""
    found: dict[str, list[tuple[str, list[str]]]] = {}
    text = "\n".join(line for line in LOCK.splitlines() if not line.startswith("#"))
    for entry in text.replace("\\\n", " ").splitlines():
        head, *hashes = entry.split("--hash=")
        requirement = Requirement(head.strip())
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", head
        found.setdefault(canonicalize_name(requirement.name), []).append(
            (specifier.version, [text.strip() for text in hashes])
        )
    return found


def test_lock_has_every_pin_with_its_version() -> None:
    lock = locked()
    wanted = pins("requirements-dev.txt")
    assert wanted
    assert {name: [v for v, _ in lock.get(name, [])] for name in wanted} == {
        name: [version] for name, version in wanted.items()
    }


def test_every_package_of_the_lock_has_sha256_hashes() -> None:
    for name, versions in locked().items():
        for _, hashes in versions:
            assert hashes, name
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes), name


def test_lock_names_no_index_no_host_and_no_path() -> None:
    for word in ("://", "--index-url", "--extra-index-url", "--find-links", "--trusted-host", " @ ", "-e "):
        assert word not in LOCK


def test_nothing_is_pinned_twice() -> None:
    names = [
        line.partition("==")[0]
        for file in ("requirements.txt", "requirements-dev.txt")
        for line in (ROOT / file).read_text().splitlines()
        if "==" in line
    ]
    assert len(names) == len({canonicalize_name(name) for name in names})


@pytest.mark.parametrize("name", sorted(pins("requirements-dev.txt")))
def test_installed_version_is_the_pinned_one(name: str) -> None:
    assert version(name) == pins("requirements-dev.txt")[name]

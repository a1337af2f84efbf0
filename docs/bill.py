"""What is in it: licences of the packages that a deployment needs, and an SBOM of everything that is locked.

    python docs/bill.py            # writes docs/licences.md anew
    python docs/bill.py --sbom     # prints the SBOM (CycloneDX 1.6, JSON)
    python docs/bill.py --audit    # what can be said about the lock without a network; exit code 1 = something is wrong

Names, versions and hashes come from requirements.lock, licences from the installed packages' own metadata: run it in
the environment of `make setup`. Known vulnerabilities are not looked up: that needs a network (`uvx pip-audit -r
requirements.lock --require-hashes`).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
LICENCES = ROOT / "docs" / "licences.md"

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?: *; *(?P<marker>[^\\]+?))? *\\?$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")

UNKNOWN = "not said"
COPYLEFT = re.compile(r"\bA?GPL|General Public|LGPL|MPL|Mozilla|EPL|CDDL|SSPL|BUSL", re.IGNORECASE)
"""Licences that ask for more than to be named; a person should know where they are."""


@dataclass(frozen=True, slots=True)
class Locked:
    """One package of the lock. ``here``: False for one that other Pythons or systems need."""

    name: str
    version: str
    hashes: tuple[str, ...]
    here: bool


def read_lock(text: str) -> list[Locked]:
    """Return the packages of a lock in order. Raises ValueError for a line that cannot be read."""
    found: list[Locked] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if match := _HASH.search(line):
            last = found.pop()
            found.append(Locked(last.name, last.version, (*last.hashes, match.group(1)), last.here))
            continue
        pin = _PIN.match(line.strip())
        if pin is None:
            raise ValueError(f"requirements.lock: {line!r} is not read")
        here = pin["marker"] is None or Marker(pin["marker"]).evaluate()
        found.append(Locked(canonicalize_name(pin["name"]), pin["version"], (), here))
    return found


def installed(name: str) -> Distribution | None:
    """Return the installed package, or None."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def licence_of(found: Distribution) -> str:
    """Return what a package says about its licence: the expression, else the classifiers, else the field, shortened."""
    if expression := found.metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        one.rpartition(" :: ")[2] for one in found.metadata.get_all("Classifier") or [] if one.startswith("License ::")
    ]
    plain = [one for one in classifiers if one != "OSI Approved"]
    if plain:
        return ", ".join(dict.fromkeys(plain))
    # Some put the whole text into the field.
    first = str(found.metadata.get("License") or "").strip().splitlines()
    return first[0][:80] if first and first[0].strip() else UNKNOWN


def needed(roots: Iterable[str]) -> set[str]:
    """Return these packages and all that they need, extras included, of what is installed."""
    seen: set[tuple[str, frozenset[str]]] = set()
    left = [Requirement(root) for root in roots]
    while left:
        wanted = left.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen or (found := installed(wanted.name)) is None:
            continue
        seen.add(key)
        left += _requires(found, wanted.extras)
    return {name for name, _ in seen}


def _requires(found: Distribution, extras: Iterable[str]) -> Iterator[Requirement]:
    for text in found.requires or []:
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield one


def deployment(lock: Sequence[Locked]) -> list[Locked]:
    """Return the packages that a deployment needs: those of requirements.txt with theirs."""
    roots = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1].isalpha()]
    names = needed(roots)
    return [one for one in lock if one.name in names]


def licence_table(lock: Sequence[Locked]) -> str:
    """Return docs/licences.md."""
    rows = []
    for one in deployment(lock):
        found = installed(one.name)
        if found is not None:
            rows.append((one.name, one.version, licence_of(found)))
    special = [f"`{name}` ({licence})" for name, _, licence in rows if COPYLEFT.search(licence)]
    unsaid = [f"`{name}`" for name, _, licence in rows if licence == UNKNOWN]
    lines = [
        "# Licences",
        "",
        f"The {len(rows)} packages that a deployment needs (requirements.txt with what it needs in turn), as they name",
        "their licence themselves. Made by `python docs/bill.py`; this project is under Apache-2.0. What only",
        "sandbox and tests need is not listed; `python docs/bill.py --sbom` has everything that is locked.",
        "",
        f"Ask for more than to be named: {', '.join(special) or 'none'}.",
        "",
        f"Say nothing in their metadata: {', '.join(unsaid) or 'none'}.",
        "",
        "| package | version | licence |",
        "|---|---|---|",
        *(f"| {name} | {version} | {licence.replace('|', '/')} |" for name, version, licence in rows),
    ]
    return "\n".join(lines) + "\n"


def sbom(lock: Sequence[Locked], name: str, version: str) -> dict[str, Any]:
    """Return a CycloneDX 1.6 document of everything that is locked. No time stamp: the same lock gives the same."""
    components = []
    for one in lock:
        found = installed(one.name)
        component: dict[str, Any] = {
            "type": "library",
            "name": one.name,
            "version": one.version,
            "purl": f"pkg:pypi/{one.name}@{one.version}",
            "bom-ref": f"pkg:pypi/{one.name}@{one.version}",
            "properties": [{"name": "sha256 of an archive", "value": value} for value in one.hashes],
        }
        if found is not None and found.version == one.version and (licence := licence_of(found)) != UNKNOWN:
            component["licenses"] = [{"license": {"name": licence}}]
        components.append(component)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": name, "version": version}},
        "components": components,
    }


def audit(lock: Sequence[Locked]) -> list[str]:
    """Return what is wrong with lock and environment, as far as that can be seen without a network."""
    wrong = [f"{one.name}: has no hash in the lock" for one in lock if not one.hashes]
    names = [one.name for one in lock if one.here]
    wrong += [f"{name}: is locked twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for one in lock:
        found = installed(one.name)
        if one.here and found is None:
            wrong.append(f"{one.name}: is locked and not installed")
        elif found is not None and one.here and found.version != one.version:
            wrong.append(f"{one.name}: {found.version} is installed, {one.version} is locked")
    return wrong


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    lock = read_lock(LOCK.read_text())
    if "--sbom" in argv:
        project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        print(json.dumps(sbom(lock, "scorecard-backfill", project[1] if project else ""), indent=1))
        return 0
    if "--audit" in argv:
        wrong = audit(lock)
        print("\n".join(wrong) or f"{len(lock)} packages, each with hashes, installed as locked")
        print("known vulnerabilities were not looked up: that needs a network (see docs/bill.py)")
        return 1 if wrong else 0
    LICENCES.write_text(licence_table(lock), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

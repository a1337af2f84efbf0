"""Licences and SBOM: made from the lock, and kept fresh."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_bill", ROOT / "docs" / "bill.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BILL = load()
LOCK = BILL.read_lock((ROOT / "requirements.lock").read_text())


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the table is that of Python 3.11; others lock a few others"
)
def test_the_table_of_licences_is_fresh() -> None:
    assert BILL.LICENCES.read_text() == BILL.licence_table(LOCK), "run python docs/bill.py"


def test_every_direct_dependency_is_in_the_table() -> None:
    table = BILL.LICENCES.read_text()
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line[:1].isalpha():
            name, version = line.split("==")
            assert f"| {name} | {version} |" in table


def test_the_sbom_holds_every_locked_package_once() -> None:
    made = BILL.sbom(LOCK, "scorecard-backfill", "0.1.0")
    references = [one["bom-ref"] for one in made["components"]]
    assert len(references) == len(set(references)) == len(LOCK)
    assert all(one["properties"] for one in made["components"])
    assert BILL.sbom(LOCK, "scorecard-backfill", "0.1.0") == made


def test_a_lock_is_read_with_hashes_and_markers() -> None:
    text = "# made\nAcme_Lib==1.0 \\\n    --hash=sha256:" + "a" * 64 + "\nother==2 ; sys_platform == 'win32' \\\n"
    first, second = BILL.read_lock(text)
    assert (first.name, first.version, first.hashes, first.here) == ("acme-lib", "1.0", ("a" * 64,), True)
    assert second.here is (sys.platform == "win32")
    with pytest.raises(ValueError, match="is not read"):
        BILL.read_lock("acme>=1\n")


def test_an_audit_names_what_is_wrong() -> None:
    here = BILL.Locked("packaging", "0.0", ("a",), True)
    wrong = BILL.audit([here, here, BILL.Locked("no-such-package", "1", (), True)])
    assert any("is locked twice" in line for line in wrong)
    assert any("is installed, 0.0 is locked" in line for line in wrong)
    assert any("no-such-package: is locked and not installed" in line for line in wrong)
    assert any("no-such-package: has no hash" in line for line in wrong)

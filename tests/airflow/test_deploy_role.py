"""The documented Role gives exactly what preflight asks for: nothing less, nothing more."""

from __future__ import annotations

from pathlib import Path

import yaml

from backfill.operators.checks.kubernetes import EVENTS, RIGHTS

ROLE = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes" / "role.yaml"


def test_the_role_is_the_rights_that_preflight_asks_for() -> None:
    (role,) = [one for one in yaml.safe_load_all(ROLE.read_text()) if one["kind"] == "Role"]
    given = {
        (verb, group, *resource.partition("/")[::2])
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert given == {*RIGHTS, EVENTS}

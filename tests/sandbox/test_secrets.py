"""Planted secrets are only where they must be: not in logs, XComs, templates, Jobs, statements or the database."""

from __future__ import annotations

from pathlib import Path

import yaml

from sandbox.airflow_api import AirflowApi
from sandbox.stack_model import Stack
from tests.sandbox.drive import Driver

MUST_HOLD_THEM = ("credentials.json", "passwords.json", "kubeconfig.yaml", "token")
"""Files whose purpose is to hold a secret (mode 0600)."""


def secrets_of(stack: Stack) -> dict[str, bytes]:
    """Return what no other file may hold, by its name."""
    found = {"clickhouse password": stack.clickhouse_password, "airflow password": stack.airflow_password}
    for cluster in stack.clusters:
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        found[f"kubernetes token of {cluster.name}"] = config["users"][0]["user"]["token"]
    assert all(len(value) >= 12 for value in found.values())
    return {name: value.encode() for name, value in found.items()}


def holders(folder: Path, secret: bytes) -> list[str]:
    """Return the files below a folder that hold the bytes."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name not in MUST_HOLD_THEM and secret in path.read_bytes()
    ]


def test_no_secret_is_written_anywhere(stack: Stack, api: AirflowApi) -> None:
    west = Driver(api, stack, stack.cluster("west"))
    west.set_worker_faults({"id": "job", "kind": "job_fail", "customer": "tyrell", "start": "2025-12-01", "times": 1})
    run = west.start("secrets", customers=["tyrell"], start_date="2025-12-01", end_date="2026-01-01")
    assert west.finish(run) == "failed"
    west.set_worker_faults()
    west.api.clear(west.dag_id, run)
    assert west.finish(run) == "success", west.api.failures(west.dag_id, run)

    logs = list((stack.state / "airflow" / "logs").rglob("*.log"))
    assert any("task_id=windows.reindex" in str(path) for path in logs)
    for name, secret in secrets_of(stack).items():
        assert holders(stack.state, secret) == [], name
    # The search itself must be able to find one.
    (stack.state / "planted.txt").write_bytes(b"x" + stack.clickhouse_password.encode())
    try:
        assert holders(stack.state, stack.clickhouse_password.encode()) == ["planted.txt"]
    finally:
        (stack.state / "planted.txt").unlink()

"""Measure in a process of its own: an Airflow with an empty database and no server, or a fork for a DAG file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.stack_airflow import ROOT, airflow_command, airflow_env

LIMIT_SECONDS = 900.0
MIGRATE_SECONDS = 240.0


def environment(home: Path, **settings: str) -> dict[str, str]:
    """Return the environment of an Airflow below ``home`` with the sandbox's clusters."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV") if name in os.environ}
    return {
        **kept,
        **airflow_env(home, 1),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
        "SCORECARD_BACKFILL_CLUSTERS": str(ROOT / "sandbox" / "clusters"),
        # What Airflow says would be in front of the answer.
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        **settings,
    }


def migrate(home: Path, env: Mapping[str, str]) -> None:
    """Make the metadata database of an environment. Raises RuntimeError with what Airflow said."""
    home.mkdir(parents=True, exist_ok=True)
    _run([*airflow_command("db", "migrate")], env, MIGRATE_SECONDS)


def answer(module: str, *arguments: object, env: Mapping[str, str]) -> Any:
    """Run a module and return the JSON of its last line. Raises RuntimeError with the end of what it said."""
    said = _run([sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)], env, LIMIT_SECONDS)
    return json.loads(said.splitlines()[-1])


def _run(argv: list[str], env: Mapping[str, str], seconds: float) -> str:
    done = subprocess.run(argv, env=dict(env), cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[2:5]} ended with {done.returncode}:\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    return done.stdout

"""What DAG files cost: in the DAG processor (all clusters) and in a worker (one), beside a plain file as large."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import answer, environment
from sandbox.stack_airflow import ROOT

DAG_FILE = ROOT / "dags" / "scorecard_backfill.py"
PLAIN_FILE = Path(__file__).with_name("plain_dags.py")

Json = dict[str, Any]


def parsing(clusters: Sequence[int], state: Path) -> Json:
    """Measure CPU seconds for each number of clusters."""
    return {"clusters": [_one(count, state / "parsing") for count in clusters]}


def _one(count: int, state: Path) -> Json:
    folder = state / str(count)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "sandbox" / "clusters" / "defaults.yaml", folder)
    names = [f"c{number:03}-prod" for number in range(count)]
    for name in names:
        (folder / f"{name}.yaml").write_text(f"name: {name}\n", encoding="utf-8")
    env = environment(state / "home", SCORECARD_BACKFILL_CLUSTERS=str(folder), BENCH_DAGS=str(count))
    return {
        "clusters": count,
        "processor": answer("benchmarks.parse_child", DAG_FILE, env=env)["seconds"],
        "worker": answer("benchmarks.parse_child", DAG_FILE, f"scorecard_backfill__{names[-1]}", env=env)["seconds"],
        "plain": answer("benchmarks.parse_child", PLAIN_FILE, env=env)["seconds"],
    }

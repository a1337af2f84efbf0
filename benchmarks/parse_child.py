"""What executing a DAG file costs where it is executed: in a process that was forked after the plugin was loaded.

    python -m benchmarks.parse_child DAG_FILE [DAG_ID]

With a DAG id as a worker does it (this DAG only), without as the DAG processor does it (all, then serialized). The
clusters are those of SCORECARD_BACKFILL_CLUSTERS. Prints one JSON object; each figure is the least of some forks.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

import scorecard_backfill_plugin  # noqa: F401  (loaded before the fork, as Airflow does)

FORKS = 3
DAG_ID_VARIABLE = "_AIRFLOW_PARSING_CONTEXT_DAG_ID"
"""How Airflow names the wanted DAG to a DAG file (airflow.sdk.definitions._internal.dag_parsing_context)."""


def execute(file: Path) -> list[Any]:
    """Execute a DAG file and return the DAGs that it made."""
    made: list[Any] = []
    leave = DAG.__exit__

    def collect(self: Any, *args: Any) -> Any:
        made.append(self)
        return leave(self, *args)

    DAG.__exit__ = collect  # type: ignore[method-assign]
    spec = importlib.util.spec_from_file_location("measured_dag_file", file)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return made


def measured(file: Path, *, serialized: bool) -> dict[str, float]:
    """Return CPU seconds of executing and of serializing, and how many DAGs there were."""
    start = time.process_time()
    dags = execute(file)
    parsed = time.process_time() - start
    if serialized:
        from airflow.serialization.serialized_objects import DagSerialization

        start = time.process_time()
        for dag in dags:
            DagSerialization.to_dict(dag)
        return {"dags": len(dags), "parse": parsed, "serialize": time.process_time() - start}
    return {"dags": len(dags), "parse": parsed, "serialize": 0.0}


def forked(file: Path, *, serialized: bool) -> dict[str, float]:
    """Measure in a fork, whose caches are as empty as those of a worker or of the DAG processor's child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, json.dumps(measured(file, serialized=serialized)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        found: dict[str, float] = json.loads(answer.read())
    os.waitpid(pid, 0)
    return found


def main() -> int:
    """Measure the file of the command line."""
    file, wanted = Path(sys.argv[1]), sys.argv[2:]
    if wanted:
        os.environ[DAG_ID_VARIABLE] = wanted[0]
    found = [forked(file, serialized=not wanted) for _ in range(FORKS)]
    least = {name: round(min(one[name] for one in found), 4) for name in found[0]}
    print(json.dumps({**least, "seconds": round(min(one["parse"] + one["serialize"] for one in found), 4)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A sandbox to measure in: one cluster with chosen data, a proxy that counts the calls to Temporal, and the books."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.counters import Counters
from benchmarks.settings_folder import FOLDER
from sandbox.airflow_api import AirflowApi
from sandbox.stack import running_stack
from sandbox.stack_airflow import ROOT
from sandbox.stack_layout import Options
from sandbox.stack_model import AIRFLOW_USER, TEMPORAL_NAMESPACE, Cluster, Stack
from sandbox.stack_wait import ports_from

CLUSTER = "sandbox-east"
PORTS = 24
"""More than a stack of one cluster takes; the last one is the proxy's."""

TRIES = 50
API_SECONDS = 300.0


@dataclass(frozen=True)
class Rig:
    """A running stack that is measured; ``temporal`` is the proxy's address."""

    stack: Stack
    cluster: Cluster
    counters: Counters
    temporal: str

    @contextmanager
    def api(self) -> Iterator[AirflowApi]:
        """Give a client of Airflow's REST API."""
        with AirflowApi(self.stack.airflow_url, AIRFLOW_USER, self.stack.airflow_password, API_SECONDS) as api:
            yield api


@dataclass(frozen=True)
class Data:
    """What is generated: conversations a month by customer, in days from ``first`` to ``end`` (exclusive)."""

    customers: Mapping[str, int]
    first: str = "2026-01-01"
    end: str = "2026-02-01"

    def arguments(self) -> tuple[str, ...]:
        """Return the generator's arguments."""
        chosen = [word for name, rate in self.customers.items() for word in ("--customer", f"{name}={rate}")]
        return (*chosen, "--first-day", self.first, "--end-day", self.end)


def free_base(count: int = PORTS) -> int:
    """Return the first of so many ports in a row that were free a moment ago. Raises OSError after some tries."""
    random = Random(os.urandom(8))
    for _ in range(TRIES):
        base = random.randrange(20_000, 30_000)
        try:
            ports_from(base, count)
        except OSError:
            continue
        return base
    raise OSError(f"no {count} free ports in a row between 20000 and 30000 in {TRIES} tries")


@contextmanager
def rig(
    state: Path,
    data: Data,
    *,
    airflow: bool = True,
    env: Mapping[str, str] | None = None,
    dag_ids: Sequence[str] | None = None,
) -> Iterator[Rig]:
    """Run a stack of one cluster for the time of the block; ``env`` comes on top of its own settings."""
    base = free_base()
    proxy, temporal = base + PORTS - 1, base + 1
    books, calls = state / "statements", state / "temporal-calls.jsonl"
    state.mkdir(parents=True, exist_ok=True)
    books.mkdir(exist_ok=True)
    for old in (*books.iterdir(), calls):
        old.unlink(missing_ok=True)
    connection = {
        "conn_type": "temporal",
        "host": "127.0.0.1",
        "port": proxy,
        "extra": {"namespace": TEMPORAL_NAMESPACE},
    }
    options = Options(
        clusters=(CLUSTER,),
        port_base=base,
        data_arguments={CLUSTER: data.arguments()},
        airflow=airflow,
        dag_ids=None if dag_ids is None else tuple(dag_ids),
        extra_env={
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(FOLDER)]),
            "BENCH_STATEMENTS": str(books),
            "BENCH_TEMPORAL": f"127.0.0.1:{proxy}",
            "AIRFLOW_CONN_TEMPORAL_SANDBOX_EAST": json.dumps(connection),
            **(env or {}),
        },
    )
    with _proxy(proxy, temporal, calls, state), running_stack(state / "stack", options) as stack:
        cluster = stack.cluster(CLUSTER)
        yield Rig(stack, cluster, Counters(stack, cluster, calls, books), f"127.0.0.1:{proxy}")


@contextmanager
def _proxy(port: int, upstream: int, record: Path, state: Path) -> Iterator[None]:
    argv: list[Any] = [sys.executable, "-m", "standins.temporal.proxy", "--listen", port]
    argv += ["--upstream", f"127.0.0.1:{upstream}", "--faults", state / "no-faults.json", "--record", record]
    with (state / "proxy.log").open("ab") as log:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([str(word) for word in argv], cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()

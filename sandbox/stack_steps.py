"""Steps of starting a sandbox: commands that run once, and the checks that a part is ready."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import httpx

from sandbox.airflow_api import AirflowApi, ApiError
from sandbox.stack_airflow import ROOT
from sandbox.stack_model import AIRFLOW_USER
from sandbox.stack_supervisor import PartError
from sandbox.stack_wait import port_answers, tail, wait_for


class OneShot:
    """A command that runs to its end, in a process group of its own, with its output in a log file."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                list(argv),
                env=dict(env),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def wait(self, deadline_seconds: float) -> None:
        """Wait for exit code 0; raises PartError with the end of its log otherwise."""
        try:
            code = self._process.wait(deadline_seconds)
        except subprocess.TimeoutExpired:
            raise PartError(
                f"{self.name} runs longer than {deadline_seconds:g} s; end of {self._log}:\n{tail(self._log)}"
            ) from None
        if code != 0:
            raise PartError(f"{self.name} failed with code {code}; end of {self._log}:\n{tail(self._log)}")

    def end(self) -> None:
        """Kill the command and its process group if it still runs."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def http_answers(url: str) -> Callable[[], bool]:
    """Return a check that is true once `url` answers below HTTP 500 (401 and 404 are answers too)."""

    def check() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(url, timeout=2, trust_env=False).status_code < httpx.codes.INTERNAL_SERVER_ERROR
        return False

    return check


def tcp_answers(port: int) -> Callable[[], bool]:
    """Return a check that is true once the port accepts connections."""
    return lambda: port_answers(port)


def log_says(log: Path, text: str) -> Callable[[], bool]:
    """Return a check that is true once a log has a text: for parts that serve no port."""
    return lambda: log.exists() and text in log.read_text(errors="replace")


def wait_ready(
    checks: Mapping[str, Callable[[], bool]],
    alive: Callable[[], None],
    logs: Path,
    deadline_seconds: float,
) -> None:
    """Wait until all checks (by part name) are true; `alive` raises PartError when a part has ended.

    Raises DeadlineExceededError that names the parts not ready, with the ends of their logs.
    """
    open_checks = dict(checks)

    def all_ready() -> bool:
        alive()
        for name in [name for name, check in open_checks.items() if check()]:
            del open_checks[name]
        return not open_checks

    def missing() -> str:
        return "\n".join(f"{name} is ready; end of its log:\n{tail(logs / f'{name}.log')}" for name in open_checks)

    wait_for(all_ready, deadline_seconds, missing)


def use_wal(database: Path) -> None:
    """Switch a SQLite database to write-ahead logging, which stays in the file.

    With the default journal a reader blocks every writer; Airflow's four components would meet "database is
    locked".
    """
    with closing(sqlite3.connect(database)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise PartError(
            f"{database}: SQLite answered journal mode {mode!r}, not 'wal'; is the folder on a network disk?"
        )


def airflow_ready(url: str, password: str, dag_ids: Sequence[str]) -> Callable[[], bool]:
    """Return a check: all components healthy and all the DAGs known. Raises PartError on an import error."""

    def check() -> bool:
        # ApiError: while it starts, the server answers 500 or 503.
        client = AirflowApi(url, AIRFLOW_USER, password, timeout_seconds=10)
        with suppress(httpx.TransportError, ApiError), client as api:
            if errors := api.import_errors():
                raise PartError("a DAG file cannot be loaded:\n" + "\n".join(errors))
            health = api.health()
            components = [health.get(name) for name in ("metadatabase", "scheduler", "triggerer", "dag_processor")]
            if any(status != "healthy" for status in components):
                return False
            return set(dag_ids) <= set(api.dag_ids())
        return False

    return check

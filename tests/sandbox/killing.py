"""Kills workers and parts of a sandbox, and collects from its servers what the audit judges."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import httpx
import psutil

from sandbox.airflow_api import ApiError
from sandbox.data.truth import read_truth
from sandbox.stack_supervisor import PartControl
from sandbox.stack_wait import wait_for
from standins.kubernetes.client import KubernetesAdmin
from tests.sandbox.audit import Job, Seen
from tests.sandbox.drive import TABLES, Driver

Json = dict[str, Any]
T = TypeVar("T")

LABEL_WINDOW = "scorecard-backfill/window"
AIRFLOW = ("scheduler", "triggerer", "dag-processor", "api-server")
EXECUTORS = ("LocalExecutor", "scheduler", "airflow supervisor")
"""What stands in the title of a task's parent; the last is a process of Celery's pool."""
UP_SECONDS = 90.0
"""Limit for a part of Airflow to work again after its start, on two busy cores."""
HANG_SECONDS = 120
"""A held request goes on by itself after this, so that a failed test leaves nothing that hangs."""
STORING = ("stored_then_500", "stored_then_cut", "stored_then_hang")
_HTTP_SERVER_ERROR = 500
_TWICE = "Unique constraint violation"


def patiently(ask: Callable[[], T], seconds: float = UP_SECONDS) -> T:
    """Return what ``ask`` returns, asking again while Airflow's API is away or cannot answer.

    A clear that meets the scheduler at the same task instance is refused by Airflow as a whole (the history of a try
    would be written twice), and asked again as a person would.
    """
    answers: list[T] = []

    def asked() -> bool:
        try:
            answers.append(ask())
        except httpx.TransportError:
            return False
        except ApiError as error:
            if error.status < _HTTP_SERVER_ERROR and _TWICE not in str(error):
                raise
            return False
        return True

    wait_for(asked, seconds, "the API server answers")
    return answers[0]


@dataclass(frozen=True)
class Killer:
    """Ends processes of the driver's sandbox with SIGKILL."""

    driver: Driver

    @property
    def control(self) -> PartControl:
        """The parts of the sandbox."""
        return PartControl(self.driver.stack.control)

    def worker(self, run: str, task_id: str, index: int = -1) -> psutil.Process | None:
        """Return the process that runs a task now, None when none does."""
        record = patiently(lambda: self.driver.api.task(self.driver.dag_id, run, task_id, index))
        if record["state"] != "running" or not record["pid"]:
            return None
        try:
            process = psutil.Process(record["pid"])
            parent = process.parent()
            title = " ".join(parent.cmdline()) if parent is not None else ""
        except psutil.NoSuchProcess:
            return None
        # Airflow writes the pid down when the task starts; it could belong to somebody else by now.
        return process if any(word in title for word in EXECUTORS) else None

    def kill_worker(self, run: str, task_id: str, index: int = -1, *, supervisor: bool = False) -> bool:
        """Kill the process of a running task, or its supervisor (the executor's worker); False when none runs."""
        process = self.worker(run, task_id, index)
        victim = process.parent() if process is not None and supervisor else process
        if victim is None:
            return False
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
        return True

    def kill(self, *parts: str) -> None:
        """Kill parts."""
        for part in parts:
            self.control.kill(part)

    def start(self, *parts: str) -> None:
        """Start parts, and wait until Airflow says that they work."""
        for part in parts:
            self.control.start(part)
        self.wait_until_healthy()

    def kill_and_start(self, *parts: str) -> None:
        """Kill parts at once and start them again."""
        self.kill(*parts)
        self.start(*parts)

    def wait_until_healthy(self) -> None:
        """Wait until API server, scheduler and triggerer answer and report."""

        def healthy() -> bool:
            states = patiently(self.driver.api.health)
            return all(states[name] == "healthy" for name in ("metadatabase", "scheduler", "triggerer"))

        wait_for(healthy, UP_SECONDS, lambda: f"Airflow is healthy; {self.control.states()}")

    def restore(self) -> None:
        """Start what does not run, and end the spare triggerer."""
        states = self.control.states()
        for part in AIRFLOW:
            if states[part] != "active":
                self.control.start(part)
        if states["triggerer-2"] == "active":
            self.control.stop("triggerer-2")
        self.wait_until_healthy()


def kill_at(points: Mapping[str, tuple[Callable[[], bool], Callable[[], bool]]], seconds: float) -> None:
    """Run each point's kill as soon as its condition holds; raises DeadlineExceededError with what was not reached."""
    left = dict(points)

    def step() -> bool:
        for name, (reached, kill) in list(left.items()):
            if reached() and kill():
                del left[name]
        return not left

    wait_for(step, seconds, lambda: f"kill at {', '.join(left)}")


def kubernetes(driver: Driver) -> KubernetesAdmin:
    """Return the admin client with the token."""
    return KubernetesAdmin(driver.cluster.kubernetes_url, driver.cluster.kubeconfig)


def collect(driver: Driver, run: str) -> list[Seen]:
    """Return what the servers and the report say about each window of a run."""
    windows = driver.plan(run)
    statuses = {row["key"]: row["status"] for row in driver.report(run)["windows"]}
    begun = driver.api.request("GET", f"/dags/{driver.dag_id}/dagRuns/{run}")["run_after"]
    deletes = carried_out(driver, _epoch(begun))
    jobs = jobs_by_window(driver)
    return [
        Seen(
            label=window["label"],
            deletes=_deletes_of(driver, window, deletes),
            jobs=jobs.get(window["key"], []),
            rows={table: driver.rows(window, table) for table in TABLES},
            truth={table: driver.truth(window["start"], window["end"])[window["customer_id"]][table].after
                   for table in TABLES},
            status=statuses.get(window["key"], "not in the report"),
        )
        for window in windows
    ]  # fmt: skip


def carried_out(driver: Driver, since: float = 0.0) -> list[str]:
    """Return the ALTER statements of clients that the nodes carried out, also those whose answer was lost.

    ``since``: epoch seconds; a dropped partition does not say of which run it was.
    """
    found = []
    for node in driver.nodes():
        for row in node.statements(contains="ALTER TABLE"):
            outcome = str(row["outcome"])
            if row["time"] >= since and "not executed" not in outcome and not re.match(r"error (517|692)$", outcome):
                found.append(str(row["statement"]))
    return found


def _deletes_of(driver: Driver, window: Mapping[str, Any], statements: Iterable[str]) -> Counter[str]:
    month = window["start"][:7].replace("-", "")
    marks = (f"backfill:{window['key']}:", f"DROP PARTITION ID '{month}'")
    mine = [text for text in statements if any(mark in text for mark in marks)]
    counts: Counter[str] = Counter()
    had_rows = {profile.database: profile for profile in read_truth(driver.cluster.truth)}
    days = (datetime.fromisoformat(window[name]).date() for name in ("start", "end"))
    start, end = days
    for database in window["databases"]:
        total = had_rows[database["name"]].total(start, end)
        for table in database["tables"]:
            name = f"`{database['name']}`.`{table}`"
            count = sum(name in text for text in mine)
            if count or total.table(table).before:
                counts[f"{database['name']}.{table}"] = count
    return counts


def jobs_by_window(driver: Driver) -> dict[str, list[Job]]:
    """Return the Jobs that were ever stored, by window key: from the requests, with the ends of the stored objects."""
    admin = kubernetes(driver)
    ends: dict[str, float] = {job["metadata"]["name"]: end for job in admin.jobs() if (end := _end(job)) is not None}
    for record in admin.requests("DELETE", "/jobs/"):
        if record["status"] == 200:
            name = record["path"].rpartition("/")[2]
            at = _epoch(record["time"])
            ends[name] = min(ends.get(name, at), at)
    found: dict[str, list[Job]] = {}
    sent = [record for record in admin.requests("POST", "/jobs") if "dryRun" not in record["query"]]
    for record in stored(sent, {job["metadata"]["name"] for job in admin.jobs()}):
        meta = record["body"]["metadata"]
        if key := (meta.get("labels") or {}).get(LABEL_WINDOW):
            name = meta["name"]
            found.setdefault(key, []).append(Job(name, _epoch(record["time"]), ends.get(name)))
    return found


def stored(sent: Iterable[Json], there: Container[str]) -> list[Json]:
    """Of the creations that were sent those that made a Job, also where the answer was lost with the API server."""
    listed = list(sent)
    told = {_name(record) for record in listed if _said(record)}
    lost: dict[str, Json] = {}
    for record in listed:
        if record["status"] >= _HTTP_SERVER_ERROR and _name(record) in there and _name(record) not in told:
            lost.setdefault(_name(record), record)
    return [record for record in listed if _said(record) or lost.get(_name(record)) is record]


def _said(record: Json) -> bool:
    return record["status"] == 201 or any(kind in STORING for kind in record.get("faults") or [])


def _name(record: Json) -> str:
    return str(record["body"]["metadata"]["name"])


def _end(job: Mapping[str, Any]) -> float | None:
    status = job.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return _epoch(condition["lastTransitionTime"])
    return None


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def deleted_jobs(driver: Driver) -> list[str]:
    """Return the names of the Jobs that somebody asked the API server to delete."""
    return [record["path"].rpartition("/")[2] for record in kubernetes(driver).requests("DELETE", "/jobs/")]


def rule_hit(api_rules: Callable[[], list[Json]], number: int) -> Callable[[], bool]:
    """Return a condition: the fault rule with this number has acted."""
    return lambda: any(rule["id"] == number and rule["hits"] for rule in api_rules())


def on_create(driver: Driver, kind: str, key: str) -> Callable[[], bool]:
    """Hold the next creation of a window's Job, and return whether it is held."""
    match = {"method": "POST", "path": "/jobs$", "labels": {LABEL_WINDOW: key}}
    admin = driver.kubernetes()
    (number,) = admin.set_faults({"kind": kind, "match": match, "times": 1, "seconds": HANG_SECONDS})
    return rule_hit(admin.faults, number)

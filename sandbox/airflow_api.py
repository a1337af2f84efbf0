"""A small client of Airflow's public REST API (v2): does what a person does in the UI."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from sandbox.stack_wait import DeadlineExceededError, wait_for

__all__ = ["AirflowApi", "ApiError", "DeadlineExceededError", "TaskState", "wait_for"]

Json = dict[str, Any]
TaskRef = str | tuple[str, int]

FINISHED_RUN = ("success", "failed")
FINISHED_TASK = ("success", "failed", "upstream_failed", "skipped", "removed")
PAGE = 500
# An answer that comes before the scheduler has handled the executor's event of the asking half fails the task
# ("reported that the task instance finished with state success, but the task instance's state attribute is
# queued"); seen with an answer after 0.3 s. A person is slower than that; nothing in the API shows when it is
# safe.
ANSWER_AFTER_SECONDS = 4.0
ANSWER_POLL_SECONDS = 2.0


class ApiError(RuntimeError):
    """Airflow refused a request; `status` is the HTTP status, the text has path and Airflow's detail."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class TaskState:
    """One task instance. map_index is -1 for a task that is not mapped; state None = not scheduled yet."""

    task_id: str
    map_index: int
    state: str | None
    try_number: int
    label: str
    hostname: str


class AirflowApi:
    """Client of one Airflow. Errors of the connection come as httpx.TransportError, refusals as ApiError.

    A token is fetched when it is first needed and once more after a 401. Close it, or use it as a context
    manager.
    """

    def __init__(self, url: str, username: str, password: str, timeout_seconds: float = 30) -> None:
        self._login = {"username": username, "password": password}
        self._http = httpx.Client(base_url=url, timeout=timeout_seconds, trust_env=False)
        self._token: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send one request below /api/v2 and return the JSON answer (None when it is empty).

        Raises ApiError for a status of 400 or more.
        """
        answer = self._send(method, f"/api/v2{path}", options)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._token = None
            answer = self._send(method, f"/api/v2{path}", options)
        _raise_for(answer)
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, options: Mapping[str, Any]) -> httpx.Response:
        if self._token is None:
            answer = self._http.post("/auth/token", json=self._login)
            _raise_for(answer)
            self._token = answer.json()["access_token"]
        return self._http.request(method, path, headers={"Authorization": f"Bearer {self._token}"}, **options)

    def page(self, path: str, **params: str) -> httpx.Response:
        """Return the answer of a route of a plugin, such as `/scorecard-backfill/run`. Raises as `request`."""
        answer = self._send("GET", path, {"params": params})
        _raise_for(answer)
        return answer

    def health(self) -> dict[str, str]:
        """Return component -> status (`healthy`, `unhealthy`, or `missing` when it has never reported)."""
        raw = self.request("GET", "/monitor/health")
        return {name: (part or {}).get("status") or "missing" for name, part in raw.items()}

    def import_errors(self) -> list[str]:
        """Return file and traceback of every DAG file that could not be loaded."""
        listed = self.request("GET", "/importErrors")["import_errors"]
        return [f"{item['filename']}\n{item['stack_trace']}" for item in listed]

    def dag_ids(self) -> list[str]:
        """Return the ids of all DAGs that Airflow knows, paused ones included."""
        return [dag["dag_id"] for dag in self.request("GET", "/dags", params={"limit": PAGE})["dags"]]

    def pause(self, dag_id: str, *, paused: bool) -> None:
        """Pause or unpause a DAG."""
        self.request("PATCH", f"/dags/{_q(dag_id)}", json={"is_paused": paused})

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG."""
        self.pause(dag_id, paused=False)

    def trigger(self, dag_id: str, conf: Mapping[str, Any], run_id: str | None = None) -> str:
        """Start a run as the trigger form does (no logical date) and return its id.

        Raises ApiError 400 when the parameters do not match the DAG's schema, 409 when the run id exists.
        """
        body: Json = {"logical_date": None, "conf": dict(conf)}
        if run_id is not None:
            body["dag_run_id"] = run_id
        return str(self.request("POST", f"/dags/{_q(dag_id)}/dagRuns", json=body)["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run: queued, running, success or failed."""
        return str(self.request("GET", _run(dag_id, run_id))["state"])

    def note(self, dag_id: str, run_id: str) -> str:
        """Return the note of a run, '' when it has none."""
        return str(self.request("GET", _run(dag_id, run_id))["note"] or "")

    def tasks(self, dag_id: str, run_id: str, task_id: str | None = None) -> list[TaskState]:
        """Return all task instances of a run, mapped ones included; with task_id only that task's."""
        found: list[TaskState] = []
        while True:
            params = {"limit": PAGE, "offset": len(found), "order_by": "id"}
            page = self.request("GET", f"{_run(dag_id, run_id)}/taskInstances", params=params)
            found += [_task(item) for item in page["task_instances"]]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                break
        return [task for task in found if task_id in (None, task.task_id)]

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Json:
        """Return Airflow's whole record of one task instance (`pid`, `state`, `triggerer_job`, ...)."""
        record: Json = self.request("GET", f"{_ti(dag_id, run_id, task_id)}/{map_index}")
        return record

    def states(self, dag_id: str, run_id: str, task_id: str) -> dict[int, str | None]:
        """Return map index -> state of one task."""
        return {task.map_index: task.state for task in self.tasks(dag_id, run_id, task_id)}

    def approval(self, dag_id: str, run_id: str, task_id: str = "approve", map_index: int = -1) -> Json | None:
        """Return what an approval task asks (`subject`, `body`, `options`, ...), None before it asks."""
        try:
            detail: Json = self.request("GET", f"{_ti(dag_id, run_id, task_id)}/{map_index}/hitlDetails")
        except ApiError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
        return detail

    def respond(self, dag_id: str, run_id: str, option: str, task_id: str = "approve", map_index: int = -1) -> None:
        """Answer an approval task with `Approve` or `Reject`; ApiError 409 when it has been answered."""
        body = {"chosen_options": [option], "params_input": {}}
        self.request("PATCH", f"{_ti(dag_id, run_id, task_id)}/{map_index}/hitlDetails", json=body)

    def clear(
        self,
        dag_id: str,
        run_id: str,
        tasks: Sequence[TaskRef] | None = None,
        *,
        only_failed: bool = True,
        downstream: bool = False,
        dry_run: bool = False,
    ) -> list[TaskState]:
        """Clear task instances so that they run again, and return which.

        tasks: ids, or (id, map index) for one instance; None = the whole run. The defaults are the UI's "only
        failed" without downstream.
        """
        body: Json = {
            "dag_run_id": run_id,
            "dry_run": dry_run,
            "only_failed": only_failed,
            "include_downstream": downstream,
            "reset_dag_runs": True,
        }
        if tasks is not None:
            body["task_ids"] = [list(task) if isinstance(task, tuple) else task for task in tasks]
        answer = self.request("POST", f"/dags/{_q(dag_id)}/clearTaskInstances", json=body)
        return [_task(item) for item in answer["task_instances"]]

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark one task instance `success`, `failed` or `skipped`, as the UI does."""
        path = f"{_ti(dag_id, run_id, task_id)}/{map_index}"
        self.request("PATCH", path, json={"new_state": state})

    def log(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, try_number: int = 1) -> str:
        """Return the log of one try as text, one event a line."""
        params = {"map_index": map_index, "full_content": True}
        path = f"{_ti(dag_id, run_id, task_id)}/logs/{try_number}"
        lines = self.request("GET", path, params=params)["content"]
        return "\n".join(text for line in lines for text in _log_lines(line))

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return an XCom's value; ApiError 404 when there is none."""
        params = {"map_index": map_index}
        path = f"{_ti(dag_id, run_id, task_id)}/xcomEntries/{_q(key)}"
        value = self.request("GET", path, params=params)["value"]
        # What a trigger pushes is stored as JSON text of its JSON, what a worker pushes is not.
        if isinstance(value, str) and value[:1] in ("{", "["):
            return json.loads(value)
        return value

    def wait_for_approval(
        self, dag_id: str, run_id: str, deadline_seconds: float, task_id: str = "approve", map_index: int = -1
    ) -> Json:
        """Wait until a run asks for approval and may be answered, and return what it asks.

        Raises RuntimeError when the run ends before that, DeadlineExceededError after the deadline.
        """
        asked_since: list[float] = []

        def asked() -> Json | None:
            states = self.states(dag_id, run_id, task_id)
            if states.get(map_index) != "awaiting_input":
                asked_since.clear()
                if (state := self.run_state(dag_id, run_id)) in FINISHED_RUN:
                    raise RuntimeError(f"run {run_id} ended ({state}): {self.failures(dag_id, run_id)}")
                return None
            asked_since.append(time.monotonic())
            return self.approval(dag_id, run_id, task_id, map_index) if settled() else None

        def settled() -> bool:
            return time.monotonic() - asked_since[0] >= ANSWER_AFTER_SECONDS

        return wait_for(asked, deadline_seconds, lambda: f"{task_id} asks; {self.summary(dag_id, run_id)}")

    def answer(
        self,
        dag_id: str,
        run_id: str,
        option: str,
        deadline_seconds: float,
        task_id: str = "approve",
        map_index: int = -1,
    ) -> tuple[Json, str]:
        """Wait until a run asks, answer until the task has ended, and return what it asked and the task's state.

        It asks again when the answer came before the scheduler had handled the executor's event of the asking half:
        Airflow repeats the task then. Raises as `wait_for_approval`.
        """
        asked = self.wait_for_approval(dag_id, run_id, deadline_seconds, task_id, map_index)

        def ended() -> str | None:
            state = self.states(dag_id, run_id, task_id).get(map_index)
            if state == "awaiting_input":
                with suppress_conflict():
                    self.respond(dag_id, run_id, option, task_id, map_index)
            return state if state in FINISHED_TASK else None

        def unanswered() -> str:
            return f"{task_id} ends after {option}; {self.summary(dag_id, run_id)}"

        return asked, wait_for(ended, deadline_seconds, unanswered, poll_seconds=ANSWER_POLL_SECONDS)

    def approve(
        self, dag_id: str, run_id: str, deadline_seconds: float, task_id: str = "approve", map_index: int = -1
    ) -> Json:
        """Answer Approve and return what was asked.

        Raises RuntimeError when the task fails all the same, and as `wait_for_approval`.
        """
        asked, state = self.answer(dag_id, run_id, "Approve", deadline_seconds, task_id, map_index)
        if state != "success":
            raise RuntimeError(f"{task_id} of run {run_id} ended {state}: {self.failures(dag_id, run_id)}")
        return asked

    def reject(
        self, dag_id: str, run_id: str, deadline_seconds: float, task_id: str = "approve", map_index: int = -1
    ) -> Json:
        """Answer Reject and return what was asked; raises RuntimeError when the task does not end failed or skipped."""
        asked, state = self.answer(dag_id, run_id, "Reject", deadline_seconds, task_id, map_index)
        if state == "success":
            raise RuntimeError(f"{task_id} of run {run_id} ended {state} although it was rejected")
        return asked

    def wait_for_run(self, dag_id: str, run_id: str, deadline_seconds: float) -> str:
        """Wait until a run is success or failed, and return which; raises DeadlineExceededError."""

        def finished() -> str | None:
            state = self.run_state(dag_id, run_id)
            return state if state in FINISHED_RUN else None

        return wait_for(finished, deadline_seconds, lambda: f"run ends; {self.summary(dag_id, run_id)}", poll_seconds=1)

    def summary(self, dag_id: str, run_id: str) -> str:
        """Return the states of a run's tasks on one line, for messages."""
        counts: dict[tuple[str, str], int] = {}
        for task in self.tasks(dag_id, run_id):
            key = (task.task_id, task.state or "none")
            counts[key] = counts.get(key, 0) + 1
        return ", ".join(f"{name} {state} x{count}" for (name, state), count in sorted(counts.items()))

    def failures(self, dag_id: str, run_id: str, lines: int = 15) -> str:
        """Return the failed tasks of a run, each with the end of its log."""
        failed = [task for task in self.tasks(dag_id, run_id) if task.state == "failed"]
        texts = []
        for task in failed:
            log = self.log(dag_id, run_id, task.task_id, task.map_index, task.try_number).splitlines()
            texts.append("\n".join([f"{task.task_id}[{task.map_index}] {task.label}", *log[-lines:]]))
        return "\n\n".join(texts) or "no failed task"


@contextmanager
def suppress_conflict() -> Iterator[None]:
    """Ignore HTTP 409: somebody, or an earlier call, has answered already."""
    try:
        yield
    except ApiError as error:
        if error.status != httpx.codes.CONFLICT:
            raise


def _task(raw: Json) -> TaskState:
    return TaskState(
        task_id=raw["task_id"],
        map_index=raw["map_index"],
        state=raw["state"],
        try_number=raw["try_number"],
        label=raw.get("rendered_map_index") or "",
        hostname=raw.get("hostname") or "",
    )


def _log_lines(line: str | Json) -> list[str]:
    if isinstance(line, str):
        return [line]
    errors = line.get("error_detail") or []
    return [str(line["event"]), *(f"{error.get('exc_type')}: {error.get('exc_value')}" for error in errors)]


def _q(text: str) -> str:
    return quote(text, safe="")


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{_q(dag_id)}/dagRuns/{_q(run_id)}"


def _ti(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run(dag_id, run_id)}/taskInstances/{_q(task_id)}"


def _raise_for(answer: httpx.Response) -> None:
    if answer.status_code < httpx.codes.BAD_REQUEST:
        return
    request = answer.request
    raise ApiError(
        answer.status_code,
        f"{request.method} {request.url.path}: HTTP {answer.status_code} {answer.text[:2000]}",
    )

"""The demo's flow over a client of Airflow that is played here: what it asks, what it says, when it gives up."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest

from include.scorecard_backfill.params.form import RunParams
from sandbox import demo
from sandbox.airflow_api import AirflowApi, ApiError, TaskState
from sandbox.data.generate import generate
from sandbox.data.spec import rates_spec
from sandbox.data.truth import TABLES, profile_truth, write_truth
from sandbox.stack_model import Stack
from sandbox.stack_wait import DeadlineExceededError

DAG = "scorecard_backfill__sandbox-east"


class PlayedApi:
    """Answers like Airflow during one run; keeps what it was asked."""

    def __init__(self, states: list[str], report: Any, *, plan_fails: bool = False) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._states: Iterator[str] = iter(states)
        self._report = report
        self._plan_fails = plan_fails

    def unpause(self, dag_id: str) -> None:
        self.calls.append(("unpause", dag_id))

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        self.calls.append(("trigger", dag_id, conf))
        return "run-1"

    def wait_for_approval(self, dag_id: str, run_id: str, deadline_seconds: float) -> dict[str, Any]:
        if self._plan_fails:
            raise RuntimeError("run run-1 ended (failed): preflight: no rights")
        self.calls.append(("asked", run_id))
        return {"subject": "Delete?", "body": "| plan |"}

    def approve(self, dag_id: str, run_id: str, deadline_seconds: float) -> None:
        self.calls.append(("approve", run_id))

    def run_state(self, dag_id: str, run_id: str) -> str:
        return next(self._states)

    def tasks(self, dag_id: str, run_id: str) -> list[TaskState]:
        return [TaskState("windows.admit", 0, "deferred", 1, "", "")]

    def summary(self, dag_id: str, run_id: str) -> str:
        return "plan success x1"

    def failures(self, dag_id: str, run_id: str) -> str:
        return "report[-1]: red"

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        if isinstance(self._report, Exception):
            raise self._report
        return self._report


class Terminal(io.StringIO):
    """A stream that is a terminal, or is not."""

    def __init__(self, yes: bool) -> None:
        super().__init__()
        self._yes = yes

    def isatty(self) -> bool:
        return self._yes


def play(api: PlayedApi, said: list[str]) -> dict[str, Any]:
    """Run the flow over a played client."""
    return demo.clean_month(cast(AirflowApi, api), DAG, "delete_first", said.append)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LOOK_SECONDS", 0.0)


@pytest.mark.parametrize("order", demo.CLUSTERS)
def test_parameters_are_accepted_by_the_form(order: str) -> None:
    params = RunParams.read(demo.run_parameters(order))
    assert params.order == order
    assert (params.mode, params.all_customers, params.require_approval) == ("cleanup", True, True)
    assert params.dry_run is False
    assert (params.start_date, params.end_date) == ("2026-01-01", "2026-02-01")


def test_approves_only_after_the_plan_was_shown() -> None:
    said: list[str] = []
    api = PlayedApi(["running", "running", "success"], {"planned": 1})
    assert play(api, said) == {"planned": 1}
    assert [call[0] for call in api.calls] == ["unpause", "trigger", "asked", "approve"]
    assert "| plan |" in "".join(said)


def test_progress_is_said_once_for_each_change() -> None:
    said: list[str] = []
    play(PlayedApi(["running"] * 5 + ["success"], {}), said)
    assert said.count("windows (1): admit 1") == 1


def test_report_of_a_red_run_is_returned_and_its_failures_are_said() -> None:
    said: list[str] = []
    assert play(PlayedApi(["failed"], {"planned": 2}), said) == {"planned": 2}
    assert "report[-1]: red" in said


def test_run_that_ends_before_the_plan_is_an_error_with_its_reason() -> None:
    with pytest.raises(demo.DemoError, match="preflight: no rights"):
        play(PlayedApi([], None, plan_fails=True), [])


@pytest.mark.parametrize("report", [ApiError(404, "no such XCom"), None, "text"])
def test_run_without_a_report_is_an_error(report: Any) -> None:
    with pytest.raises(demo.DemoError, match="report"):
        play(PlayedApi(["success"], report), [])


def test_run_that_never_ends_is_given_up_with_its_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "RUN_DEADLINE_SECONDS", 0.0)
    with pytest.raises(DeadlineExceededError, match="plan success x1"):
        play(PlayedApi(["running"] * 3, {}), [])


def test_quiet_run_says_so_and_less_often_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "QUIET_SECONDS", 1.0)
    now = iter(range(1000))
    monkeypatch.setattr("sandbox.demo.time.monotonic", lambda: float(next(now)))
    said: list[str] = []
    play(PlayedApi(["running"] * 40 + ["success"], {}), said)
    quiet = [text for text in said if text.startswith("no window has moved for")]
    assert quiet[:3] == [f"no window has moved for {n} s; the tasks' logs say what they wait for" for n in (1, 2, 4)]
    assert len(quiet) < 8


def test_only_a_terminal_without_ci_keeps_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("sys.stdin", Terminal(True))
    monkeypatch.setattr("sys.stdout", Terminal(True))
    assert demo.keeps_by_default() is True
    monkeypatch.setenv("CI", "true")
    assert demo.keeps_by_default() is False
    monkeypatch.setenv("CI", "")
    monkeypatch.setattr("sys.stdin", Terminal(False))
    assert demo.keeps_by_default() is False


def test_result_compares_with_the_truth_of_the_month_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = rates_spec("sandbox-east", {"acme": 30}, first_day=date(2025, 12, 1), end_day=date(2026, 3, 1))
    truths = [profile_truth(profile, generate(spec, profile)) for profile in spec.profiles]
    write_truth(tmp_path / "truth.json", spec, truths)
    month = truths[0].total(*demo.MONTH)
    counts = {name: month.table(name) for name in TABLES}
    tables = {n: {"before": c.before, "after": c.after, "removed": c.removed} for n, c in counts.items()}
    report = {
        "planned": 1,
        "verified": 1,
        "windows": [{"label": "w", "status": "verified", "note": ""}],
        "customers": [{"customer_id": "acme", "windows": 1, "verified": 1, "tables": tables}],
    }
    assert month.scorecard.before < truths[0].total(date.min, date.max).scorecard.before
    assert demo.show_result(report, tmp_path / "truth.json", lambda _text: None) == []
    assert f"{month.scorecard.removed:,}" in capsys.readouterr().out
    tables["score"]["after"] += 1
    assert len(demo.show_result(report, tmp_path / "truth.json", lambda _text: None)) == 1


def test_refused_state_folder_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("ten years")
    assert demo.main(["--state", str(tmp_path), "--no-keep"]) == 1
    assert "not a state folder" in capsys.readouterr().err


class PlayedStack:
    """A stack of which only the cluster is asked for."""

    def cluster(self, name: str) -> str:
        return name


def played_demo(monkeypatch: pytest.MonkeyPatch, *, holder: int | None, wrong: list[str]) -> list[str]:
    """Let the demo run without a sandbox; returns what it did."""
    done: list[str] = []

    @contextmanager
    def started(state: Path, *_: Any) -> Iterator[PlayedStack]:
        done.append(f"start {state.name}")
        yield PlayedStack()
        done.append("stop")

    def shown(_stack: Any, cluster: str, order: str, _say: Any) -> list[str]:
        done.append(f"clean {cluster} {order}")
        return wrong

    monkeypatch.setattr(demo, "holder_pid", lambda _state: holder)
    monkeypatch.setattr(Stack, "load", lambda _state: PlayedStack())
    monkeypatch.setattr(demo, "running_stack", started)
    monkeypatch.setattr(demo, "login_text", lambda _stack: "login")
    monkeypatch.setattr(demo, "demonstrate", shown)
    return done


@pytest.mark.parametrize(("wrong", "code"), [([], 0), (["acme: 1 row"], 1)])
def test_a_sandbox_is_started_and_ended_around_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: list[str], code: int
) -> None:
    done = played_demo(monkeypatch, holder=None, wrong=wrong)
    assert demo.main(["--state", str(tmp_path / "mine"), "--no-keep"]) == code
    assert done == ["start mine", "clean sandbox-east delete_first", "stop"]


@pytest.mark.parametrize(("wrong", "code"), [([], 0), (["acme: 1 row"], 1)])
def test_a_sandbox_that_runs_already_is_used_and_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: list[str], code: int
) -> None:
    done = played_demo(monkeypatch, holder=17, wrong=wrong)
    assert demo.main(["--state", str(tmp_path / "mine"), "--cluster", "west"]) == code
    assert done == ["clean sandbox-west delete_first"]


def test_an_order_is_shown_on_a_cluster_that_allows_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = played_demo(monkeypatch, holder=17, wrong=[])
    assert demo.main(["--state", str(tmp_path / "mine"), "--order", "reindex_first"]) == 0
    assert done == ["clean sandbox-west reindex_first"]

"""The page's routes: who may see and do what, what they say, and how many queries it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow import settings as airflow_settings
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.variable import Variable
from airflow.utils.session import create_session
from fastapi import FastAPI
from sqlalchemy import delete, event, select, update
from sqlalchemy.orm import Session

from backfill.api import looks, memory, windows
from backfill.api.app import build_app
from include.scorecard_backfill.overview import rows
from include.scorecard_backfill.overview.facts import NO_TASK
from include.scorecard_backfill.overview.results import planned_of
from include.scorecard_backfill.planning.overrides import in_force
from tests.airflow.page.conftest import person
from tests.kit.airflow_home import ROOT
from tests.kit.page_story import DAG, NOON, OTHER, Story, window_record

RUN = "manual__2026-03-01T12:00:00+00:00"
OVERRIDE = "scorecard_backfill_override__sandbox-east"
LOOKS = [("run", {"dag_id": DAG, "run_id": RUN}), ("dag", {"dag_id": DAG}), ("me", {"dag_id": DAG}),
         ("clusters", {}), ("export", {"dag_id": DAG, "run_id": RUN, "kind": "csv"}),
         ("debts", {"dag_id": DAG}), ("static/backfill.js", {})]  # fmt: skip
ACTIONS = [("retry", {}), ("reset", {"customer": "acme"}), ("reset", {"customer": "acme", "keys": []}),
           ("pause", {"reason": "disk", "hours": 1}), ("resume", {}),
           ("limit", {"max_parallel": 2, "reason": "disk", "hours": 1}),
           ("end-job", {"key": "acme-2026-01-01"}), ("start-slot", {"slot": "2026-01-02T06:00:00Z"}),
           ("write-off", {"key": "k" * 16, "digest": "d" * 16, "reason": "customer is gone"})]  # fmt: skip


def half_done(session: Session, run_id: str = RUN) -> None:
    """A run with a verified, a failed, a working and a waiting window."""
    told = Story(session, run_id)
    customers = ["wayne", "acme", "globex", "hooli"]
    windows = [window_record(c) for c in customers]
    told.plan(windows)
    told.window(windows[0], 0, 6)
    told.window(windows[1], 1, 3, "failed")
    told.window(windows[2], 2, 3, "deferred", next_method="job_ended")
    told.window(windows[3], 3, 0, "deferred")
    told.task("report", "failed")
    session.commit()


@contextmanager
def counted() -> Iterator[list[str]]:
    """Statements that the block has sent to Airflow's database."""
    seen: list[str] = []
    engine = airflow_settings.get_engine()

    def note(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize(("path", "query"), LOOKS)
async def test_no_look_without_a_login(fresh: FastAPI, path: str, query: dict[str, str]) -> None:
    async with person(fresh, None) as nobody:
        assert (await nobody.get(f"/{path}", params=query)).status_code == 401
    async with person(fresh, "viewer") as forged:
        forged.headers["Authorization"] = "Bearer forged"
        assert (await forged.get(f"/{path}", params=query)).status_code == 403


@pytest.mark.parametrize(("path", "body"), ACTIONS)
async def test_no_action_without_the_right(fresh: FastAPI, story: Session, path: str, body: dict[str, Any]) -> None:
    half_done(story)
    query = {"dag_id": DAG, "run_id": RUN}
    for role, status in ((None, 401), ("viewer", 403)):
        async with person(fresh, role) as client:
            assert (await client.post(f"/actions/{path}", params=query, json=body)).status_code == status
    with create_session() as session:
        assert session.scalar(select(Variable).where(Variable.key == OVERRIDE)) is None
        assert session.scalar(select(Log).where(Log.event.startswith("backfill_"))) is None


def test_every_route_is_behind_a_login(page_app: FastAPI) -> None:
    known = {f"/{path}" for path, _ in LOOKS} | {f"/actions/{path}" for path, _ in ACTIONS}
    assert {getattr(route, "path", "") for route in build_app().routes} == known


async def test_a_look_at_a_run_says_how_far_it_is(fresh: FastAPI, story: Session) -> None:
    half_done(story)
    async with person(fresh, "viewer") as client:
        answer = await client.get("/run", params={"dag_id": DAG, "run_id": RUN})
        rights = (await client.get("/me", params={"dag_id": DAG})).json()
    view = answer.json()
    assert answer.headers["content-encoding"] == "gzip"
    assert view["headline"] == "1 of 4 windows verified, 1 in work, 1 waiting, 1 failed."
    assert [(w["customer"], w["state"], w["stage"]) for w in view["windows"]] == [
        ("wayne", "verified", "done"), ("acme", "failed", "reindex"),
        ("globex", "working", "reindex"), ("hooli", "waiting", "admit"),
    ]  # fmt: skip
    assert view["windows"][1]["reason"] == "the Job is gone"
    assert view["windows"][2]["may_end_job"]
    assert view["figures"]["removed"] == {"scorecard": 10}
    assert view["who"]["answered_by"] == "jane"
    assert set(rights) == {"retry", "reset", "end_job", "pause", "limit", "start"}
    assert not any(rights.values())


async def test_a_look_shows_the_windows_of_all_batches_in_the_order_of_the_plan(fresh: FastAPI, story: Session) -> None:
    told = Story(story, RUN)
    windows = [window_record(c) for c in ("wayne", "acme", "globex", "hooli")]
    told.plan(windows)
    told.xcom("plan", "batches", [0, 1, 0, 2])
    told.window(windows[0], 0, 6)
    told.task("open_windows_2", "success")
    told.window(windows[1], 0, 3, "failed", group="windows_2")
    told.window(windows[2], 1, 0, "deferred")
    told.task("open_windows_3", "deferred")
    story.commit()
    async with person(fresh, "viewer") as client:
        view = (await client.get("/run", params={"dag_id": DAG, "run_id": RUN})).json()
    assert [(w["customer"], w["state"], w["task"], w["index"]) for w in view["windows"]] == [
        ("wayne", "verified", "windows.verify", 0), ("acme", "failed", "windows_2.reindex", 0),
        ("globex", "waiting", "windows.admit", 1), ("hooli", "waiting", "", 0),
    ]  # fmt: skip
    assert view["windows"][1]["reason"] == "the Job is gone"


async def test_what_another_plans_window_has_left_at_a_map_index_is_not_shown(fresh: FastAPI, story: Session) -> None:
    told = Story(story, RUN)
    earlier, now = window_record("acme", key="an-earlier-plans"), window_record("globex")
    told.plan([now])
    told.window(earlier, 0, 3, "failed")
    story.commit()
    async with person(fresh, "viewer") as client:
        view = (await client.get("/run", params={"dag_id": DAG, "run_id": RUN})).json()
    (shown,) = view["windows"]
    assert (shown["customer"], shown["state"]) == ("globex", "failed")
    assert "the Job is gone" not in shown["reason"]


async def test_what_is_not_ours_is_said_in_one_line(fresh: FastAPI) -> None:
    async with person(fresh, "admin") as client:
        other = await client.get("/run", params={"dag_id": OTHER, "run_id": "x"})
        none = await client.get("/run", params={"dag_id": DAG, "run_id": "no-such-run"})
    assert (other.status_code, other.json()["detail"]) == (
        404, "This DAG is not a scorecard backfill, so there is nothing to show here.",
    )  # fmt: skip
    assert (none.status_code, none.json()["detail"]) == (404, f"DAG {DAG} has no run no-such-run.")


@pytest.mark.parametrize("windows", [3, 300])
async def test_the_number_of_queries_does_not_depend_on_the_number_of_windows(
    fresh: FastAPI, story: Session, windows: int
) -> None:
    told = Story(story, RUN)
    listed = [window_record(f"customer-{n}") for n in range(windows)]
    told.plan(listed)
    for index, one in enumerate(listed):
        told.window(one, index, 6 if index % 2 else 3, "deferred")
    story.commit()
    async with person(fresh, "viewer") as client:
        with counted() as first:
            view = (await client.get("/run", params={"dag_id": DAG, "run_id": RUN})).json()
        with counted() as second:
            await client.get("/run", params={"dag_id": DAG, "run_id": RUN})
    assert view["counts"]["planned"] == windows
    about_the_run = [s for s in first if "task_instance" in s or "xcom" in s or "dag_run" in s or "variable" in s
                     or "asset_state" in s]  # fmt: skip
    assert len(about_the_run) == 9
    # Who looks is asked each time; the run is not read again for the next person.
    assert not [s for s in second if "xcom" in s or "task_instance" in s]


async def test_what_has_not_changed_is_neither_parsed_nor_made_again(
    fresh: FastAPI, story: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Story(story, RUN)
    listed = [window_record(f"customer-{n}") for n in range(30)]
    told.plan(listed)
    for index, one in enumerate(listed):
        done, now = (6, None) if index < 20 else (4, "deferred") if index < 22 else (0, "deferred")
        told.window(one, index, done, now)
    story.commit()
    made: Counter[str] = Counter()
    for module, name in ((windows, "planned_of"), (windows, "result_of"), (rows, "_row")):
        count_calls(monkeypatch, module, name, made)
    query = {"dag_id": DAG, "run_id": RUN}
    async with person(fresh, "viewer") as client:
        first = (await client.get("/run", params=query)).json()
        assert made == {"planned_of": 30, "result_of": 22, "_row": 30}
        made.clear()
        looks.answers.forget()
        second = (await client.get("/run", params=query)).json()
        assert made == {"result_of": 2}, "only what is under way is read again"
        assert second["windows"] == first["windows"]
        made.clear()
        change(20, "windows.wait_workflows", "failed")
        looks.answers.forget()
        third = (await client.get("/run", params=query)).json()
    assert made == {"result_of": 2, "_row": 1}
    changed = [new for old, new in zip(first["windows"], third["windows"], strict=True) if old != new]
    # The slot of the one that failed goes to the waiting ones: their words change, they are not made anew.
    assert [w["customer"] for w in changed if w["state"] != "waiting"] == ["customer-20"]
    assert [w["state"] for w in third["windows"]].count("failed") == 1


def count_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, made: Counter[str]) -> None:
    real = getattr(module, name)

    def counting(*args: Any, **more: Any) -> Any:
        made[name] += 1
        return real(*args, **more)

    monkeypatch.setattr(module, name, counting)


def change(index: int, task_id: str, state: str) -> None:
    """Give a task instance another state, as Airflow does."""
    with create_session() as session:
        mine = (TaskInstance.run_id == RUN, TaskInstance.task_id == task_id, TaskInstance.map_index == index)
        session.execute(update(TaskInstance).where(*mine).values(state=state))


async def test_a_retry_clears_only_what_failed_and_is_in_the_audit_log(fresh: FastAPI, story: Session) -> None:
    half_done(story)
    async with person(fresh, "user", "mary") as client:
        none = await client.post("/actions/retry", params={"dag_id": DAG, "run_id": RUN}, json={"customer": "hooli"})
        done = await client.post("/actions/retry", params={"dag_id": DAG, "run_id": RUN}, json={"customer": "acme"})
    assert none.status_code == 409
    assert done.status_code == 200, done.text
    with create_session() as session:
        tasks = session.execute(
            select(TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state).where(TaskInstance.run_id == RUN)
        ).all()
        cleared = {(t, i) for t, i, state in tasks if state is None}
        assert cleared == {("windows.reindex", 1), ("windows.wait_workflows", 1), ("windows.verify", 1), ("report", -1)}
        assert ("approve", -1, "success") in [tuple(t) for t in tasks]
        entry = session.scalars(select(Log).where(Log.event == "backfill_retry_failed")).one()
        assert (entry.owner, entry.dag_id, entry.run_id) == ("mary", DAG, RUN)
        assert json.loads(entry.extra or "")["customer"] == "acme"
        session.delete(entry)


async def test_pause_limit_and_resume_write_the_override_with_the_persons_name(fresh: FastAPI, story: Session) -> None:
    half_done(story)
    query = {"dag_id": DAG, "run_id": RUN}
    async with person(fresh, "op", "mary") as client:
        assert (await client.get("/me", params={"dag_id": DAG})).json()["pause"]
        limit = {"max_parallel": 7, "reason": "weekend", "hours": 3}
        assert (await client.post("/actions/limit", params=query, json=limit)).status_code == 200
        assert (
            await client.post("/actions/pause", params=query, json={"reason": "disk is full", "hours": 2})
        ).status_code == 200
        paused = (await client.get("/run", params=query)).json()
        assert (await client.post("/actions/resume", params=query, json={})).status_code == 200
        resumed = (await client.get("/run", params=query)).json()
        bad = await client.post("/actions/limit", params=query, json=limit | {"hours": 9_999})
    assert (paused["override"]["author"], paused["override"]["pause"], paused["limits"]["max_parallel"]) == (
        "mary", True, 7,
    )  # fmt: skip
    assert paused["windows"][3]["reason"].startswith("paused by mary until ")
    assert (resumed["override"]["pause"], resumed["limits"]["max_parallel"]) == (False, 7)
    assert bad.status_code == 422
    with create_session() as session:
        log = session.scalars(select(Log).where(Log.event.startswith("backfill_")).order_by(Log.id)).all()
        assert [(e.event, e.owner) for e in log] == [
            ("backfill_change_limit", "mary"), ("backfill_pause", "mary"), ("backfill_resume", "mary"),
        ]  # fmt: skip
        for entry in log:
            session.delete(entry)
        Variable.delete(OVERRIDE, session=session)


async def test_a_limit_for_an_hour_ends_nobodys_pause(fresh: FastAPI, story: Session) -> None:
    query = {"dag_id": DAG, "run_id": RUN}
    async with person(fresh, "op", "mary") as mary:
        pause = {"reason": "disk is full", "hours": 48}
        assert (await mary.post("/actions/pause", params=query, json=pause)).status_code == 200
    async with person(fresh, "op", "john") as john:
        limit = {"max_parallel": 2, "reason": "weekend", "hours": 1}
        said = (await john.post("/actions/limit", params=query, json=limit)).json()["done"]
    with create_session() as session:
        stored = session.scalar(select(Variable).where(Variable.key == OVERRIDE))
        assert stored is not None
        found = in_force(stored.val, datetime.now(UTC))
        Variable.delete(OVERRIDE, session=session)
        session.execute(delete(Log).where(Log.event.startswith("backfill_")))
    assert found is not None
    assert (found.pause, found.max_parallel, found.author) == (True, 2, "john")
    assert found.until > datetime.now(UTC) + timedelta(hours=47)
    assert f"until {found.until:%Y-%m-%d %H:%M} UTC" in said
    assert found.reason.startswith("weekend; by mary until ")
    assert found.reason.endswith(": disk is full")


async def test_a_window_that_was_verified_after_a_clear_is_so_since_then(fresh: FastAPI, story: Session) -> None:
    told = Story(story, RUN)
    one = window_record("acme")
    told.plan([one])
    told.window(one, 0, 6)
    again = NOON + timedelta(hours=2)
    values = {"start_date": again, "end_date": NOON + timedelta(minutes=1)}
    story.execute(update(TaskInstance).where(TaskInstance.task_id == "windows.verify").values(**values))
    story.commit()
    async with person(fresh, "viewer") as client:
        view = (await client.get("/run", params={"dag_id": DAG, "run_id": RUN})).json()
    assert view["windows"][0]["since"] == again.isoformat().replace("+00:00", "Z")


async def test_ids_with_markup_stay_text(fresh: FastAPI, story: Session) -> None:
    told = Story(story, "manual__markup")
    told.plan([window_record("<script>alert(1)</script>")])
    told.window(window_record("<script>alert(1)</script>"), 0, 3, "failed")
    story.commit()
    async with person(fresh, "viewer") as client:
        answer = await client.get("/run", params={"dag_id": DAG, "run_id": told.run_id})
        file = await client.get("/export", params={"dag_id": DAG, "run_id": told.run_id, "kind": "md"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["windows"][0]["customer"] == "<script>alert(1)</script>"
    assert "attachment" in file.headers["content-disposition"]


async def test_history_and_clusters_name_each_run_and_customer(fresh: FastAPI, story: Session) -> None:
    half_done(story)
    old = Story(story, "manual__older", "success", queued_at=None)
    old.plan([window_record("wayne")])
    old.task("report", "success")
    customers = [{"customer_id": "wayne", "windows": 1, "verified": 1, "tables": {"scorecard": {"removed": 10}}}]
    old.xcom("report", "summary", {"planned": 1, "verified": 1, "complete": True, "customers": customers,
                                        "windows": ["many"], "total": {"scorecard": {"removed": 10}}})  # fmt: skip
    story.commit()
    async with person(fresh, "viewer") as client:
        history = (await client.get("/dag", params={"dag_id": DAG})).json()
        seen = (await client.get("/clusters")).json()["clusters"]
    verdicts = {r["run_id"]: (r["verdict"], r["removed"]) for r in history["runs"]}
    assert verdicts == {RUN: ("running", {}), "manual__older": ("complete", {"scorecard": 10})}
    assert [(c["customer"], c["run_id"], c["removed"]) for c in history["customers"]] == [
        ("wayne", "manual__older", {"scorecard": 10}),
    ]  # fmt: skip
    assert [c["dag_id"] for c in seen] == [DAG]


ELSEWHERE = """
import sys
from airflow import plugins_manager as p
p.ensure_plugins_loaded()
p.integrate_macros_plugins()
p.get_timetables_plugins()
p.get_global_operator_extra_links()
assert "backfill.operators.reindex" in sys.modules
print(sorted(m for m in sys.modules if m.startswith("backfill.api")))
"""


def test_only_the_api_server_pays_for_the_page(airflow_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ELSEWHERE], env=airflow_environment, cwd=ROOT, capture_output=True,
        text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "['backfill.api', 'backfill.api.plugin']"


def test_runs_that_nobody_looks_at_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "WINDOWS", 5)
    memory.forget()
    kept = {run: memory.memory_of(DAG, run) for run in ("first", "second", "third")}
    listed = [planned_of(window_record(f"customer-{n}")) for n in range(9)]
    for run, found in kept.items():
        found.sources["plan"] = memory.Source(NO_TASK, listed if run == "third" else listed[:2], {})
    memory.memory_of(DAG, "third")
    assert memory.memory_of(DAG, "third") is kept["third"], "the one in hand stays, however large"
    assert memory.memory_of(DAG, "second") is not kept["second"]
    memory.forget()

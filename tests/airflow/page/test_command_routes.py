"""The command against the real routes, over a database of Airflow's own models: rights, audit log, what is cleared."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from backfill.cli.main import main
from backfill.cli.output import Output
from tests.airflow.page.conftest import token
from tests.kit.page_story import DAG, STAGES, Story, window_record

RUN = "manual__2026-03-01T12:00:00+00:00"


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def call(app: FastAPI, role: str, *argv: str) -> Ended:
    """Run the command as mary with a role of Airflow's simple auth manager."""
    out, err = io.StringIO(), io.StringIO()
    env = {"AIRFLOW_API_URL": "http://airflow", "AIRFLOW_API_TOKEN": token(role, "mary")["Authorization"][7:]}
    code = main(argv, env=env, transport=TestClient(app)._transport, output=Output("--json" in argv, out, err, None))
    return Ended(code, out.getvalue(), err.getvalue())


def half_done(session: Session) -> None:
    """A run with a verified, a failed and a working window of acme, and a failed one of globex."""
    told = Story(session, RUN)
    months = [("2026-01-01", "2026-02-01"), ("2026-02-01", "2026-03-01"), ("2026-03-01", "2026-04-01")]
    windows = [*(window_record("acme", *month) for month in months), window_record("globex")]
    told.plan(windows)
    told.window(windows[0], 0, 6)
    told.window(windows[1], 1, 3, "failed")
    told.window(windows[2], 2, 3, "deferred", next_method="job_ended")
    told.window(windows[3], 3, 3, "failed")
    told.task("report", "failed")
    session.commit()


def states() -> dict[tuple[str, int], str | None]:
    with create_session() as session:
        columns = (TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state)
        rows = session.execute(select(*columns).where(TaskInstance.run_id == RUN)).all()
    return {(task_id, index): state for task_id, index, state in rows}


def test_status_and_report_of_a_real_run(fresh: FastAPI, story: Session) -> None:
    half_done(story)
    ended = call(fresh, "viewer", "status", "--cluster", "sandbox-east")
    assert ended.code == 1, ended.err
    assert "1 of 4 windows verified, 1 in work, 2 failed." in ended.out
    lines = [text.split() for text in ended.out.splitlines()]
    assert ["acme", "2026-02-01..2026-03-01", "failed", "reindex"] in [words[:4] for words in lines]

    assert call(fresh, "viewer", "status", "--cluster", "sandbox-east", "--json").out.startswith('{"dag_id"')
    report = call(fresh, "viewer", "report", "--markdown")
    assert (report.code, "| acme | 1/3 | scorecard | 100 | 90 | 10 |" in report.out) == (1, True), report.out


def test_reset_clears_every_stage_of_the_customers_failed_window_and_is_in_the_audit_log(
    fresh: FastAPI, story: Session
) -> None:
    half_done(story)
    before = states()
    asked = call(fresh, "user", "reset", "acme")
    assert (asked.code, states()) == (2, before), asked.err
    assert "  acme 2026-02-01..2026-03-01\n" in asked.err

    ended = call(fresh, "user", "reset", "acme", "--yes")
    assert ended.code == 0, ended.err
    assert "1 window of acme" in ended.out
    after = states()
    cleared = {place for place, state in after.items() if state is None}
    assert cleared == {*((f"windows.{stage}", 1) for stage in STAGES), ("report", -1)}
    assert {p: s for p, s in after.items() if p not in cleared} == {p: s for p, s in before.items() if p not in cleared}
    with create_session() as session:
        entry = session.scalars(select(Log).where(Log.event == "backfill_reset")).one()
        assert (entry.owner, entry.dag_id, entry.run_id) == ("mary", DAG, RUN)
        assert json.loads(entry.extra or "")["windows"] == ["acme 2026-02-01..2026-03-01"]
        session.delete(entry)


def test_reset_of_a_day_that_is_verified_or_not_planned_is_no(fresh: FastAPI, story: Session) -> None:
    half_done(story)
    before = states()
    verified = call(fresh, "user", "reset", "acme", "2026-01-31", "--yes")
    assert (verified.code, "verified; to do it again, start a new run" in verified.err) == (1, True)
    assert call(fresh, "user", "reset", "acme", "2026-05-01", "--yes").code == 1
    assert states() == before


def test_without_the_right_nothing_is_cleared(fresh: FastAPI, story: Session) -> None:
    half_done(story)
    before = states()
    for argv in (("reset", "acme", "--yes"), ("retry",), ("pause", "--reason", "disk", "--hours", "1")):
        ended = call(fresh, "viewer", *argv)
        assert (ended.code, "HTTP 403" in ended.err) == (3, True), ended.err
    assert states() == before


def test_a_run_that_is_not_there_is_no(fresh: FastAPI, story: Session) -> None:
    half_done(story)
    ended = call(fresh, "viewer", "status", "--run", "manual__nothing")

    assert (ended.code, "has no run manual__nothing" in ended.err) == (1, True)

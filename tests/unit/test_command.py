"""The command `python -m backfill` against an Airflow in memory: what it asks for, prints, and how it ends."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from include.scorecard_backfill.overview import Overview
from include.scorecard_backfill.overview.facts import Approval
from include.scorecard_backfill.overview.missed import Missed
from tests.kit.fake_airflow import PAGE, FakeAirflow
from tests.unit.command_fixtures import DAG, FAILED, RUN, TOKEN, VERIFIED, airflow, call, line, view
from tests.unit.overview_fixtures import at, planned, window

PLACE = {"dag_id": DAG, "run_id": RUN}


def test_status_of_all_clusters_has_a_line_each_and_is_no_when_one_of_them_has_failed() -> None:
    west = line(FAILED, cluster="west", dag_id="scorecard_backfill__west")
    ended = call(airflow(VERIFIED, west), "status")

    assert ended.code == 1
    assert "1 of 1 window verified." in ended.out
    assert "west: !! 1 window failed: heartbeat_timeout in wait_workflows." in ended.out
    assert call(airflow(VERIFIED), "status").code == 0


def test_a_slot_that_was_missed_is_said_and_is_no_failure() -> None:
    slot = Missed(slot=at(0), days=("2026-02-01", "2026-03-01"), what="The run of 2 March did not start.",
                  mode="reindex", whom="all customers")  # fmt: skip
    ended = call(airflow(missed=slot), "status")
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "missed: east: The run of 2 March did not start.")


def test_status_of_a_run_shows_what_a_person_must_do_and_each_open_window() -> None:
    server = airflow(FAILED)
    ended = call(server, "status", "--cluster", "east")

    assert ended.code == 1
    assert server.seen[-1][1:3] == (f"{PAGE}/run", PLACE)
    assert "1 of 2 windows verified, 1 failed." in ended.out
    row = next(text for text in ended.out.splitlines() if text.startswith("acme 2026"))
    assert "failed" in row
    assert "no heartbeat for 300 s" in row
    assert "globex 2026" not in ended.out
    assert "globex 2026" in call(airflow(FAILED), "status", "--cluster", "east", "--all").out


def test_a_question_or_a_pause_is_no_failure() -> None:
    asking = view(window(planned("acme")), approval=Approval(at(1)), tasks={})
    ended = call(airflow(asking), "status", "--cluster", "east")

    assert ended.code == 0
    assert "The plan waits for approval" in ended.out


def test_json_is_what_the_page_gets() -> None:
    ended = call(airflow(FAILED), "status", "--cluster", "east", "--json")

    assert Overview.model_validate_json(ended.out) == FAILED


def test_a_named_run_is_looked_at_instead_of_the_newest() -> None:
    server = airflow()
    call(server, "status", "--run", "manual__0")

    assert server.seen[-1][2] == {"dag_id": DAG, "run_id": "manual__0"}


def test_ids_cannot_command_the_terminal() -> None:
    evil = view(window(planned("ac\x1b[2Jme\r"), done=4, now="failed"))
    ended = call(airflow(evil), "status", "--cluster", "east")

    assert "\x1b" not in ended.out + ended.err
    assert "ac?[2Jme?" in ended.out


@pytest.mark.parametrize(("look", "code"), [(VERIFIED, 0), (FAILED, 1)])
def test_report_shows_rows_of_each_customer_and_is_no_while_a_window_is_not_verified(look: Overview, code: int) -> None:
    ended = call(airflow(look), "report")

    assert ended.code == code
    rows = [text.split() for text in ended.out.splitlines()]
    verified = "acme" if look is VERIFIED else "globex"
    assert [verified, "1/1", "scorecard", "100", "90", "10"] in rows
    assert (["acme", "0/1"] in rows) == (look is FAILED)
    assert json.loads(call(airflow(look), "report", "--json").out)["run_id"] == RUN


def test_report_as_a_file_is_the_pages_file() -> None:
    server = airflow(VERIFIED)
    server.answers["GET", f"{PAGE}/export"] = httpx.Response(200, text="customer,start\n")
    for option, kind in (("--csv", "csv"), ("--markdown", "md")):
        assert call(server, "report", option).out == "customer,start\n"
        assert server.seen[-1][1:3] == (f"{PAGE}/export", {**PLACE, "kind": kind})
    assert call(server, "report", "--csv", "--json").code == 2


def test_plan_starts_a_dry_run_waits_and_shows_the_plan() -> None:
    asked = {"dry_run": True, "mode": "cleanup"}
    waiting = view(plan_hash=None, run={}, approval=None, tasks={})
    planned_one = view(window(planned("acme")), run=asked, approval=None)
    looks = [waiting, waiting, planned_one]
    server = airflow(VERIFIED)
    server.answers["POST", f"/api/v2/dags/{DAG}/dagRuns"] = {"dag_run_id": "manual__2"}
    server.answers["GET", f"{PAGE}/run"] = lambda _: httpx.Response(200, text=looks.pop(0).model_dump_json())
    ended = call(server, "plan", "--customer", "acme", "--start", "2026-01-01", "--end", "2026-02-01")

    assert ended.code == 0, ended.err
    assert not looks
    conf = {"customers": ["acme"], "all_customers": False, "mode": "cleanup", "dry_run": True,
            "start_date": "2026-01-01", "end_date": "2026-02-01"}  # fmt: skip
    assert server.deeds() == [(f"/api/v2/dags/{DAG}/dagRuns", {}, {"logical_date": None, "conf": conf})]
    assert [q["run_id"] for _, path, q, _ in server.seen if path.endswith("/run")] == ["manual__2"] * 3
    assert "Dry run: 1 window of 1 customer" in ended.out
    assert next(text for text in ended.out.splitlines() if text.startswith("acme")).split()[1:5] == [
        "1",
        "2026-01-01",
        "2026-02-01",
        "1,000",
    ]


def test_a_plan_that_is_refused_says_why() -> None:
    refused = view(plan_hash=None, run={}, approval=None, tasks={}, refusal="customers: 'hooli' is not known")
    server = airflow(VERIFIED)
    server.answers["POST", f"/api/v2/dags/{DAG}/dagRuns"] = {"dag_run_id": "manual__2"}
    server.answers["GET", f"{PAGE}/run"] = json.loads(refused.model_dump_json())
    ended = call(server, "plan", "--customer", "hooli")

    assert ended.code == 1
    assert "customers: 'hooli' is not known" in ended.out


def test_a_plan_that_does_not_come_is_no_and_names_the_run() -> None:
    waiting = view(plan_hash=None, run={}, approval=None, tasks={})
    server = airflow(VERIFIED)
    server.answers["POST", f"/api/v2/dags/{DAG}/dagRuns"] = {"dag_run_id": "manual__2"}
    server.answers["GET", f"{PAGE}/run"] = json.loads(waiting.model_dump_json())
    ended = call(server, "plan", "--all-customers", "--wait", "1")

    assert ended.code == 1
    assert "status --run manual__2" in ended.err


@pytest.mark.parametrize(
    ("look", "fields", "text"),
    [(VERIFIED, {"paused": True}, "is paused in Airflow"), (view(window(planned("acme"), 3, "deferred")), {}, RUN)],
)
def test_a_plan_that_would_not_start_is_not_started(look: Overview, fields: dict[str, Any], text: str) -> None:
    server = airflow(look, **fields)
    server.answers["GET", f"/api/v2/dags/{DAG}"] = {"dag_id": DAG, "is_paused": True}
    ended = call(server, "plan", "--all-customers")

    assert (ended.code, server.deeds()) == (1, [])
    assert text in ended.err


def test_a_dag_that_was_unpaused_a_second_ago_is_not_refused_by_an_older_answer_of_the_page() -> None:
    server = airflow(VERIFIED, paused=True)
    server.answers["GET", f"/api/v2/dags/{DAG}"] = {"dag_id": DAG, "is_paused": False}
    server.answers["POST", f"/api/v2/dags/{DAG}/dagRuns"] = {"dag_run_id": "manual__2"}
    ended = call(server, "plan", "--all-customers")

    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    "argv",
    [
        ("plan",),
        ("plan", "--customer", "acme", "--all-customers"),
        ("plan", "--all-customers", "--start", "2026-01-01"),
        ("plan", "--all-customers", "--start", "2026-02-01", "--end", "2026-02-01"),
        ("plan", "--all-customers", "--start", "20260101", "--end", "2026-02-01"),
        ("pause", "--reason", "disk", "--hours", "337"),
        ("pause", "--reason", "  ", "--hours", "1"),
        ("pause", "--hours", "1"),
        ("reset", " "),
        ("reset", "acme", "31.01.2026"),
        ("undo", "--all-customers"),
        ("status", "--password", "x"),
        ("status", "--cluster", "mars"),
        ("frobnicate",),
        (),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_done(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    server = airflow()

    assert call(server, *argv).code == 2
    assert server.deeds() == []


def test_which_cluster_is_asked_only_when_there_are_several() -> None:
    west = line(VERIFIED, cluster="west", dag_id="scorecard_backfill__west")
    server = airflow(VERIFIED, west)
    server.answers["POST", f"{PAGE}/actions/resume"] = {"done": "Admission goes on."}
    ended = call(server, "resume")
    assert (ended.code, ended.err) == (2, "Which cluster? Give --cluster; known: east, west.\n")

    ended = call(server, "resume", env={**TOKEN, "SCORECARD_BACKFILL_CLUSTER": "west"})
    assert (ended.code, ended.out) == (0, "Admission goes on.\n")
    assert server.deeds() == [(f"{PAGE}/actions/resume", {"dag_id": "scorecard_backfill__west"}, {})]


def test_retry_and_pause_press_the_pages_buttons() -> None:
    server = airflow(FAILED)
    server.answers["POST", f"{PAGE}/actions/retry"] = {"done": "4 failed tasks were cleared."}
    server.answers["POST", f"{PAGE}/actions/pause"] = {"done": "Admission is paused until noon."}

    assert call(server, "retry", "--customer", "acme").out == "4 failed tasks were cleared.\n"
    assert call(server, "retry", "--json").out == '{"done": "4 failed tasks were cleared."}\n'
    assert call(server, "pause", "--reason", "disk full", "--hours", "2").code == 0
    assert server.deeds() == [
        (f"{PAGE}/actions/retry", PLACE, {"customer": "acme"}),
        (f"{PAGE}/actions/retry", PLACE, {"customer": None}),
        (f"{PAGE}/actions/pause", {"dag_id": DAG}, {"reason": "disk full", "hours": 2}),
    ]


def test_what_the_server_refuses_is_no_in_its_own_words() -> None:
    server = airflow()
    refusal = "Nothing of acme has failed that could be retried."
    server.answers["POST", f"{PAGE}/actions/retry"] = httpx.Response(409, json={"detail": refusal})
    ended = call(server, "retry", "--customer", "acme")
    assert (ended.code, ended.err) == (1, f"{refusal}\n")

    ended = call(server, "retry", "--customer", "acme", "--json")
    assert (ended.out, json.loads(ended.err)) == ("", {"error": refusal, "exit_code": 1})


def resettable() -> FakeAirflow:
    server = airflow(FAILED)
    server.answers["POST", f"{PAGE}/actions/reset"] = {
        "done": "1 window of acme is done again.",
        "windows": [["k1", "acme 2026-01-01..2026-02-01"]],
        "left": [["acme 2026-02-01..2026-03-01", "verified"]],
    }
    return server


@pytest.mark.parametrize(("options", "answers"), [((), ["yes"]), (("--yes",), None)])
def test_reset_shows_what_it_does_and_clears_exactly_that(options: tuple[str, ...], answers: list[str] | None) -> None:
    server = resettable()
    ended = call(server, "reset", "acme", "2026-01-31", *options, answers=answers)

    assert (ended.code, ended.out) == (0, "1 window of acme is done again.\n")
    body = {"customer": "acme", "day": "2026-01-31"}
    path = f"{PAGE}/actions/reset"
    assert server.deeds() == [(path, PLACE, body), (path, PLACE, {**body, "keys": ["k1"]})]
    assert "  acme 2026-01-01..2026-02-01\n" in ended.err
    assert "left alone: acme 2026-02-01..2026-03-01: verified" in ended.err


@pytest.mark.parametrize(("answers", "code"), [(["no"], 1), ([""], 1), (["y"], 1), (None, 2)])
def test_reset_without_a_yes_clears_nothing(answers: list[str] | None, code: int) -> None:
    server = resettable()
    ended = call(server, "reset", "acme", answers=answers)

    assert ended.code == code
    assert "Nothing was done" in ended.err
    assert [body for _, _, body in server.deeds()] == [{"customer": "acme", "day": None}]


def test_undo_asks_and_starts_the_undo_dag_for_the_named_run() -> None:
    undo = "scorecard_backfill_undo__east"
    server = airflow()
    server.answers["GET", f"/api/v2/dags/{undo}"] = {"dag_id": undo, "is_paused": True}
    server.answers["POST", f"/api/v2/dags/{undo}/dagRuns"] = {"dag_run_id": "manual__9"}
    argv = ("undo", "--run", RUN, "--customer", "acme", "--customer", "globex")
    assert call(server, *argv, answers=["no"]).code == 1
    assert server.deeds() == []

    ended = call(server, *argv, answers=["yes"])
    assert ended.code == 0
    conf = {"run_id": RUN, "customers": ["acme", "globex"], "all_customers": False, "meant": False}
    assert server.deeds() == [(f"/api/v2/dags/{undo}/dagRuns", {}, {"logical_date": None, "conf": conf})]
    assert "only the rows that should have come back" in ended.err
    assert "That DAG is paused" in ended.err


def test_a_cluster_without_snapshots_has_no_undo() -> None:
    ended = call(airflow(), "undo", "--run", RUN, "--all-customers", "--yes")

    assert (ended.code, "takes no snapshots" in ended.err) == (1, True)


def test_the_report_of_a_dry_run_is_its_plan() -> None:
    dry = view(window(planned("acme")), state="success", run={"dry_run": True})
    ended = call(airflow(dry), "report")

    assert ended.code == 0
    assert "conversations" in ended.out
    assert "verified" not in ended.out

"""The operator's page in Airflow's frame: every question of an operator is answered one click from the run's page."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from sandbox.airflow_api import AirflowApi
from sandbox.stack_airflow import database_path
from sandbox.stack_model import Stack
from sandbox.stack_wait import wait_for
from tests.browser.conftest import logged_in, picture
from tests.sandbox.drive import APPROVAL_SECONDS, RUN_SECONDS, Driver

AXE = Path(str(files("axe_playwright_python"))) / "axe.min.js"

START, END = "2026-01-01", "2026-02-01"
RUN = f"page-{uuid4().hex[:6]}"

GOOD, BROKEN, SLOW = "initech", "hooli", "wayne"


@pytest.fixture(scope="module")
def run(east: Driver) -> Iterator[str]:
    """A cleanup of three customers, in three windows each: one customer's Job fails, another's workflows are slow."""
    fails = {"id": "jf", "kind": "job_fail", "customer": BROKEN}
    east.set_worker_faults(fails, {"id": "s", "kind": "slow", "customer": SLOW, "seconds": 4})
    customers = [GOOD, BROKEN, SLOW]
    conf = {"customers": customers, "start_date": START, "end_date": END, "window": "10d", "max_parallel": 2}
    yield east.start(RUN, approve=False, **conf)
    east.set_worker_faults()


def path(east: Driver, run: str) -> str:
    return f"/dags/{east.dag_id}/runs/{run}/plugin/backfill"


def figure(page: Page, name: str) -> Locator:
    """The value under a figure's name."""
    return page.locator(".bf-figures div", has=page.get_by_text(name, exact=True)).locator("dd")


def view(east: Driver, run: str) -> dict[str, Any]:
    """What the page's route says of a run."""
    token = east.api.request("GET", "/version") and east.api._token
    url = f"{east.stack.airflow_url}/scorecard-backfill/run"
    answer = httpx.get(url, params={"dag_id": east.dag_id, "run_id": run}, headers={"Authorization": f"Bearer {token}"})
    answer.raise_for_status()
    return dict(answer.json())


def test_what_waits_for_approval_is_on_top_with_a_link_and_the_plan_below(page: Page, east: Driver, run: str) -> None:
    east.api.wait_for_approval(east.dag_id, run, APPROVAL_SECONDS)
    page.goto(f"/dags/{east.dag_id}/runs/{run}")
    page.get_by_role("link", name="Backfill", exact=True).click()
    expect(page.get_by_text("wait for approval; nothing has been deleted.")).to_be_visible()
    plan = page.get_by_role("region", name="Plan by customer")
    for customer in (GOOD, BROKEN, SLOW):
        expect(plan.get_by_role("rowheader", name=customer)).to_be_visible()
    total = plan.get_by_role("rowheader", name="all", exact=True)
    expect(total).to_be_visible()
    expect(page.get_by_text("admin", exact=False).first).to_be_visible()
    picture(page, "page-approval")
    page.get_by_role("link", name="Approve or reject").click()
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_visible()


def test_a_run_under_way_answers_every_question_at_once(page: Page, east: Driver, run: str) -> None:
    east.api.approve(east.dag_id, run, APPROVAL_SECONDS)
    wait_for(lambda: view(east, run)["counts"]["verified"] > 0, RUN_SECONDS, "a window is verified", poll_seconds=2)
    page.goto(path(east, run))
    expect(page.locator(".bf-page").get_by_role("progressbar")).to_be_visible()
    expect(page.locator(".bf-headline")).to_contain_text(re.compile(r"\d+ of 12 windows verified"))
    expect(figure(page, "Rows removed")).to_contain_text("scorecard")
    expect(figure(page, "Conversations per minute")).to_contain_text("written again")
    expect(figure(page, "Time left")).to_contain_text(re.compile(r"ends (between|at about) \d"))
    matrix = page.get_by_role("region", name="Customers and days")
    for customer in (GOOD, BROKEN, SLOW):
        expect(matrix.get_by_role("rowheader", name=customer)).to_be_visible()
    windows = page.get_by_role("region", name="Windows", exact=True)
    expect(windows.get_by_role("row")).to_have_count(13)
    waiting = windows.get_by_role("row", name=re.compile("waits for|in the queue"))
    expect(waiting.first).to_be_visible()
    picture(page, "page-running")


def test_a_cell_leads_to_its_row_and_the_arrow_keys_walk(page: Page, east: Driver, run: str) -> None:
    page.goto(path(east, run))
    cell = page.get_by_role("button", name=re.compile(f"^{SLOW} {START}"))
    cell.click()
    row = page.locator("tr.bf-chosen")
    expect(row).to_contain_text(SLOW)
    expect(row).to_be_in_viewport()
    first = page.locator(".bf-matrix button[tabindex='0']")
    first.focus()
    at = first.get_attribute("data-key")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    now = page.evaluate("document.activeElement.dataset.key")
    assert now
    assert now != at


def test_filter_sort_and_search(page: Page, east: Driver, run: str) -> None:
    page.goto(path(east, run))
    windows = page.get_by_role("region", name="Windows", exact=True)
    page.get_by_role("searchbox", name="Search").fill(GOOD)
    expect(windows.get_by_role("row")).to_have_count(5)
    page.get_by_role("searchbox", name="Search").fill("")
    head = windows.get_by_role("columnheader", name="Window")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    expect(windows.get_by_role("rowheader").first).to_contain_text(BROKEN)
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    expect(windows.get_by_role("rowheader").first).to_contain_text(SLOW)


def test_pause_asks_once_and_is_in_the_audit_log_with_the_persons_name(page: Page, east: Driver, run: str) -> None:
    page.goto(path(east, run))
    page.get_by_role("button", name="Pause admission").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("No further window of this cluster is started.")
    picture(page, "page-pause")
    dialog.get_by_label("Reason").fill("the disk is full")
    dialog.get_by_role("button", name="Pause").click()
    expect(page.get_by_text(re.compile("Admission is paused by admin until .* the disk is full"))).to_be_visible()
    page.get_by_role("button", name="Resume", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Admission goes on.")).to_be_visible()
    logs = east.api.request("GET", "/eventLogs", params={"dag_id": east.dag_id, "limit": 500, "order_by": "-when"})
    ours = [(e["event"], e["owner"]) for e in logs["event_logs"] if e["event"].startswith("backfill_")]
    assert ours[:2] == [("backfill_resume", "admin"), ("backfill_pause", "admin")]


def test_a_failure_is_named_with_its_windows_and_retried_alone(page: Page, east: Driver, run: str) -> None:
    assert east.finish(run) == "failed"
    before = {t.task_id: t.try_number for t in east.api.tasks(east.dag_id, run) if t.task_id == "approve"}
    verified = view(east, run)["counts"]["verified"]
    page.goto(path(east, run))
    note = page.get_by_role("listitem").filter(has_text=re.compile("windows? failed:"))
    expect(note).to_contain_text(f"{BROKEN} {START}..2026-01-11")
    gone = page.get_by_role("listitem").filter(has_text="Deleted, not yet reindexed")
    expect(gone.get_by_role("time")).to_be_visible()
    expect(page.get_by_role("region", name="Report by customer")).to_contain_text(GOOD)
    picture(page, "page-failed")
    east.set_worker_faults()
    deleted = {t.map_index: t.try_number for t in east.api.tasks(east.dag_id, run, "windows.delete")}
    again, *retried = reset_one(page, view(east, run))
    note.get_by_role("button", name="Retry what failed").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("the approval that was given stays given")
    dialog.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("they run again as soon as there is room")).to_be_visible()
    assert east.finish(run) == "success", east.api.failures(east.dag_id, run)
    # Everybody who looks within some seconds gets the same answer.
    wait_for(lambda: view(east, run)["state"] == "complete", 60, "the page shows the end", poll_seconds=1)
    after = view(east, run)
    assert after["counts"]["verified"] == 12
    tries = {t.map_index: t.try_number for t in east.api.tasks(east.dag_id, run, "windows.delete")}
    assert tries[again] > deleted[again], "every stage of the window that was reset, also those that had ended well"
    assert [tries[index] for index in retried] == [deleted[index] for index in retried], "only what failed"
    assert verified < 12
    assert before == {t.task_id: t.try_number for t in east.api.tasks(east.dag_id, run) if t.task_id == "approve"}
    page.goto(path(east, run))
    expect(page.locator(".bf-headline")).to_have_text("12 of 12 windows verified.")
    total = sum(numbers["removed"] for numbers in after["report"]["total"]["tables"].values())
    expect(figure(page, "Rows removed")).to_contain_text(f"{total:,}")
    picture(page, "page-complete")


def reset_one(page: Page, seen: dict[str, Any]) -> list[int]:
    """Reset the first failed window of BROKEN by the page and leave its others; return their map indexes."""
    ended = [w for w in seen["windows"] if w["customer"] == BROKEN and w["state"] in ("failed", "not_started")]
    failed = [w for w in ended if w["state"] == "failed"]
    page.get_by_role("button", name=f"Reset {BROKEN}").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("A DELETE that was taken is not sent again")
    # The one that the breaker has held back has ended, too.
    expect(dialog.get_by_role("checkbox")).to_have_count(len(ended))
    picture(page, "page-reset")
    for window in ended:
        if window is failed[0]:
            continue
        dialog.get_by_role("checkbox", name=window["label"]).uncheck()
    dialog.get_by_role("button", name="Reset").click()
    expect(page.get_by_text(f"1 window of {BROKEN} is done again from the first stage on")).to_be_visible()
    return [int(window["index"]) for window in failed]


def test_a_missed_slot_is_said_and_its_button_starts_it(page: Page, stack: Stack, api: AirflowApi) -> None:
    dag_id = stack.cluster("west").dag_id
    api.unpause(dag_id)
    database = database_path(stack.state / "airflow")
    if not database.exists():
        pytest.skip("the DAG is made older in Airflow's SQLite file")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE dag_version SET created_at = '2020-01-01 00:00:00' WHERE dag_id = ?", (dag_id,))
    page.goto("/plugin/scorecard-backfills")
    page.get_by_role("row", name=re.compile("sandbox-west")).get_by_role("link", name=re.compile("^Missed: ")).click()
    note = page.get_by_role("region", name="What needs a person")
    expect(note).to_contain_text("Nothing makes up for it by itself")
    picture(page, "page-missed")
    note.get_by_role("button", name="Start it now").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("mode reindex, tyrell")
    dialog.get_by_role("button", name="Start").click()
    expect(page.get_by_text(re.compile("The run slot__.* was started"))).to_be_visible()
    expect(note).to_have_count(0)
    (run,) = api.request("GET", f"/dags/{dag_id}/dagRuns", params={"run_id_pattern": "slot__"})["dag_runs"]
    month = run["conf"]["start_date"], run["conf"]["end_date"]
    assert (run["conf"]["customers"], month[0][5:], month[1][5:]) == (["tyrell"], "06-01", "07-01")
    assert (run["run_type"], run["triggering_user_name"]) == ("manual", "admin")
    api.wait_for_run(dag_id, run["dag_run_id"], RUN_SECONDS)


def test_the_dags_tab_names_runs_and_customers_and_the_menu_all_clusters(page: Page, east: Driver, run: str) -> None:
    page.goto(f"/dags/{east.dag_id}")
    page.get_by_role("link", name="Scorecards", exact=True).click()
    runs = page.get_by_role("region", name=re.compile("^Runs"))
    expect(runs.get_by_role("row", name=re.compile(RUN))).to_contain_text("complete")
    customers = page.get_by_role("region", name=re.compile("^Customers and when"))
    expect(customers.get_by_role("row", name=re.compile(GOOD))).to_contain_text(RUN)
    picture(page, "page-dag")
    page.goto("/plugin/scorecard-backfills")
    line = page.get_by_role("row", name=re.compile("sandbox-east"))
    expect(line).to_contain_text("12 of 12 windows verified.")
    picture(page, "page-clusters")
    line.get_by_role("link", name="12 of 12 windows verified.").click()
    expect(page.locator(".bf-headline")).to_be_visible()


def test_files_hold_what_the_page_shows(page: Page, east: Driver, run: str) -> None:
    page.goto(path(east, run))
    for name, wanted in (("windows as CSV", GOOD), ("everything as JSON", '"headline"'),
                         ("plan and report as Markdown", "| all | 12/12 |")):  # fmt: skip
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        assert wanted in Path(download.value.path()).read_text()


def test_the_first_view_is_quick_and_the_bundle_small(page: Page, east: Driver, run: str) -> None:
    page.goto(path(east, run))
    expect(page.locator(".bf-headline")).to_be_visible()
    sizes = page.evaluate(
        "performance.getEntriesByType('resource').filter(e => e.name.includes('/scorecard-backfill/'))"
        ".map(e => [e.name.split('?')[0].split('/').pop(), e.encodedBodySize])"
    )
    assert {name for name, _ in sizes} >= {"backfill.js", "run", "me"}
    assert all(size < 250_000 for name, size in sizes if name == "backfill.js")


def test_a_dag_that_is_not_ours_says_so_in_one_line(page: Page, east: Driver) -> None:
    page.goto("/dags/scorecard_backfill_undo__sandbox-west/plugin/scorecards")
    expect(page.get_by_text("This DAG is not a scorecard backfill")).to_be_visible()
    expect(page.locator(".bf-card")).to_have_count(0)


@pytest.fixture(params=["light", "dark", "narrow"])
def dressed(browser: Browser, east: Driver, request: pytest.FixtureRequest) -> Iterator[tuple[str, Page]]:
    """A logged-in page in light, in dark, and 400 px wide."""
    width = 400 if request.param == "narrow" else 1600
    with logged_in(browser, east.stack, width=width) as made:
        made.evaluate("theme => localStorage.setItem('theme', theme)", "dark" if request.param == "dark" else "light")
        yield request.param, made


def test_accessible_in_light_in_dark_and_on_a_phone(dressed: tuple[str, Page], east: Driver, run: str) -> None:
    how, page = dressed
    # Airflow's own frame leaves a phone no room on a run's page; the page of all clusters has the whole width.
    page.goto("/plugin/scorecard-backfills" if how == "narrow" else path(east, run))
    expect(page.locator(".bf-card").first).to_be_visible()
    assert page.evaluate("document.documentElement.classList.contains('dark')") == (how == "dark")
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run('.bf-page', {resultTypes: ['violations']})")
    serious = [
        (v["id"], [n["html"][:200] for n in v["nodes"][:3]], v["nodes"][0]["any"][:1])
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == [], json.dumps(serious, indent=1)
    if how == "narrow":
        wide = page.evaluate("document.querySelector('.bf-page').scrollWidth")
        assert wide <= page.evaluate("document.querySelector('.bf-page').clientWidth")
    picture(page, f"page-{how}")

"""A person starts a cleanup in the form, reads the plan, approves it, and sees what was done to whom."""

from __future__ import annotations

import re
from urllib.parse import unquote
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from sandbox.stack_wait import wait_for
from tests.browser.conftest import picture
from tests.sandbox.drive import APPROVAL_SECONDS, Driver

CUSTOMERS = ["acme", "stark-industries"]
# Days that no other test of the shared sandbox takes.
START, END = "2026-01-21", "2026-01-31"
FORM_SECONDS = 60


def offered(east: Driver) -> list[str]:
    """Customers that the form offers, as Airflow's REST API gives its schema."""
    details = east.api.request("GET", f"/dags/{east.dag_id}/details")
    return list(details["params"]["customers"]["schema"].get("examples") or ())


@pytest.fixture(scope="module", autouse=True)
def known_customers(east: Driver) -> list[str]:
    """The list that the last plan has left for the form; a dry run makes one where there was none."""
    if not offered(east):
        run = f"list-{uuid4().hex[:6]}"
        days = {"start_date": START, "end_date": END}
        assert east.finish(east.start(run, approve=False, all_customers=True, dry_run=True, **days)) == "success"
    return wait_for(lambda: offered(east), FORM_SECONDS, "the form has the customers of the last plan")


def fill_form(page: Page, east: Driver, customers: list[str], start: str, end: str) -> str:
    """Start a cleanup by the form and return the run's id."""
    page.goto(f"/dags/{east.dag_id}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    for customer in customers:
        form.locator("#element_customers").get_by_role("combobox").fill(customer)
        page.get_by_role("option", name=customer, exact=True).click()
    picture(page, "form")
    form.locator("[name=element_start_date]").fill(start)
    form.locator("[name=element_end_date]").fill(end)
    form.get_by_role("combobox").first.click()
    page.get_by_role("option", name="cleanup").click()
    form.get_by_role("button", name="Trigger").click()
    page.wait_for_url("**/runs/**")
    return unquote(page.url.partition("/runs/")[2].partition("/")[0])


def approve(page: Page, east: Driver, run: str) -> None:
    """Press Approve until the task has ended; Airflow asks again when the answer came too early (see ADR 4)."""

    def done() -> bool:
        state = east.api.states(east.dag_id, run, "approve").get(-1)
        button = page.get_by_role("button", name="Approve", exact=True)
        if state == "awaiting_input" and button.is_visible() and button.is_enabled():
            button.click()
        return state == "success"

    wait_for(done, APPROVAL_SECONDS, "the plan is approved", poll_seconds=1)


def test_a_cleanup_from_the_form_to_the_report(page: Page, east: Driver, known_customers: list[str]) -> None:
    assert set(CUSTOMERS) < set(known_customers)
    run = fill_form(page, east, CUSTOMERS, START, END)
    east.api.wait_for_approval(east.dag_id, run, APPROVAL_SECONDS)
    page.goto("/required_actions")
    asked = page.get_by_role("row").filter(has=page.get_by_role("link", name=run, exact=True))
    asked.get_by_role("link", name="Delete and reindex on sandbox-east?").click()
    expect(page.get_by_text("2 windows", exact=True)).to_be_visible()
    plan = page.get_by_role("table")
    for customer in CUSTOMERS:
        expect(plan.get_by_role("cell", name=customer, exact=True)).to_be_visible()
    expect(page.get_by_text("DELETE WHERE").first).to_be_visible()
    before = east.changes()
    approve(page, east, run)

    assert east.finish(run) == "success", east.api.failures(east.dag_id, run)
    assert east.changes() > before
    east.check_report(run, START, END, CUSTOMERS)
    at = f"/dags/{east.dag_id}/runs/{run}/tasks"
    page.goto(f"{at}/windows.delete/mapped")
    for customer in CUSTOMERS:
        expect(page.get_by_role("link", name=f"{customer} {START}..{END}")).to_be_visible()
    page.goto(f"{at}/report")
    expect(page.get_by_text("2 of 2 windows verified")).to_be_visible()


def test_a_customer_that_does_not_exist_is_named_in_the_log(page: Page, east: Driver) -> None:
    before = east.changes()
    # The form offers no such customer; it can be sent in its JSON, and over REST.
    run = east.start(f"typo-{uuid4().hex[:6]}", approve=False, customers=["acmee"], start_date=START, end_date=END)
    assert east.finish(run) == "failed"
    page.goto(f"/dags/{east.dag_id}/runs/{run}/tasks/plan")
    expect(page.get_by_text(re.compile("'acmee'.*did you mean acme")).first).to_be_visible()
    assert east.changes() == before


def test_what_the_package_is_stands_beside_the_dag(page: Page, east: Driver) -> None:
    page.goto(f"/dags/{east.dag_id}")
    page.get_by_role("button", name="Dag Docs").click()
    expect(page.get_by_text("Something is red")).to_be_visible()

"""Where a window's Job, workflows and mutations can be read; the links to Airflow's own pages follow from the row."""

from __future__ import annotations

from urllib.parse import quote

from include.scorecard_backfill import names
from include.scorecard_backfill.overview.facts import Result, RunFacts, Seen, WindowFacts
from include.scorecard_backfill.overview.model import Link


def links_of(facts: RunFacts, window: WindowFacts) -> tuple[Link, ...]:
    """Return the links of a window that has come so far; '' as address where the cluster's file names none."""
    found: list[Link] = []
    if key := deleted_key(window):
        found.append(Link(kind="mutation", text=f"backfill:{key}:"))
    if job := job_of(window):
        found.append(Link(kind="job", text=job, href=fill(facts.job_url, job=job)))
    ids = workflows_of(window)
    found += [Link(kind="workflow", text=i, href=fill(facts.workflow_url, workflow_id=i)) for i in ids[:20]]
    return tuple(found)


def job_of(window: WindowFacts) -> str:
    """Return the name of the window's newest Job, also of one that still runs; '' while none was made."""
    known: list[Result | Seen] = [*window.results.values(), *window.seen.values()]
    newest = max(known, key=lambda one: (one.attempt, bool(one.job_name)), default=Result())
    if not newest.attempt:
        return ""
    return newest.job_name or names.job_name(
        key=window.window.key,
        customer_id=window.window.customer_id,
        start=window.window.start,
        attempt=newest.attempt,
    )


def deleted_key(window: WindowFacts) -> str:
    """Return the key by which the window's mutations are found; '' while it has sent none."""
    deleted = window.results.get("delete")
    return window.window.key if deleted is not None and deleted.statements else ""


def workflows_of(window: WindowFacts) -> tuple[str, ...]:
    """Return the ids of the workflows of the window's newest attempt, as far as a stage has left them."""
    known = (r for r in window.results.values() if r.workflow_ids)
    newest = max(known, key=lambda one: (one.attempt, len(one.workflow_ids)), default=Result())
    return newest.workflow_ids


def fill(template: str, **values: str) -> str:
    """Return a template with its {names} filled, each percent-encoded; '' for an address that nobody has named."""
    if not template:
        return ""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", quote(value, safe=""))
    return template

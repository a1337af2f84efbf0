"""Where a window's Job, workflows and mutations can be read; the links to Airflow's own pages follow from the row."""

from __future__ import annotations

from urllib.parse import quote

from include.scorecard_backfill import names
from include.scorecard_backfill.overview.facts import Result, RunFacts, WindowFacts
from include.scorecard_backfill.overview.model import Link


def links_of(facts: RunFacts, window: WindowFacts) -> tuple[Link, ...]:
    """Return the links of a window that has come so far; '' as address where the cluster's file names none."""
    found: list[Link] = []
    deleted = window.results.get("delete", Result())
    if deleted.statements:
        found.append(Link(kind="mutation", text=f"backfill:{window.window.key}:"))
    newest = max(window.results.values(), key=lambda r: (r.attempt, bool(r.job_name)), default=Result())
    if newest.attempt:
        job = newest.job_name or names.job_name(
            key=window.window.key,
            customer_id=window.window.customer_id,
            start=window.window.start,
            attempt=newest.attempt,
        )
        found.append(Link(kind="job", text=job, href=_fill(facts.job_url, job=job)))
    ids = max((r.workflow_ids for r in window.results.values()), key=len, default=())
    found += [Link(kind="workflow", text=i, href=_fill(facts.workflow_url, workflow_id=i)) for i in ids[:20]]
    return tuple(found)


def _fill(template: str, **values: str) -> str:
    """Return a template with its {names} filled, each percent-encoded."""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", quote(value, safe=""))
    return template

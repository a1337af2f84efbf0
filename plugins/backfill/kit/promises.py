"""What a destructive step does first: compare the terms that were approved, and write down what it will owe."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from backfill.kit import xcoms
from backfill.kit.debts import DebtBook
from backfill.settings import cluster_config
from include.scorecard_backfill.debts import Debt
from include.scorecard_backfill.life import Approval
from include.scorecard_backfill.planning.terms import Terms, differences, digest, terms_again
from include.scorecard_backfill.records import Counted, Window


def terms_now(cluster: str, planned: Terms) -> Terms:
    """Return the terms of a plan as they would be carried out at this moment, by the cluster's file as it is now."""
    return terms_again(cluster_config(cluster), planned)


def approval(context: Mapping[str, Any], cluster: str) -> tuple[Approval, str]:
    """Return whether what would be executed now is what was approved, and what differs in one line.

    Nothing is approved as long as `approve` has left no terms.
    """
    ti = context["ti"]
    planned: Terms = xcoms.pull(ti, "plan", xcoms.TERMS) or {}
    approved: Terms = xcoms.pull(ti, "approve", xcoms.TERMS) or {}
    if not planned or not approved:
        return "changed", "no terms of an approval are there: clear plan, with everything behind it"
    wrong = differences(approved, terms_now(cluster, planned))
    return ("changed", "; ".join(wrong)) if wrong else ("same", "")


def approved_digest(context: Mapping[str, Any]) -> str:
    """Return the digest of what was approved, '' when there is none."""
    approved = xcoms.pull(context["ti"], "approve", xcoms.TERMS)
    return digest(approved) if approved else ""


def promise(context: Mapping[str, Any], window: Window, counted: Counted, *, swept: bool = False) -> None:
    """Write the window's debt before its first DELETE; one that it has taken over keeps its run and its time."""
    book = DebtBook(window.cluster)
    found = book.debt(window.key)
    # One that cannot be read is written anew: all that it said, but for its first run, this window has kept itself.
    known = found if isinstance(found, Debt) else None
    # In the index since the plan; taken out of it again by a report of the run, before this window was cleared.
    book.announce([window.key])
    book.write(
        Debt(
            window=window.key,
            cluster=window.cluster,
            customer_id=window.customer_id,
            databases=window.databases,
            start=window.start,
            end=window.end,
            before=counted.before,
            run_id=known.run_id if known else context["dag_run"].run_id,
            since=known.since if known else datetime.now(UTC),
            digest=approved_digest(context),
            order=window.order,
            swept=swept,
        )
    )

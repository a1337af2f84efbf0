"""From the facts of a run to what a person sees."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from include.scorecard_backfill.overview.attention import attention_of
from include.scorecard_backfill.overview.facts import NO_TASK, RunFacts
from include.scorecard_backfill.overview.figures import counts_of, figures_of
from include.scorecard_backfill.overview.model import Counts, OverrideView, Overview, Who, WindowRow
from include.scorecard_backfill.overview.rows import Known, window_rows
from include.scorecard_backfill.overview.tables import plan_table, report_table

RunState = Literal["planning", "waiting for approval", "running", "complete", "incomplete", "nothing to do", "dry run",
                   "rejected", "refused"]  # fmt: skip

ENDED = ("success", "failed")


def overview(facts: RunFacts, now: datetime, known: Known | None = None) -> Overview:
    """Return the read model of a run as of ``now`` (aware). ``known``: see :func:`.rows.window_rows`."""
    going = _going(facts)
    rows = window_rows(facts, going=going, known=known)
    counts = counts_of(rows)
    state = _state(facts, counts)
    return Overview(
        dag_id=facts.dag_id,
        run_id=facts.run_id,
        cluster=facts.cluster,
        mode=str(facts.run.get("mode") or ""),
        state=state,
        headline=_headline(facts, state, counts, rows),
        made_at=now,
        started=facts.started,
        ended=facts.ended,
        days=_days(facts),
        who=_who(facts),
        limits={
            "max_parallel": facts.limits.max_parallel,
            "per_customer": facts.limits.per_customer,
            "max_failures": facts.limits.max_failures,
        },
        override=_override(facts),
        parameters=_parameters(facts),
        counts=counts,
        figures=figures_of(facts, rows, now, going=going),
        attention=attention_of(facts, rows, going=going),
        windows=rows,
        plan=plan_table(facts),
        report=report_table(rows),
    )


def _going(facts: RunFacts) -> bool:
    """Return True while the run may still start windows by itself."""
    return facts.state not in ENDED and not facts.run.get("dry_run") and not facts.refusal and not _rejected(facts)


def _rejected(facts: RunFacts) -> bool:
    return facts.approval is not None and facts.approval.answer == "Reject"


def _state(facts: RunFacts, counts: Counts) -> RunState:
    if facts.refusal:
        return "refused"
    if _rejected(facts):
        return "rejected"
    if facts.plan_hash is None:
        # Preflight or plan failed without a record: nothing was begun either.
        return "refused" if facts.state in ENDED else "planning"
    if facts.run.get("dry_run"):
        return "dry run"
    if not counts.planned:
        return "nothing to do"
    if (
        facts.approval is not None
        and facts.approval.asked_at
        and not facts.approval.answer
        and facts.state not in ENDED
    ):
        return "waiting for approval"
    if facts.state not in ENDED:
        return "running"
    return "complete" if counts.verified == counts.planned else "incomplete"


def _headline(facts: RunFacts, state: RunState, counts: Counts, rows: Sequence[WindowRow]) -> str:
    customers = len({r.customer for r in rows})
    windows = f"{counts.planned} {'window' if counts.planned == 1 else 'windows'}"
    of_customers = f"{windows} of {customers} {'customer' if customers == 1 else 'customers'}"
    if state in ("planning", "refused", "nothing to do"):
        return {
            "planning": "Preflight and plan are running; nothing has been deleted.",
            "refused": "Refused before anything was deleted.",
            "nothing to do": "The plan has no window: nothing was to be done.",
        }[state]
    if state == "dry run":
        return f"Dry run: {of_customers} {'was' if counts.planned == 1 else 'were'} planned, nothing was changed."
    if state == "rejected":
        who = facts.approval.answered_by if facts.approval else ""
        return f"The plan of {of_customers} was rejected{f' by {who}' if who else ''}; nothing was deleted."
    if state == "waiting for approval":
        verb = "waits" if counts.planned == 1 else "wait"
        return f"{of_customers} {verb} for approval; nothing has been deleted."
    words = (("working", "in work"), ("waiting", "waiting"), ("cut", "cut smaller"), ("failed", "failed"),
             ("not_started", "not started"))  # fmt: skip
    others = [f"{count} {word}" for name, word in words if (count := getattr(counts, name))]
    return ", ".join([f"{counts.verified} of {windows} verified", *others]) + "."


def _days(facts: RunFacts) -> tuple[str, str] | None:
    start, end = facts.run.get("start_date"), facts.run.get("end_date")
    return (str(start), str(end)) if start and end else None


def _who(facts: RunFacts) -> Who:
    asked = facts.approval
    answers: dict[str, Literal["approved", "rejected"]] = {"Approve": "approved", "Reject": "rejected"}
    state: Literal["not needed", "waiting", "approved", "rejected", "not reached"]
    if asked is None or asked.asked_at is None:
        reached = facts.tasks.get("approve", NO_TASK).state == "success"
        state = "not needed" if reached else "not reached"
    else:
        state = answers.get(asked.answer, "waiting")
    return Who(
        asked_by=facts.asked_by or ("the schedule" if facts.run_type == "scheduled" else ""),
        asked_at=facts.queued or facts.started,
        approval=state,
        answered_by=asked.answered_by if asked else "",
        answered_at=asked.answered_at if asked else None,
    )


def _override(facts: RunFacts) -> OverrideView | None:
    found = facts.override
    if found is None:
        return None
    return OverrideView(
        text=found.text,
        author=found.author,
        until=found.until,
        pause=found.pause,
        max_parallel=found.max_parallel,
        per_customer=found.windows_per_customer,
        reason=found.reason,
    )


def _parameters(facts: RunFacts) -> dict[str, str]:
    hidden = ("sources", "cluster", "run_type", "run_after", "destructive")
    sources = facts.run.get("sources") or {}
    return {
        name: f"{_plain(value)} ({sources[name]})" if name in sources else _plain(value)
        for name, value in facts.run.items()
        if name not in hidden
    }


def _plain(value: Any) -> str:
    """Return a value as people write it in the form."""
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "as usual" if value is None else str(value)

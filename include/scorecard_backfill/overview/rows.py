"""One row for each window: its state, its stage and since when, and why it is not further."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from include.scorecard_backfill.overview.facts import NO_TASK, DebtFact, RunFacts, TaskFact, WindowFacts
from include.scorecard_backfill.overview.links import links_of
from include.scorecard_backfill.overview.model import Numbers, Stage, State, WindowRow
from include.scorecard_backfill.overview.queue import Waiting, waiting_reasons
from include.scorecard_backfill.verdicts.admission import LIVE, phase_of

BROKEN = frozenset({"failed", "upstream_failed", "skipped", "removed"})

FIGURES = tuple(Numbers.model_fields)
NO_RECORD = "the task has failed without a record; the end of its log says why"
NOT_PROVEN = "all its stages are marked as success, and none of them has proven it: somebody has marked one by hand"
RESET_IT = "Reset the window: it is done again from its first stage on."


@dataclass(frozen=True, slots=True)
class KnownRow:
    """A row that an earlier look has made. ``made_of``: all that it was made of; ``waiting``: what was added to it."""

    made_of: tuple[object, ...]
    bare: WindowRow
    waiting: Waiting | None
    row: WindowRow


Known = MutableMapping[str, KnownRow]
"""Rows by the window's key; a look adds its own and takes over those of which nothing has changed."""


def window_rows(facts: RunFacts, *, going: bool, known: Known | None = None) -> tuple[WindowRow, ...]:
    """Return the rows of all windows and parts, each window followed by its parts.

    ``going``: False when the run will start nothing any more by itself (ended, rejected, dry run). ``known``: rows of
    an earlier look at the same run: of a large run most windows are verified or wait, and nothing of them changes.
    """
    kept: Known = {} if known is None else known
    listed = [window for windows in facts.passes for window in windows]
    parts = defaultdict(list)
    for window in listed:
        if window.window.part_of:
            parts[window.window.part_of].append(window)
    reasons = waiting_reasons(facts) if going else {}
    debts = {d.window: d for d in facts.debts}
    rows: dict[str, WindowRow] = {}
    # The parts come first, because a window that was cut is judged by them.
    for window in reversed(listed):
        own = parts.get(window.window.key, [])
        row = _known_row(kept, facts, window, reasons.get(window.window.key), going, debts.get(window.window.key))
        rows[window.window.key] = _cut(row, [rows[p.window.key] for p in own]) if own else row
    return tuple(rows[w.window.key] for w in _in_order(listed, parts))


def leaves(rows: Sequence[WindowRow]) -> list[WindowRow]:
    """Return the rows that decide: windows without parts, and the smallest parts of those that were cut.

    A window that was verified although it has parts decides for itself.
    """
    if not any(row.part_of for row in rows):
        return list(rows)
    children: dict[str, list[WindowRow]] = defaultdict(list)
    for row in rows:
        children[row.part_of].append(row)

    def below(row: WindowRow) -> Iterable[WindowRow]:
        smaller = children.get(row.key, [])
        if not smaller or row.stage == "done":
            return [row]
        return (leaf for child in smaller for leaf in below(child))

    return [leaf for row in children[""] for leaf in below(row)]


def _in_order(listed: Sequence[WindowFacts], parts: Mapping[str, Sequence[WindowFacts]]) -> list[WindowFacts]:
    found: list[WindowFacts] = []

    def add(window: WindowFacts) -> None:
        found.append(window)
        for part in parts.get(window.window.key, ()):
            add(part)

    known: Container[str] = {w.window.key for w in listed}
    for window in listed:
        if window.window.part_of not in known:
            add(window)
    return found


def _known_row(
    kept: Known, facts: RunFacts, window: WindowFacts, waiting: Waiting | None, going: bool, debt: DebtFact | None
) -> WindowRow:
    """Return the row of a window, the one of an earlier look when it was made of the same."""
    key = window.window.key
    approved = facts.approval.answered_at if facts.approval else None
    made_of = (window, going, debt, approved, facts.started, facts.job_url, facts.workflow_url)
    held = kept.get(key)
    if held is None or held.made_of != made_of:
        bare = _row(facts, window, going=going, debt=debt)
    elif held.waiting == waiting:
        return held.row
    else:
        bare = held.bare
    row = bare
    if waiting is not None and bare.state == "waiting":
        row = bare.model_copy(update={"reason": waiting.reason, "blocker": waiting.blocker, "place": waiting.place})
    kept[key] = KnownRow(made_of, bare, waiting, row)
    return row


def _row(facts: RunFacts, window: WindowFacts, *, going: bool, debt: DebtFact | None) -> WindowRow:
    planned = window.window
    states = [window.tasks.get(stage, NO_TASK) for stage in planned.stages]
    stage, state = _place(window, states, going=going)
    reason, cause, todo = _why(window, stage, state)
    return WindowRow(
        key=planned.key,
        label=planned.label,
        customer=planned.customer_id,
        start=planned.start,
        end=planned.end,
        state=state,
        stage=stage,
        task=window.task_id("verify" if stage == "done" else stage) if window.tasks else "",
        index=window.index,
        since=_since(facts, planned.stages, states, stage),
        reason=reason,
        cause=cause,
        todo=todo,
        percent=_percent(window, stage, state),
        conversations=planned.conversations,
        tables=_tables(window),
        attempts=max((r.attempt for r in window.results.values()), default=0),
        part_of=planned.part_of,
        gone_since=_gone_since(window, state, stage, debt),
        may_end_job=any(t.state in LIVE and t.waits_for == "job_ended" for t in states),
        links=links_of(facts, window) if window.results or window.seen else (),
    )


def _place(window: WindowFacts, states: Sequence[TaskFact], *, going: bool) -> tuple[Stage, State]:
    """Return the stage and the state of a window by its results first, then by what Airflow does with its tasks."""
    if window.verified:
        return "done", "verified"
    phase = phase_of(states[0].state, [t.state for t in states[1:]], window.opener.state)
    stages = window.window.stages
    if phase == "closed":
        return "admit", "not_started"
    if phase == "waiting":
        return "admit", "waiting" if going else "not_started"
    if phase == "failed":
        if states[0].state in BROKEN:
            return "admit", "not_started"
        return _first(stages, states, lambda t: t.state in BROKEN), "failed"
    live = going or any(t.state in LIVE for t in states)
    return _first(stages, states, lambda t: t.state != "success"), "working" if live else "failed"


def _first(stages: Sequence[Stage], states: Sequence[TaskFact], wanted: Callable[[TaskFact], bool]) -> Stage:
    return next((stage for stage, task in zip(stages, states, strict=True) if wanted(task)), stages[-1])


def _why(window: WindowFacts, stage: Stage, state: State) -> tuple[str, str, str]:
    """Return reason, cause and remedy of a failure, or what the wait said when it last looked."""
    if state in ("verified", "waiting"):
        return "", "", ""
    found = window.result(stage)
    if state in ("failed", "not_started"):
        if found.status == "failed":
            return found.reason, found.cause, found.todo
        if state == "failed" and window.tasks[stage].state == "success":
            return NOT_PROVEN, "", RESET_IT
        return (NO_RECORD if state == "failed" else window.not_opened), "", ""
    seen = window.seen.get(stage)
    return (seen.reason if seen else ""), "", ""


def _since(facts: RunFacts, stages: Sequence[Stage], states: Sequence[TaskFact], stage: Stage) -> datetime | None:
    if stage == "done":
        return states[-1].ended
    index = stages.index(stage)
    before = states[index - 1].ended if index else None
    approved = facts.approval.answered_at if facts.approval else None
    return states[index].started or before or approved or facts.started


def _percent(window: WindowFacts, stage: Stage, state: State) -> int | None:
    if state == "verified":
        return 100
    seen = window.seen.get("wait_workflows")
    if stage not in ("wait_workflows", "verify") or seen is None or seen.done is None or not seen.total:
        return None
    return min(100, max(0, int(100 * seen.done / seen.total)))


def _tables(window: WindowFacts) -> dict[str, Numbers]:
    verified = window.result("verify").tables
    if verified:
        return {
            table: Numbers(**{name: n[name] for name in FIGURES if name in n}) for table, n in sorted(verified.items())
        }
    counted = window.result("delete").rows_before
    return {table: Numbers(before=n) for table, n in sorted(counted.items())}


def _gone_since(window: WindowFacts, state: State, stage: Stage, debt: DebtFact | None) -> datetime | None:
    """Return since when rows of the window are deleted and not known to be back, None when they are.

    In the order reindex_first only rows that were written again are deleted: none is ever gone.
    """
    deleted = window.result("delete")
    if state == "verified" or window.window.order == "reindex_first":
        return None
    if (not deleted.statements and debt is None) or (state == "working" and stage == "verify"):
        return None
    if debt is not None and debt.since is not None:
        return debt.since
    return deleted.at or window.tasks.get("delete", NO_TASK).ended


def _cut(row: WindowRow, parts: Sequence[WindowRow]) -> WindowRow:
    """Return the row of a window that was cut: what its parts say together."""
    if row.state == "verified":
        return row.model_copy(update={"parts": len(parts)})
    done = [p for p in parts if p.state == "verified"]
    said = f"too big, cut into {len(parts)}"
    tables = sum_numbers(p.tables for p in parts) if len(done) == len(parts) else row.tables
    if len(done) == len(parts):
        state: State = "verified"
    elif any(p.state in ("working", "waiting", "cut") for p in parts):
        state, said = "cut", f"{said}; {len(done)} of them verified"
    else:
        broken = next(p for p in parts if p.state != "verified")
        state, said = (
            "failed",
            f"{said}; {len(parts) - len(done)} of them not verified: {broken.label}: {broken.reason}",
        )
    gone = None if state == "verified" else min((p.gone_since for p in parts if p.gone_since), default=row.gone_since)
    return row.model_copy(
        update={
            "state": state,
            "stage": "wait_workflows",
            "reason": said,
            "parts": len(parts),
            "percent": _mean_percent(parts),
            "tables": tables,
            "gone_since": gone,
            "may_end_job": False,
        }
    )


def _mean_percent(parts: Sequence[WindowRow]) -> int:
    weight = sum(max(1, p.conversations) for p in parts)
    return int(sum((p.percent or 0) * max(1, p.conversations) for p in parts) / weight)


def sum_numbers(items: Iterable[Mapping[str, Numbers]]) -> dict[str, Numbers]:
    """Return the sums per table; a figure is known only where some item knows it."""
    total: dict[str, dict[str, int]] = {}
    for tables in items:
        for table, numbers in tables.items():
            held = total.setdefault(table, {})
            for name in FIGURES:
                if (value := getattr(numbers, name)) is not None:
                    held[name] = held.get(name, 0) + value
    return {table: Numbers(**held) for table, held in sorted(total.items())}

"""What a person should see first, the urgent things on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from include.scorecard_backfill.overview.facts import RunFacts
from include.scorecard_backfill.overview.model import Attention, WindowRow
from include.scorecard_backfill.overview.queue import breaker_of
from include.scorecard_backfill.overview.rows import leaves
from include.scorecard_backfill.plural import number_of

SHOWN = 10
"""Labels that a note names; the table has them all."""


def attention_of(facts: RunFacts, rows: Sequence[WindowRow], *, going: bool) -> tuple[Attention, ...]:
    """Return the notes: what must be done, then what is worth a look."""
    order = {"act": 0, "look": 1, "note": 2}
    found = [*_question(facts, rows), *_windows(rows), *_limits(facts, rows, going=going), *_debts(facts, rows)]
    return tuple(sorted(found, key=lambda one: order[one.level]))


def _question(facts: RunFacts, rows: Sequence[WindowRow]) -> Iterator[Attention]:
    if facts.refusal:
        yield Attention(
            kind="refused",
            level="act",
            what=facts.refusal,
            todo="Nothing was deleted. Start a new run when it is right.",
        )
    asked = facts.approval
    if asked is None or asked.asked_at is None:
        return
    planned = [r for r in rows if not r.part_of]
    if not asked.answer:
        customers = number_of(len({r.customer for r in planned}), "customer")
        yield Attention(
            kind="approval",
            level="act",
            what=f"The plan waits for approval: {number_of(len(planned), 'window')} of {customers}.",
            todo="Read the plan below, then approve or reject it.",
            since=asked.asked_at,
            count=len(planned),
        )
    elif asked.answer == "Reject":
        who = f" by {asked.answered_by}" if asked.answered_by else ""
        yield Attention(
            kind="rejected", level="note", what=f"The plan was rejected{who}; nothing was deleted.",
            since=asked.answered_at,
        )  # fmt: skip


def _windows(rows: Sequence[WindowRow]) -> Iterator[Attention]:
    deciding = leaves(rows)
    failed = [r for r in deciding if r.state == "failed"]
    if failed:
        yield Attention(
            kind="failed",
            level="act",
            what=f"{number_of(len(failed), 'window')} failed: {_causes(failed)}.",
            todo="Read the reasons, correct what they name, then retry what failed.",
            since=min((r.since for r in failed if r.since), default=None),
            count=len(failed),
            windows=tuple(r.label for r in failed[:SHOWN]),
        )
    gone = [r for r in deciding if r.gone_since]
    stuck = [r for r in gone if r.state != "working"]
    if gone:
        rest = f"; {len(stuck)} of them with nobody at work" if stuck else "; all of them are being worked on"
        yield Attention(
            kind="gone",
            level="act" if stuck else "look",
            what=f"Deleted, not yet reindexed: {number_of(len(gone), 'window')}{rest}.",
            todo="Retry what failed: until then these customers lack the rows of these days." if stuck else "",
            since=min(r.gone_since for r in gone if r.gone_since),
            count=len(gone),
            windows=tuple(r.label for r in (stuck or gone)[:SHOWN]),
        )


def _causes(failed: Sequence[WindowRow]) -> str:
    counted: dict[str, int] = {}
    for row in failed:
        name = f"{row.cause or 'unknown cause'} in {row.stage}"
        counted[name] = counted.get(name, 0) + 1
    listed = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{name} ({count})" if count > 1 else name for name, count in listed)


def _limits(facts: RunFacts, rows: Sequence[WindowRow], *, going: bool) -> Iterator[Attention]:
    if facts.override_error:
        yield Attention(
            kind="override_error",
            level="act",
            what=f"The cluster's override cannot be used, so nothing is started: {facts.override_error}",
            todo="Write it again with Pause, Resume or Change limit, or remove the Airflow Variable.",
        )
    if facts.override is not None:
        kind = "paused" if facts.override.pause else "override"
        what = "Admission is paused" if facts.override.pause else "Other limits are in force"
        level = "act" if facts.override.pause and going else "note"
        yield Attention.model_validate(
            {"kind": kind, "level": level, "what": f"{what} {facts.override.text}.",
             "todo": "Resume when the reason is gone." if facts.override.pause else ""}
        )  # fmt: skip
    yield from _not_started(facts, rows, going=going)


def _not_started(facts: RunFacts, rows: Sequence[WindowRow], *, going: bool) -> Iterator[Attention]:
    """Say that too many have failed, else that a batch was not opened for another reason."""
    closed = [w for windows in facts.passes for w in windows if w.not_opened]
    failed = sorted({w.opened_by for w in closed if w.opener.state == "failed"})
    held = 0 if going else sum(r.state == "not_started" for r in rows)
    if (going or held) and (broken := breaker_of(facts)):
        were = "was" if held == 1 else "were"
        yield Attention(
            kind="breaker",
            level="act" if going else "look",
            what=f"{f'{held} of the windows {were} not' if held else 'No further window is'} started: {broken}.",
            todo="Correct the cause, then retry what failed." if going else "A retry starts them, too.",
        )
    elif failed:
        yield Attention(
            kind="breaker",
            level="act",
            what=f"{number_of(len(closed), 'window')} not started: {', '.join(failed)} has failed.",
            todo="Read the end of its log, then retry what failed.",
            count=len(closed),
            windows=tuple(w.window.label for w in closed[:SHOWN]),
        )


def _debts(facts: RunFacts, rows: Sequence[WindowRow]) -> Iterator[Attention]:
    here = {r.key for r in rows}
    spoiled = [d for d in facts.debts if d.problem]
    if spoiled:
        yield Attention(
            kind="debt",
            level="act",
            what=f"{number_of(len(spoiled), 'debt')} of this cluster cannot be read.",
            todo="See `python -m backfill debts`, and the runbook on writing a debt off.",
            count=len(spoiled),
            windows=tuple(d.label for d in spoiled[:SHOWN]),
        )
    others = [d for d in facts.debts if d.window not in here and not d.problem]
    if others:
        yield Attention(
            kind="debt",
            level="act",
            what=f"Other runs of this cluster left {number_of(len(others), 'window')} deleted and not verified.",
            todo="Start a run over these days: the plan takes them in.",
            since=min((d.since for d in others if d.since), default=None),
            count=len(others),
            windows=tuple(d.label for d in others[:SHOWN]),
        )

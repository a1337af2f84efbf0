"""The sweep of order reindex_first: what was written again, what would go, and a person's word for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput
from airflow.sdk.execution_time.hitl import upsert_hitl_detail

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit import xcoms
from backfill.kit.counting import days_record
from backfill.kit.stages import StageError, fail
from backfill.kit.store import RunStore
from backfill.settings import cluster_config
from include.scorecard_backfill.config.rules import judging
from include.scorecard_backfill.life import Balance
from include.scorecard_backfill.names import digest
from include.scorecard_backfill.proof import judge
from include.scorecard_backfill.records import Counted, Failure, TableBalance, TableDays, Window
from include.scorecard_backfill.verdicts.causes import what_to_do

APPROVE, REJECT = "Approve", "Reject"

ASKED, ANSWER = "sweep_asked", "sweep_answer"
"""Digests of the numbers about which a person was asked, and that a person has approved, for this window."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look before the sweep found. ``old``: rows that would go; ``rewritten``: those that were written again."""

    old: tuple[TableDays, ...]
    rewritten: tuple[TableDays, ...]
    tables: tuple[TableBalance, ...]
    balance: Balance
    sentences: tuple[str, ...]

    @property
    def others(self) -> int:
        """Rows that would go although they were not meant to; all of them where nobody says what is meant."""
        return sum(n.rows - (n.meant or 0) for table in self.old for n in table.days.values())

    @property
    def digest(self) -> str:
        """Digest of the exact numbers that a person is shown."""
        return digest(*(table.model_dump_json() for table in self.old))

    @property
    def markdown(self) -> str:
        """The exact numbers as a table."""
        lines = [
            "| table | written again | to be deleted | of these meant to go | others |",
            "|---|---:|---:|---:|---:|",
        ]
        for old, new in zip(self.old, self.rewritten, strict=True):
            meant = sum(n.meant or 0 for n in old.days.values())
            lines.append(
                f"| {old.database}.{old.table} | {new.rows:,} | {old.rows:,} | {meant:,} | {old.rows - meant:,} |"
            )
        return "\n".join(lines)


def survey(hook: BackfillClickHouse, window: Window, counted: Counted) -> Survey:
    """Judge the balance before anything is deleted: rewritten + meant to go + missing = before.

    Raises:
        StageError: the counts are not settled.
    """
    since = datetime.fromtimestamp(counted.server_time, UTC)
    census = hook.census(list(window.slices()), hook.topology(), since)
    if census.unsettled:
        raise StageError(f"{window.label}: {census.unsettled}; nothing was deleted")
    old, rewritten = days_record(census.old), days_record(census.rewritten)
    verdict, tables = judge(counted.before, rewritten, judging(hook.config, window))
    ok = verdict.state == "ok"
    sentences = verdict.reasons
    if not any(table.rows for table in rewritten) and any(table.rows for table in counted.before):
        columns = ", ".join(f"{t}.{c.column}" for t, c in hook.config.written_columns.items())
        sentences = (f"no row of the window was written since the reindex began, as {columns} tells it", *sentences)
    return Survey(old, rewritten, tables, "ok" if ok else "wrong", sentences)


class SweepApproval:
    """Asks a person before a sweep takes rows that nobody has said are meant to go, or when the file wants it always.

    It parks the operator that holds it, which is resumed in its method `answered`.
    """

    def __init__(self, operator: BaseOperator, cluster: str) -> None:
        self.operator = operator
        self.cluster = cluster

    def ask(self, context: Mapping[str, Any], window: Window, surveyed: Survey) -> None:
        """Return when the sweep may go; park the task otherwise.

        Raises:
            TaskAwaitingInput: a person must answer.
        """
        at = cluster_config(self.cluster).approve
        run = xcoms.chosen(context["ti"])
        always = run is not None and run.require_approval and at in ("sweep", "both")
        if not surveyed.others and not always:
            return
        if RunStore(context).get(ANSWER) == surveyed.digest:
            return
        RunStore(context).set(ASKED, surveyed.digest)
        self.operator.log.info("the sweep of %s waits for a person\n%s", window.label, surveyed.markdown)
        upsert_hitl_detail(
            ti_id=context["ti"].id,
            options=[APPROVE, REJECT],
            subject=f"Sweep {window.label} on {self.cluster}?",
            body=f"{surveyed.markdown}\n\nDigest: `{surveyed.digest}`",
        )
        raise TaskAwaitingInput(method_name="answered", kwargs={})

    def take(self, context: Mapping[str, Any], event: Any) -> None:
        """Keep an approval; a rejection ends the task for good, with nothing deleted."""
        chosen: Sequence[str] = (event or {}).get("chosen_options") or ()
        window = Window.from_json(self.operator.window)  # type: ignore[attr-defined]
        store = RunStore(context)
        if list(chosen) == [APPROVE]:
            store.set(ANSWER, store.get(ASKED))
            return
        if not chosen:
            raise AirflowFailException(f"the answer to the sweep of {window.label} cannot be read: {event!r}")
        cause = "approval_rejected"
        reason = f"the sweep of {window.label} was rejected; nothing of it was deleted, its rows were written again"
        fail(context, Failure(key=window.key, stage="delete", cause=cause, reason=reason, what_to_do=what_to_do(cause)))

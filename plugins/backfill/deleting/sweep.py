"""The sweep of order reindex_first: what was written again, what would go, and a person's word for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import TaskAwaitingInput
from airflow.sdk.execution_time.hitl import upsert_hitl_detail

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit import xcoms
from backfill.kit.answers import look_back
from backfill.kit.counting import days_record
from backfill.kit.refusal import Refusal
from backfill.kit.stages import StageError, fail
from backfill.kit.store import WindowStore
from backfill.settings import cluster_config
from include.scorecard_backfill.config.rules import census_part, judging
from include.scorecard_backfill.life import Balance
from include.scorecard_backfill.names import digest
from include.scorecard_backfill.planning.terms import asked_at
from include.scorecard_backfill.proof import NOTHING, judge
from include.scorecard_backfill.records import (
    Counted,
    Failure,
    MissingRows,
    TableBalance,
    TableDays,
    TableName,
    Window,
)
from include.scorecard_backfill.sql.census import unwritten_statement
from include.scorecard_backfill.verdicts.causes import what_to_do

APPROVE, REJECT = "Approve", "Reject"

ASKED, ANSWER = "sweep_asked", "sweep_answer"
"""Digests of the numbers about which a person was asked, and that a person has approved, for this window."""

SHOWN = "sweep_shown"
"""Rows of the question that a person sees. Airflow keeps a task's first question as long as its run lives, whatever is
asked later."""

FIRST, COVERED = "sweep_first", "sweep_covered"
"""Rows that the sweep was to take when it began, by which its steps are numbered; rows that it may take unasked."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look before the sweep found. ``old``: rows that would go; ``rewritten``: those that were written again.

    ``others`` are those of ``old`` which are not meant to go and were not written again, by table.
    """

    old: tuple[TableDays, ...]
    rewritten: tuple[TableDays, ...]
    tables: tuple[TableBalance, ...]
    balance: Balance
    sentences: tuple[str, ...]
    others: Mapping[TableName, MissingRows]

    @property
    def digest(self) -> str:
        """Digest of the exact numbers that a person is shown."""
        return digest(*(table.model_dump_json() for table in self.old))

    @property
    def markdown(self) -> str:
        """The exact numbers as a table, and some ids of what nobody means to go."""
        lines = [
            "| table | written again | to be deleted | of these meant to go | older copies | others |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for old, new in zip(self.old, self.rewritten, strict=True):
            meant, others = _meant(old), self.others[old.name].count
            numbers = (new.rows, old.rows, meant, old.rows - meant - others, others)
            lines.append(f"| {old.database}.{old.table} | {' | '.join(f'{n:,}' for n in numbers)} |")
        return "\n".join([*lines, *("\n" + line for line in named(self.others))])

    def within(self, covered: Sequence[TableDays]) -> bool:
        """Return True when no more rows would go of any table and day than ``covered`` says."""
        known = {table.name: table.days for table in covered}
        return all(
            n.rows <= known.get(table.name, {}).get(day, NOTHING).rows
            for table in self.old
            for day, n in table.days.items()
        )


def named(others: Mapping[TableName, MissingRows]) -> list[str]:
    """Return a sentence for each table that has such rows, with some ids."""
    return [
        f"{m.database}.{m.table}: {m.count} rows were not written again and are not meant to go"
        + (f", such as {', '.join(m.ids)}" if m.ids else "")
        for m in others.values()
        if m.count
    ]


def _meant(table: TableDays) -> int:
    return sum(n.meant or 0 for n in table.days.values())


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
    ids = {name: table.rewritten_total.ids for name, table in census.tables.items()}
    verdict, tables = judge(counted.before, rewritten, judging(hook.config, window), ids)
    others = _others(hook, window, old, since)
    sentences = [*verdict.reasons, *(named(others) if verdict.state != "ok" else ())]
    if not any(table.rows for table in rewritten) and any(table.rows for table in counted.before):
        columns = ", ".join(f"{t}.{c.column}" for t, c in hook.config.written_columns.items())
        sentences.insert(0, f"no row of the window was written since the reindex began, as {columns} tells it")
    balance: Balance = "ok" if verdict.state == "ok" else "wrong"
    return Survey(old, rewritten, tables, balance, tuple(sentences), others)


def _others(
    hook: BackfillClickHouse, window: Window, old: Sequence[TableDays], since: datetime
) -> Mapping[TableName, MissingRows]:
    """Return the old rows that are not meant to go and of which no newer copy is there.

    A row that its sharding key has put on another shard has one; where a row is not written again under the same id
    (``stable_ids`` off), nobody can tell.
    """
    parts = {(part.database, table): part for table, part in window.slices()}
    beside: dict[str, set[str]] = {}
    for database, name in parts:
        beside.setdefault(database, set()).add(name)
    found = {}
    for table in old:
        count = table.rows - _meant(table)
        ids: tuple[str, ...] = ()
        if count and hook.config.stable_ids:
            counted = census_part(hook.config, table.table, parts[table.name], beside[table.database], since)
            statement = unwritten_statement(cluster=hook.config.cluster, counted=counted, names=hook.names)
            (row,) = hook.rows(statement)
            count, ids = int(row["number"]), tuple(sorted(str(i) for i in row["ids"]))
        found[table.name] = MissingRows(database=table.database, table=table.table, count=count, ids=ids)
    return found


def begun(context: Mapping[str, Any], window: Window) -> tuple[TableDays, ...]:
    """Return the rows that the sweep was to take when it began, () when it has not.

    A look in the midst of it finds less, and steps that are numbered by that would be taken for those that were sent.
    """
    return _read(WindowStore(context, window).get(FIRST))


def begin(context: Mapping[str, Any], window: Window, rows: Sequence[TableDays]) -> None:
    """Keep what the sweep is to take, before its first statement leaves."""
    WindowStore(context, window).set(FIRST, _written(rows))


def _read(kept: object) -> tuple[TableDays, ...]:
    return tuple(TableDays.model_validate(item) for item in kept or ())  # type: ignore[attr-defined]


def _written(rows: Sequence[TableDays]) -> list[dict[str, Any]]:
    return [table.model_dump(mode="json") for table in rows]


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
            TaskDeferred: an earlier try has asked the same; whether it was answered must be looked up first.
        """
        store = WindowStore(context, window)
        if (covered := store.get(COVERED)) is not None and surveyed.within(_read(covered)):
            return
        at = asked_at(xcoms.pull(context["ti"], "plan", xcoms.TERMS) or {})
        run = xcoms.chosen(context["ti"])
        always = run is not None and run.require_approval and at in ("sweep", "both")
        unasked = not always and not any(others.count for others in surveyed.others.values())
        if unasked or store.get(ANSWER) == surveyed.digest:
            store.set(COVERED, _written(surveyed.old))
            return
        if store.get(ASKED) == surveyed.digest:
            look_back(self.operator, context, cluster_config(self.cluster).waits.first_poll_after_seconds)
        shown = store.get(SHOWN)
        if shown is not None and not surveyed.within(_read(shown)):
            self._outgrown(context, window, surveyed)
        self.operator.log.info("the sweep of %s waits for a person\n%s", window.label, surveyed.markdown)
        upsert_hitl_detail(
            ti_id=context["ti"].id,
            options=[APPROVE, REJECT],
            subject=f"Sweep {window.label} on {self.cluster}?",
            body=f"{surveyed.markdown}\n\nDigest: `{surveyed.digest}`",
            params={},
        )
        store.set(ASKED, surveyed.digest)
        if shown is None:
            store.set(SHOWN, _written(surveyed.old))
        raise TaskAwaitingInput(method_name="answered", kwargs={})

    def _outgrown(self, context: Mapping[str, Any], window: Window, surveyed: Survey) -> NoReturn:
        """End the task: a person would be shown the smaller numbers of before."""
        cause = "sweep_outgrown"
        reason = f"more rows of {window.label} would go than the question shows:\n{surveyed.markdown}"
        fail(context, Failure(key=window.key, stage="delete", cause=cause, reason=reason, what_to_do=what_to_do(cause)))

    @property
    def _window(self) -> Window:
        return Window.from_json(self.operator.window)  # type: ignore[attr-defined]

    def looked_back(self, context: Mapping[str, Any], event: Any) -> None:
        """Take the answer that was given to the question of the try before; without one it is asked again."""
        if event:
            self.operator.log.info("the answer that was given to the question before is taken")
            self.take(context, event)
        else:
            WindowStore(context, self._window).set(ASKED, "")

    def take(self, context: Mapping[str, Any], event: Any) -> None:
        """Keep an approval; a rejection ends the task for good, with nothing deleted."""
        chosen: Sequence[str] = (event or {}).get("chosen_options") or ()
        window = self._window
        store = WindowStore(context, window)
        if list(chosen) == [APPROVE]:
            store.set(ANSWER, store.get(ASKED))
        # A later try must not find this answer again: it belongs to the question that was asked now.
        store.set(ASKED, "")
        if list(chosen) == [APPROVE]:
            return
        if not chosen:
            raise Refusal(f"the answer to the sweep of {window.label} cannot be read: {event!r}")
        cause = "sweep_rejected"
        done = "it had begun, and takes nothing more" if begun(context, window) else "nothing of it was deleted"
        reason = f"the sweep of {window.label} was rejected; {done}; its rows were written again"
        fail(context, Failure(key=window.key, stage="delete", cause=cause, reason=reason, what_to_do=what_to_do(cause)))

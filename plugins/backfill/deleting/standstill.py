"""Mutations that stand still: saying how to end them, and ending them when the run asks for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backfill.hooks.clickhouse import BackfillClickHouse
from include.scorecard_backfill import sql
from include.scorecard_backfill.records import Failure
from include.scorecard_backfill.verdicts.causes import what_to_do
from include.scorecard_backfill.verdicts.mutations import own

STANDS_STILL = frozenset({"stalled", "fail_reason"})


def diagnose(hook: BackfillClickHouse, log: Any, failure: Failure) -> Sequence[tuple[str, str]]:
    """Return the (database, table) pairs on which a generation stands still, and log the statement that would end it.

    The statement is tried with TEST, which changes nothing and shows what would be killed.
    """
    if failure.cause not in STANDS_STILL:
        return ()
    found = own(hook.mutations(), failure.key, failure.generation)
    still = sorted({(m.database, m.table) for m in found if not m.is_done})
    for database, table in still:
        test = _statement(hook, failure, database, table, test=True)
        log.warning("tried with TEST: %s\n%s", test, hook.raw(test))
        log.warning("to end it, run (or set kill_stalled_mutations): %s", _statement(hook, failure, database, table))
    return still


def kill(hook: BackfillClickHouse, log: Any, failure: Failure, tables: Sequence[tuple[str, str]]) -> Failure:
    """Kill a generation's mutations on these tables; the failure's cause becomes ``killed``: a clear sends it again."""
    for database, table in tables:
        statement = _statement(hook, failure, database, table)
        log.warning("killing, as the run asks: %s\n%s", statement, hook.raw(statement))
    if not tables:
        return failure
    return failure.model_copy(update={"cause": "killed", "what_to_do": what_to_do("killed")})


def stood_still(context: Mapping[str, Any], hook: BackfillClickHouse, log: Any, failure: Failure) -> Failure:
    """Say how to end what stands still, end it when the run asks for that, and return the failure as it is then."""
    still = diagnose(hook, log, failure)
    if still and context["params"].get("kill_stalled_mutations"):
        return kill(hook, log, failure, still)
    return failure


def _statement(hook: BackfillClickHouse, failure: Failure, database: str, table: str, *, test: bool = False) -> str:
    return sql.kill_mutation_statement(
        cluster=hook.config.cluster,
        database=database,
        table=table,
        key=failure.key,
        generation=failure.generation,
        test=test,
    )

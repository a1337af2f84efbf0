"""What the configuration says about a table's rows, as the values that statements are made of."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from include.scorecard_backfill.config.clickhouse import ClickHouseConfig
from include.scorecard_backfill.proof import Band, Rules
from include.scorecard_backfill.records import Window
from include.scorecard_backfill.sql import Names, Slice
from include.scorecard_backfill.sql.census import CensusPart, IdsOf, Rule, Value, Written, old_predicate


def names_of(config: ClickHouseConfig) -> Names:
    """Return the names of the columns that statements use."""
    return Names(
        time=config.time_column,
        customer=config.customer_column,
        profile=config.profile_column,
        conversation=config.conversation_column,
    )


def meant_rule(config: ClickHouseConfig, table: str, beside: Collection[str]) -> Rule | None:
    """Return which rows of a table are meant to go, None when the configuration does not tell.

    ``beside`` are the tables of the same database: a rule by the ids of a table that is not there tells nothing.
    """
    rules = config.meant_to_go or {}
    rule = rules.get(table)
    if rule is None:
        return None
    if rule.column is not None and rule.equals is not None:
        return Value(rule.column, rule.equals)
    if rule.by is None or rule.id_column is None or rule.by not in beside:
        return None
    decisive = meant_rule(config, rule.by, beside)
    return IdsOf(rule.id_column, rule.by, config.id_columns[rule.by], decisive) if isinstance(decisive, Value) else None


def judging(config: ClickHouseConfig, window: Window) -> Rules:
    """Return how the balance of a window is judged."""
    bands = {table: config.band_of(table) for table in config.tables}
    return Rules(
        cleanup=window.destructive,
        share=config.verify_tolerance_share,
        rows=config.verify_tolerance_rows,
        band={table: Band(band.min_ratio, band.max_ratio) for table, band in bands.items()},
        small_rows=config.verify_small_rows,
        stable_ids=config.stable_ids,
        owed={table.name: frozenset(table.days) for table in window.before},
    )


def can_tell_old_rows(config: ClickHouseConfig, window: Window) -> bool:
    """Return True when every table of a window has a column that tells old rows from those written again."""
    return all(table in config.written_columns for table, _ in window.slices())


def told_tables(config: ClickHouseConfig, window: Window) -> frozenset[str]:
    """Return the local tables of a window whose old rows can be told from those written again."""
    return frozenset(table for table, _ in window.slices() if table in config.written_columns)


def written(config: ClickHouseConfig, table: str, since: datetime) -> Written | None:
    """Return what tells old rows of a table from the ones written since a moment; None without a column for it.

    ``since`` is ClickHouse's own time before the first write; the margin for clocks that differ is taken off here, so
    that a row is old only when that is certain.
    """
    column = config.written_columns.get(table)
    if column is None:
        return None
    return Written(column.column, since - timedelta(seconds=config.clock_skew_seconds), column.unit)


def condition_of(config: ClickHouseConfig, table: str, bound: float | None) -> str:
    """Return the condition of the rows of a table that a DELETE bounded by ``bound`` (epoch seconds) takes, '' for all.

    Raises:
        ValueError: there is a bound, and no column that tells old rows of the table.
    """
    if bound is None:
        return ""
    column = written(config, table, datetime.fromtimestamp(bound, UTC))
    if column is None:
        raise ValueError(f"{table}: no written_columns is configured, so no row of it is known to be old")
    return old_predicate(column)


def census_part(
    config: ClickHouseConfig, table: str, part: Slice, beside: Collection[str], since: datetime | None = None
) -> CensusPart:
    """Return what is counted of one table; with ``since``, the rows written since then apart from the older ones."""
    return CensusPart(
        table=table,
        part=part,
        id_column=config.id_columns[table],
        meant=meant_rule(config, table, beside),
        written=written(config, table, since) if since is not None else None,
    )

"""What the configuration says about a table's rows, as the values that statements are made of."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from include.scorecard_backfill.config.clickhouse import ClickHouseConfig
from include.scorecard_backfill.sql import Names, Slice
from include.scorecard_backfill.sql.census import CensusPart, IdsOf, Rule, Value, Written


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


def written(config: ClickHouseConfig, table: str, since: datetime) -> Written | None:
    """Return what tells old rows of a table from the ones written since a moment; None without a column for it.

    ``since`` is ClickHouse's own time before the first write; the margin for clocks that differ is taken off here, so
    that a row is old only when that is certain.
    """
    column = config.written_columns.get(table)
    if column is None:
        return None
    return Written(column.column, since - timedelta(seconds=config.clock_skew_seconds), column.unit)


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

"""What is known about a cluster's ClickHouse: names, waits, and what must hold after a window."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from include.scorecard_backfill.config.fields import (
    Bytes,
    ConnId,
    Count,
    Frozen,
    Identifier,
    Polls,
    PollSeconds,
    Ratio,
    Seconds,
)


class VerifyBand(Frozen):
    """Which share of the rows before a cleanup may be there after it, both ends inclusive."""

    min_ratio: Ratio = Field(
        default=0.70, description="Smallest rows after / rows before; about 0.9 is usual (appeals go)."
    )
    max_ratio: Ratio = Field(
        default=1.0, description="Largest rows after / rows before; above 1 rows were doubled or added."
    )

    @model_validator(mode="after")
    def _ordered(self) -> VerifyBand:
        if self.min_ratio > self.max_ratio:
            raise ValueError(f"min_ratio {self.min_ratio} is above max_ratio {self.max_ratio}")
        return self


class MustBeZero(Frozen):
    """Rows of a table that may not be there after a cleanup: one column equal to one value, never SQL."""

    table: Identifier = Field(default="scorecard", description="Local table, one of `tables`.")
    column: Identifier = Field(description="Column of that table.")
    equals: str | int = Field(description="Value of the stale rows; becomes a quoted literal.")


class MeantToGo(Frozen):
    """Rows that a cleanup is meant to remove: one column equal to one value, or the ids of another table's rows."""

    column: Identifier | None = Field(default=None, description="Column of this table; with `equals`.")
    equals: str | int | None = Field(default=None, description="Value of the rows that go; becomes a quoted literal.")
    by: Identifier | None = Field(
        default=None, description="Another table of `meant_to_go` whose rows decide, for a table without such a column."
    )
    id_column: Identifier | None = Field(default=None, description="Column of this table with the id of that row.")

    @model_validator(mode="after")
    def _one_of_two(self) -> MeantToGo:
        own, other = (self.column, self.equals), (self.by, self.id_column)
        given = [pair for pair in (own, other) if pair != (None, None)]
        if len(given) != 1 or None in given[0]:
            raise ValueError("needs either column and equals, or by and id_column")
        return self


class WrittenColumn(Frozen):
    """A column that every write of a row sets: the version column of a ReplacingMergeTree, or a time of insertion."""

    column: Identifier = Field(description="Column of the table; DateTime, DateTime64 or an integer.")
    unit: Literal["time", "seconds", "milliseconds", "microseconds", "nanoseconds"] = Field(
        default="time", description="What an integer column counts since 1970 (UTC); time = DateTime or DateTime64."
    )


class DeleteConfig(Frozen):
    """How rows are deleted without hurting the cluster."""

    # 232M rows in one DELETE blocked all nodes; its single days (about 7.5M rows) went through.
    max_rows_per_mutation: int = Field(
        default=10_000_000,
        ge=1,
        le=1_000_000_000,
        description="Rows of one DELETE; windows above it are deleted in days.",
    )
    drop_partition: bool = Field(default=True, description="DROP PARTITION where a window covers whole partitions.")
    # ClickHouse refuses above max_partition_size_to_drop, 50 GB by default.
    max_partition_bytes: Bytes = Field(
        default=50_000_000_000,
        description="Largest partition that is dropped; above it rows are deleted.",
    )
    max_own_unfinished_mutations: int = Field(
        default=20,
        ge=1,
        le=400,
        description="Own unfinished DELETEs (one per database, table and statement, all windows and runs together) from"
        " which on no further one is sent; of windows that look at the same moment the first of the plan sends.",
    )


class ClickHouseConfig(Frozen):
    """The ClickHouse cluster: names, waits and what must hold after a window."""

    conn_id: ConnId = Field(default="", description="Airflow connection; empty = clickhouse_<cluster, - as _>.")
    cluster: Identifier = Field(default="conversations", description="Name of the cluster for ON CLUSTER.")
    time_column: Identifier = Field(default="scorecard_time", description="Time by which rows are counted and deleted.")
    customer_column: Identifier = Field(default="customer_id", description="Column of the customer id.")
    profile_column: Identifier = Field(default="profile_id", description="Column of the profile id.")
    conversation_column: Identifier = Field(default="conversation_id", description="Column of the conversation id.")
    tables: Annotated[tuple[Identifier, ...], Strict(False)] = Field(
        default=("scorecard", "score"),
        min_length=1,
        max_length=10,
        description="Local tables counted and deleted, in order.",
    )
    distributed_suffix: Identifier = Field(
        default="_d", description="Suffix of the distributed twin of a table; rows are put back through it."
    )
    id_columns: dict[Identifier, Identifier] = Field(
        default={"scorecard": "scorecard_id", "score": "score_id"},
        description="Column that names a row, for each table.",
    )
    volume_table: Identifier = Field(
        default="scorecard", description="Table of the volumes; may be a conversations table."
    )
    query_timeout_seconds: Seconds = Field(default=120, description="Limit of one SELECT.")
    # distributed_ddl_task_timeout of ClickHouse is 180 s; after it the statement goes on in the background.
    ddl_timeout_seconds: Seconds = Field(default=180, description="Limit of one ON CLUSTER statement until its answer.")
    mutation_poll_seconds: PollSeconds = Field(
        default=10, description="Longest interval of looking at system.mutations: a fifth of it at first."
    )
    mutation_deadline_seconds: Seconds = Field(
        default=21_600, description="All mutations of a window done within this."
    )
    # Netdata's alarm: parts_to_do flat for 30 minutes is a stalled mutation.
    mutation_stall_seconds: Seconds = Field(default=1_800, description="Without progress for this long = stalled.")
    not_picked_up_seconds: Seconds = Field(default=300, description="A host may lack the mutation for this long.")
    fail_reason_polls: Polls = Field(
        default=3,
        description="Polls in a row with a fail reason after which the mutation has failed.",
    )
    max_unfinished_foreign_mutations: Count = Field(
        default=20,
        description="Unfinished mutations of others on a table above which no DELETE is sent to it.",
    )
    verify_band: VerifyBand = Field(default=VerifyBand(), description="Rows after / before that a cleanup may give.")
    verify_bands: dict[Identifier, VerifyBand] = Field(default={}, description="Other bands, by table.")
    verify_poll_seconds: PollSeconds = Field(
        default=15, description="Longest interval of counting again: a fifth of it at first."
    )
    verify_deadline_seconds: Seconds = Field(default=1_800, description="Counts must have settled within this.")
    verify_tolerance_share: float = Field(
        default=0.01,
        ge=0,
        le=0.5,
        description="Share of the expected rows of a day, and of a window, that may be missing.",
    )
    verify_tolerance_rows: int = Field(
        default=0,
        ge=0,
        le=1_000,
        description="Rows of a day, and of a window, that may be missing whatever the share is.",
    )
    verify_small_rows: int = Field(
        default=10,
        ge=1,
        le=1_000_000,
        description="Without a predicate, days with fewer rows before are judged together by the band.",
    )
    stable_ids: bool = Field(default=True, description="The reindexer writes a row again under the id that it had.")
    must_be_zero: Annotated[tuple[MustBeZero, ...], Strict(False)] = Field(
        default=(),
        max_length=10,
        description="Rows that may not be there after a cleanup, as {table, column, equals}.",
    )
    meant_to_go: dict[Identifier, MeantToGo] | None = Field(
        default=None,
        description="By table, the rows that a cleanup is meant to remove; null = not known, only the band judges.",
    )
    written_columns: dict[Identifier, WrittenColumn] = Field(
        default={}, description="By table, the column that tells rows of a reindex from older ones."
    )
    # NTP keeps hosts within a second; a minute leaves room for a writer that stamps a batch before it sends it.
    clock_skew_seconds: int = Field(
        default=60,
        ge=1,
        le=3_600,
        description="A row counts as old only if it was written this much before the reindex began.",
    )
    delete: DeleteConfig = Field(default=DeleteConfig(), description="How rows are deleted.")

    @model_validator(mode="after")
    def _tables_agree(self) -> ClickHouseConfig:
        if len(set(self.tables)) != len(self.tables):
            raise ValueError(f"tables {list(self.tables)} names a table twice")
        for table in self.tables:
            if table not in self.id_columns:
                raise ValueError(f"id_columns has no entry for table {table!r}; add {table}: <its id column>")
        named = [*self.verify_bands, *(rule.table for rule in self.must_be_zero)]
        for table in named:
            if table not in self.tables:
                raise ValueError(f"table {table!r} of verify_bands or must_be_zero is not one of {list(self.tables)}")
        for table in (*(self.meant_to_go or {}), *self.written_columns):
            if table not in self.tables:
                raise ValueError(f"table {table!r} of meant_to_go or written_columns is not one of {list(self.tables)}")
        return self

    @model_validator(mode="after")
    def _rules_end_at_a_value(self) -> ClickHouseConfig:
        rules = self.meant_to_go or {}
        for table, rule in rules.items():
            if rule.by is not None and (rule.by not in rules or rules[rule.by].column is None):
                raise ValueError(f"meant_to_go of {table!r}: by is {rule.by!r}, which has no column and equals there")
        return self

    def band_of(self, table: str) -> VerifyBand:
        """The band of one table: its own in `verify_bands`, else `verify_band`."""
        return self.verify_bands.get(table, self.verify_band)

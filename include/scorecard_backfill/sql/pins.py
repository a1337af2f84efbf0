"""Settings that every query of the project fixes, so that no profile decides what an answer holds."""

from __future__ import annotations

from collections.abc import Mapping

_THROW = (
    "read_overflow_mode",
    "read_overflow_mode_leaf",
    "group_by_overflow_mode",
    "sort_overflow_mode",
    "result_overflow_mode",
    "timeout_overflow_mode",
    "timeout_overflow_mode_leaf",
    "set_overflow_mode",
    "join_overflow_mode",
    "transfer_overflow_mode",
    "distinct_overflow_mode",
)
"""What a limit does when it is reached: an error, never a part of the answer. The limits themselves stay."""

PINNED: Mapping[str, str] = {
    **dict.fromkeys(_THROW, "throw"),
    # Rows that are cut off or filtered out without a word.
    "limit": "0",
    "offset": "0",
    "additional_table_filters": "{}",
    "additional_result_filter": "",
    "partial_result_on_first_cancel": "0",
    # A host that does not answer must be an error and never a smaller count.
    "skip_unavailable_shards": "0",
    "optimize_skip_unused_shards": "0",
    "distributed_group_by_no_merge": "0",
    # One replica answers for a shard, and all rows of it.
    "max_parallel_replicas": "1",
    "allow_experimental_parallel_reading_from_replicas": "0",
    "enable_parallel_replicas": "0",
    # Answers of an earlier moment.
    "use_query_cache": "0",
    "use_query_condition_cache": "0",
    # Projections may still hold rows that a lightweight delete hid (ClickHouse#50613).
    "optimize_use_projections": "0",
    "optimize_use_implicit_projections": "0",
    "allow_experimental_projection_optimization": "0",
    # Where FINAL stands it takes the newest version over all partitions; where it does not stand it is not added.
    "final": "0",
    "do_not_merge_across_partitions_select_final": "0",
    "use_skip_indexes_if_final": "0",
    "optimize_move_to_prewhere_if_final": "0",
    # A newer version of a row may lie in a partition of another month.
    "defer_partition_pruning_after_final": "1",
    # Parts that are not in a quorum yet, or not warm.
    "select_sequential_consistency": "0",
    "ignore_cold_parts_seconds": "0",
    # A CONSTRAINT ... ASSUME is believed without a look at the rows.
    "convert_query_to_cnf": "0",
    "optimize_using_constraints": "0",
    "optimize_substitute_columns": "0",
    "optimize_append_index": "0",
    # Questions that are refused because they do not use what an administrator wants to be used.
    "force_index_by_date": "0",
    "force_primary_key": "0",
    "force_optimize_projection": "0",
    "force_optimize_projection_name": "",
    "force_optimize_skip_unused_shards": "0",
    # Rows that are deleted are not shown, rows of an unfinished mutation are.
    "apply_deleted_mask": "1",
    "apply_patch_parts": "1",
    "apply_mutations_on_fly": "0",
    # An aggregate over nothing is one row with 0; a key of ROLLUP's total is '' and not NULL.
    "empty_result_for_aggregation_by_empty_set": "0",
    "aggregate_functions_null_for_empty": "0",
    "group_by_use_nulls": "0",
    "transform_null_in": "0",
    "prefer_column_name_to_alias": "0",
    "extremes": "0",
}
"""Values as ``system.settings`` shows them. A server that does not know one of them has no use for it."""


ALWAYS_KNOWN = frozenset(
    {"limit", "offset", "skip_unavailable_shards", "max_parallel_replicas", "extremes", "read_overflow_mode",
     "group_by_overflow_mode", "result_overflow_mode", "timeout_overflow_mode", "set_overflow_mode"}
)  # fmt: skip
"""Settings of every supported server: a list of settings without one of them was cut off."""

SETTINGS_STATEMENT = "SELECT groupArray((name, value, readonly)) AS settings FROM system.settings"
"""All settings as one row, which no limit on rows of an answer cuts: ``settings`` as (name, value, readonly)."""


def pins(known: Mapping[str, tuple[str, bool]]) -> tuple[dict[str, str], list[str]]:
    """Return the settings to send, and a sentence for each one that this user may not set and that has another value.

    ``known``: (value, may not be changed) of every setting of the server. A setting that has the right value is sent
    all the same, because the profile on another host of the cluster may differ.
    """
    send: dict[str, str] = {}
    problems = []
    for name, wanted in PINNED.items():
        if name not in known:
            continue
        value, fixed = known[name]
        if not fixed:
            send[name] = wanted
        elif value != wanted:
            problems.append(f"{name} is {value!r} and must be {wanted!r}")
    return send, problems

"""What an approval is about, line by line, and its digest: what is approved is what runs.

Each destructive step makes the terms anew from the cluster's file of that moment and compares them with those that were
approved. A difference is never repaired silently: the step says which line differs, and nothing is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date

from include.scorecard_backfill import names
from include.scorecard_backfill.config import ClickHouseConfig, ClusterConfig
from include.scorecard_backfill.config.fields import RunMode
from include.scorecard_backfill.records import Order, Window
from include.scorecard_backfill.sql import Names, Slice, delete_statement

_PLACEHOLDER = Slice("<database>", "<customer>", "<profile>", date(2000, 1, 1), date(2000, 1, 2))
_KEY = "0" * 16

_ASKED_AT = "a person is asked at"

Terms = Mapping[str, str]
"""Each term by its name in words."""


def windows_digest(windows: Sequence[Window]) -> str:
    """Return the digest (16 hex digits) of a plan's windows: who, which days, which databases, how."""
    plain = [w.model_dump(mode="json", include={"key", "start", "end", "mode", "order", "databases"}) for w in windows]
    return names.digest(json.dumps(plain, sort_keys=True, separators=(",", ":")))


def terms_of(config: ClusterConfig, *, mode: RunMode, order: Order, windows: str, max_parallel: int) -> Terms:
    """Return the terms under which the windows (their digest) of a run are carried out.

    ``max_parallel`` is the run's own limit. A person's override of it, which has an author and an end, is not a term.
    """
    house = config.clickhouse
    delete = house.delete
    statement = delete_statement(
        cluster=house.cluster,
        table="<table>",
        part=_PLACEHOLDER,
        names=Names(house.time_column, house.customer_column, house.profile_column, house.conversation_column),
        key=_KEY,
        generation=1,
    )
    rules = [rule.model_dump(mode="json") for rule in house.must_be_zero]
    return {
        "windows": windows,
        "mode": mode,
        "order": order,
        _ASKED_AT: config.approve if order == "reindex_first" else "plan",
        "ClickHouse cluster": house.cluster,
        "tables": ", ".join(house.tables),
        "statement": statement,
        "meant to go": json.dumps(house.model_dump(mode="json").get("meant_to_go"), sort_keys=True),
        "may not remain": json.dumps(rules, sort_keys=True),
        # A sweep, and a DELETE that is repeated after the reindex began, take only what these call old.
        "old rows": json.dumps(
            {
                "columns": {t: c.model_dump(mode="json") for t, c in house.written_columns.items()},
                "skew": house.clock_skew_seconds,
            },
            sort_keys=True,
        ),
        "rows are copied first": "yes" if config.snapshot.enabled else "no",
        "partitions are dropped": "yes" if delete.drop_partition else "no",
        "rows of one DELETE": str(delete.max_rows_per_mutation),
        "own unfinished mutations": str(delete.max_own_unfinished_mutations),
        "windows at once": str(max_parallel),
        "reindex Job": f"{config.kubernetes.context} {config.kubernetes.namespace} {config.kubernetes.cronjob}",
        **({"a sweep is judged by": _judging(house)} if order == "reindex_first" else {}),
    }


def _judging(house: ClickHouseConfig) -> str:
    """Return by what it is decided that a sweep may go, and unasked; in delete_first only what came back is judged."""
    bands = {table: house.band_of(table).model_dump(mode="json") for table in house.tables}
    named = house.model_dump(
        mode="json",
        include={"id_columns", "stable_ids", "verify_tolerance_share", "verify_tolerance_rows", "verify_small_rows"},
    )
    return json.dumps({**named, "bands": bands}, sort_keys=True)


def windows_of(terms: Terms) -> str:
    """Return the digest of the windows that terms are about."""
    return terms["windows"]


def asked_at(terms: Terms) -> str:
    """Return what a person approves: ``plan``, each ``sweep`` or ``both``."""
    return terms.get(_ASKED_AT, "plan")


def terms_again(config: ClusterConfig, planned: Terms) -> Terms:
    """Return the terms of a plan as they would be carried out by the cluster's file as it is now."""
    return terms_of(
        config,
        mode=planned["mode"],  # type: ignore[arg-type]
        order=planned["order"],  # type: ignore[arg-type]
        windows=planned["windows"],
        max_parallel=int(planned["windows at once"]),
    )


def digest(terms: Terms) -> str:
    """Return the digest (16 hex digits) of terms, whatever their order."""
    return names.digest(json.dumps(dict(terms), sort_keys=True, separators=(",", ":")))


def differences(approved: Terms, now: Terms) -> list[str]:
    """Return one sentence for each term that is not the same, [] when everything is."""
    return [
        f"{name}: approved was {approved.get(name, 'nothing')!r}, now it is {now.get(name, 'nothing')!r}"
        for name in dict.fromkeys([*approved, *now])
        if approved.get(name) != now.get(name)
    ]

"""A snapshot goes back by the names of columns; what would be lost or changed on the way is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from include.scorecard_backfill.putback import Places, PutBackError, columns_to_put_back

Json = dict[str, Any]

HOSTS = ("node-1", "node-2")
PLACES = Places("acme_voice", "copy", "scorecard", "scorecard_d", ("id", "at"))
OLD = {"id": ("String", ""), "at": ("DateTime", ""), "points": ("UInt32", ""), "version": ("UInt32", "DEFAULT")}


def rows(copy: Json, table: Json, twin: Json | None = None, **other: Json) -> list[Json]:
    """Columns as both hosts show them; ``other`` is the table on node-2."""
    found = {"copy": copy, "scorecard": table, "scorecard_d": table if twin is None else twin}
    return [
        {"host": host, "table": name,
         "columns": [[n, *c] for n, c in (other.get("other", columns) if (host, name) == ("node-2", "scorecard")
                                          else columns).items()]}
        for host in HOSTS for name, columns in found.items()
    ]  # fmt: skip


def without(*names: str) -> Json:
    """The old columns without these."""
    return {name: column for name, column in OLD.items() if name not in names}


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        (OLD, ("at", "id", "points", "version")),
        (dict(reversed(OLD.items())), ("at", "id", "points", "version")),
        ({"first": ("String", ""), **OLD, "last": ("String", "DEFAULT")}, ("at", "id", "points", "version")),
        (without("points"), ("at", "id", "version")),
        (without("points") | {"month": ("Date", "MATERIALIZED")}, ("at", "id", "version")),
        (OLD | {"points": ("UInt32", "MATERIALIZED")}, ("at", "id", "version")),
        (OLD | {"points": ("UInt32", "ALIAS")}, ("at", "id", "version")),
        (
            OLD | {"points": ("Nullable(UInt32)", ""), "id": ("LowCardinality(String)", "")},
            ("at", "id", "points", "version"),
        ),
    ],
    ids=["same", "moved", "added", "removed", "removed-computed", "materialized", "alias", "wider"],
)
def test_common_columns_that_an_insert_takes_go_back_by_name(table: Json, columns: tuple[str, ...]) -> None:
    assert columns_to_put_back(rows(OLD, table), PLACES, HOSTS) == columns


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (rows(OLD, without("points") | {"score": ("UInt32", "")}), "lost 'points' .* has 'score' instead"),
        (rows(OLD, without("id")), "has no column 'id' any more"),
        (rows(OLD, OLD | {"at": ("DateTime", "ALIAS")}), "has no column 'at' any more"),
        (rows(OLD, OLD | {"points": ("UInt8", "")}), "points: UInt32 in the snapshot, UInt8 in the table"),
        (rows(OLD | {"points": ("Nullable(UInt32)", "")}, OLD), r"points: Nullable\(UInt32\) in the snapshot"),
        (rows(OLD, OLD, without("points")), "scorecard_d does not have 'points'"),
        (rows(OLD, OLD, other=without("points")), "has 'points' not alike on node-1 and node-2"),
        (rows(OLD, OLD)[:-3], "the columns of acme_voice.copy on node-2 are not known"),
        ([], "are not known"),
    ],
)
def test_what_would_be_lost_or_changed_is_refused_by_name(found: list[Json], text: str) -> None:
    with pytest.raises(PutBackError, match=text):
        columns_to_put_back(found, PLACES, HOSTS)

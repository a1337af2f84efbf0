"""What the plan reads of a cluster: the pairs and volumes of the databases that can be used, in these days."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from backfill.operators.plan import read_inventory
from include.scorecard_backfill import sql
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.rules import names_of
from include.scorecard_backfill.planning.plan import Inventory, Volume
from include.scorecard_backfill.planning.windows import DateRange

Json = dict[str, Any]

DAYS = DateRange(date(2026, 1, 1), date(2026, 2, 1))


class Hook:
    """Answers what was told."""

    def __init__(self, found: Json, **clickhouse: Any) -> None:
        config = ClusterConfig.model_validate(
            {"name": "demo", "kubernetes": {"context": "demo"}, "clickhouse": {"cluster": "talk", **clickhouse}}
        )
        self.config = config.clickhouse
        self.names = names_of(self.config)
        self.found = found
        self.told: dict[str, list[Json]] = {}

    def topology(self) -> str:
        """Return the hosts."""
        return "hosts"

    def tables(self, hosts: str) -> Any:
        """Return the tables of these hosts."""
        assert hosts == "hosts"
        return self.found, {"bare_voice": ["bare_voice.scorecard is missing on node-2-1"]}, []

    def rows(self, statement: str) -> list[Json]:
        """Answer one statement; one that nobody has told of is a mistake."""
        return self.told[statement]


def inventory(hook: Hook) -> Any:
    """What is read."""
    return read_inventory(hook, DAYS)  # type: ignore[arg-type]


def row(table: str, **fields: Any) -> Json:
    """A volume of a day."""
    base = {"database": "acme_voice", "table": table, "customer_id": "acme", "profile_id": "voice",
            "day": "2026-01-05", "rows": 90, "conversations": 30}  # fmt: skip
    return base | fields


def test_owners_are_read_where_the_table_is_that_tells_them_and_volumes_everywhere() -> None:
    found = {
        "acme_voice": ("conversations", "scorecard"), "globex_voice": ("scorecard",),
        "Acme_chat": ("conversations",),
    }  # fmt: skip
    hook = Hook(found, volume_table="conversations", tables=["scorecard"])
    databases = ["Acme_chat", "acme_voice"]
    pairs = sql.pairs_statement(cluster="talk", databases=databases, table="conversations", names=hook.names)
    volumes = sql.volumes_statement(
        cluster="talk", databases=[*databases, "globex_voice"], tables=("scorecard", "conversations"),
        names=hook.names, start=DAYS.start, end=DAYS.end,
    )  # fmt: skip
    hook.told = {
        pairs: [{"database": "acme_voice", "customer_id": "acme", "profile_id": "voice"}],
        volumes: [row("scorecard"), row("conversations", rows=30)],
    }
    stock, problems = inventory(hook)
    assert stock == Inventory(
        {"acme_voice": ("scorecard",), "globex_voice": ("scorecard",), "Acme_chat": ()},
        {"acme_voice": (("acme", "voice"),)},
        (
            Volume("acme_voice", "conversations", "acme", "voice", date(2026, 1, 5), 30, 30),
            Volume("acme_voice", "scorecard", "acme", "voice", date(2026, 1, 5), 90, 30),
        ),
    )
    assert problems == {"bare_voice": ["bare_voice.scorecard is missing on node-2-1"]}


def test_a_table_that_is_both_is_asked_for_once() -> None:
    hook = Hook({"acme_voice": ("scorecard", "score")})
    names = hook.names
    hook.told = {
        sql.pairs_statement(cluster="talk", databases=["acme_voice"], table="scorecard", names=names): [],
        sql.volumes_statement(
            cluster="talk", databases=["acme_voice"], tables=("scorecard", "score"), names=names, start=DAYS.start,
            end=DAYS.end,
        ): [],
    }  # fmt: skip
    assert inventory(hook)[0] == Inventory({"acme_voice": ("scorecard", "score")}, {}, ())


def test_a_cluster_without_the_table_of_volumes_is_refused_with_what_it_has() -> None:
    found = {f"acme{n}_voice": ("scorecard",) for n in range(7)}
    with pytest.raises(AirflowFailException) as refused:
        inventory(Hook(found, volume_table="conversations", tables=["scorecard"]))
    assert str(refused.value) == (
        "the plan is refused, nothing was deleted: no database has the table 'conversations'"
        " (clickhouse.volume_table); there are acme0_voice, acme1_voice, acme2_voice, acme3_voice, acme4_voice with"
        " scorecard"
    )


def test_a_cluster_without_any_usable_table_is_told_by_its_problems() -> None:
    stock, problems = inventory(Hook({}))
    assert (stock, set(problems)) == (Inventory({}, {}), {"bare_voice"})

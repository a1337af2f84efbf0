"""What the file says about rows: meant to go, written when; and what it may not say."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.clickhouse import ClickHouseConfig
from include.scorecard_backfill.config.load import CLUSTERS_FOLDER, load_clusters
from include.scorecard_backfill.config.rules import meant_rule, names_of, written
from include.scorecard_backfill.sql import Names
from include.scorecard_backfill.sql.census import IdsOf, Value, Written
from sandbox.data.generate import APPEAL
from sandbox.data.tables import SCORE_COLUMNS, SCORECARD_COLUMNS

APPEALS = {"column": "scorecard_type", "equals": APPEAL}
BOTH = ["scorecard", "score"]


def clickhouse(**fields: Any) -> ClickHouseConfig:
    return ClickHouseConfig.model_validate(fields)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"scorecard": {"column": "kind"}}, "either column and equals, or by and id_column"),
        ({"scorecard": {"equals": 1}}, "either column and equals, or by and id_column"),
        ({"scorecard": {}}, "either column and equals, or by and id_column"),
        ({"scorecard": APPEALS, "score": {"by": "scorecard"}}, "either column and equals, or by and id_column"),
        ({"scorecard": APPEALS, "score": {**APPEALS, "by": "scorecard", "id_column": "i"}}, "either column and equals"),
        ({"score": {"by": "scorecard", "id_column": "scorecard_id"}}, "by is 'scorecard', which has no column"),
        ({"score": {"by": "score", "id_column": "scorecard_id"}}, "by is 'score', which has no column"),
        ({"other": APPEALS}, "'other' of meant_to_go or written_columns is not one of"),
        ({"scorecard": {"column": "a; DROP", "equals": 1}}, "should match pattern"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(rules: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        clickhouse(meant_to_go=rules)


def test_rules_are_by_value_or_by_the_ids_of_the_other_table() -> None:
    config = clickhouse(meant_to_go={"scorecard": APPEALS, "score": {"by": "scorecard", "id_column": "card"}})
    appeals = Value("scorecard_type", APPEAL)
    assert meant_rule(config, "scorecard", BOTH) == appeals
    assert meant_rule(config, "score", BOTH) == IdsOf("card", "scorecard", "scorecard_id", appeals)
    assert meant_rule(config, "score", ["score"]) is None
    assert meant_rule(clickhouse(), "scorecard", BOTH) is None


def test_the_margin_for_clocks_is_taken_off() -> None:
    since = datetime(2026, 6, 1, 12, tzinfo=UTC)
    config = clickhouse(written_columns={"score": {"column": "v", "unit": "seconds"}}, clock_skew_seconds=90)
    assert written(config, "score", since) == Written("v", datetime(2026, 6, 1, 11, 58, 30, tzinfo=UTC), "seconds")
    assert written(config, "scorecard", since) is None


def test_production_leaves_it_open_and_the_sandbox_says_what_its_data_are() -> None:
    for found in load_clusters(CLUSTERS_FOLDER):
        assert isinstance(found, ClusterConfig)
        assert (found.clickhouse.meant_to_go, found.clickhouse.written_columns) == (None, {})
    for found in load_clusters(Path("sandbox/clusters")):
        assert isinstance(found, ClusterConfig)
        config = found.clickhouse
        assert meant_rule(config, "scorecard", BOTH) == Value("scorecard_type", APPEAL)
        rule = meant_rule(config, "score", BOTH)
        assert isinstance(rule, IdsOf)
        assert {rule.their_column, rule.value.column} <= set(SCORECARD_COLUMNS)
        assert rule.column in SCORE_COLUMNS
        assert {column.column for column in config.written_columns.values()} == {"updated_at"}


def test_statements_use_the_columns_that_the_file_names() -> None:
    named = {"time_column": "at", "customer_column": "who", "profile_column": "kind", "conversation_column": "talk"}
    assert names_of(clickhouse(**named)) == Names(time="at", customer="who", profile="kind", conversation="talk")

"""ClickHouse side of the data: statements of the sandbox's tables and columnar blocks of rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sandbox.data.generate import Conversation, Score, Scorecard
from sandbox.data.source import ScorecardRow, ScoreRow
from sandbox.data.spec import ProfileSpec

CLICKHOUSE_CLUSTER = "conversations"
"""Name of the ClickHouse cluster in every environment."""

_HOUR_MS = 3_600_000

_TEXT, _CODE, _TIME = "String", "LowCardinality(String)", "DateTime64(3, 'UTC')"

SCORECARD_COLUMNS = {
    "scorecard_id": _TEXT,
    "customer_id": _CODE,
    "profile_id": _CODE,
    "conversation_id": _TEXT,
    "scorecard_time": _TIME,
    "scorecard_type": _CODE,
    "updated_at": _TIME,
}
SCORE_COLUMNS = {
    "score_id": _TEXT,
    "scorecard_id": _TEXT,
    "customer_id": _CODE,
    "profile_id": _CODE,
    "conversation_id": _TEXT,
    "scorecard_time": _TIME,
    "criterion": _CODE,
    "value": "Float64",
    "updated_at": _TIME,
}
_SCORE_KEY = "conversation_id, scorecard_id, score_id"
_TABLES = {
    "scorecard": (SCORECARD_COLUMNS, "conversation_id, scorecard_id"),
    "score": (SCORE_COLUMNS, _SCORE_KEY),
    "scorecard_score": (SCORE_COLUMNS, _SCORE_KEY),
}


@dataclass(frozen=True, slots=True)
class Block:
    """Rows for one insert into `<table>_d`, column by column in the order of the table's columns."""

    table: str
    columns: tuple[list[object], ...]

    @property
    def rows(self) -> int:
        """Number of rows in the block."""
        return len(self.columns[0])


def columns_of(table: str) -> dict[str, str]:
    """Column names and types of a table by its local name; KeyError for an unknown table."""
    return _TABLES[table][0]


def create_statements(profile: ProfileSpec, replicated: bool = False) -> list[str]:
    """Statements that make the profile's database, local tables and distributed twins on every node.

    `replicated` = tables that need a Keeper, with the server's own macros as path and replica, as in production.
    """
    engine = "ReplicatedReplacingMergeTree" if replicated else "ReplacingMergeTree"
    database, cluster = profile.database, f"ON CLUSTER '{CLICKHOUSE_CLUSTER}'"
    statements = [f"CREATE DATABASE IF NOT EXISTS `{database}` {cluster}"]
    for table, (columns, key) in _TABLES.items():
        if table == "scorecard_score" and not profile.with_scorecard_score:
            continue
        body = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        statements += [
            f"CREATE TABLE IF NOT EXISTS `{database}`.`{table}` {cluster} ({body})"
            f" ENGINE = {engine}(updated_at)"
            f" PARTITION BY toYYYYMM(scorecard_time) ORDER BY ({key})",
            f"CREATE TABLE IF NOT EXISTS `{database}`.`{table}_d` {cluster} ({body})"
            f" ENGINE = Distributed('{CLICKHOUSE_CLUSTER}', '{database}', '{table}',"
            " cityHash64(conversation_id))",
        ]
    return statements


def drop_statement(profile: ProfileSpec) -> str:
    """Statement that removes the profile's database from every node."""
    return f"DROP DATABASE IF EXISTS `{profile.database}` ON CLUSTER '{CLICKHOUSE_CLUSTER}' SYNC"


def load_blocks(profile: ProfileSpec, conversations: Iterable[Conversation], max_rows: int) -> Iterator[Block]:
    """Blocks that fill the profile's tables; the older row versions are blocks of their own and come first,
    because one block with both versions would be merged on insert."""
    rows = [(c.conversation_id, card) for c in conversations for card in c.scorecards]
    score_tables = ("score", "scorecard_score") if profile.with_scorecard_score else ("score",)
    for old in (True, False):
        cards = [row for row in rows if row[1].has_older_version or not old]
        scores = [(conversation, card, score) for conversation, card in cards for score in card.scores]
        for start in range(0, len(cards), max_rows):
            yield _scorecard_block(profile, cards[start : start + max_rows], old)
        for table in score_tables:
            for start in range(0, len(scores), max_rows):
                yield _score_block(table, profile, scores[start : start + max_rows], old)


def reindex_blocks(
    customer_id: str,
    profile_id: str,
    scorecards: Iterable[ScorecardRow],
    scores: Iterable[ScoreRow],
    updated_ms: int,
) -> tuple[Block, Block]:
    """The two blocks (scorecard, score) of one reindexed batch; updated_ms in UTC milliseconds."""
    pair = (customer_id, profile_id)
    cards = [(c.scorecard_id, *pair, c.conversation_id, c.time_ms, c.scorecard_type, updated_ms) for c in scorecards]
    lines = [
        (s.score_id, s.scorecard.scorecard_id, *pair, s.scorecard.conversation_id, s.scorecard.time_ms,
         s.criterion, s.value, updated_ms)
        for s in scores
    ]  # fmt: skip
    return _block("scorecard", cards), _block("score", lines)


def _updated_ms(card: Scorecard, old: bool) -> int:
    """Current versions were written an hour after the scorecard, older ones at its own time."""
    return card.time_ms if old else card.time_ms + _HOUR_MS


def _scorecard_block(profile: ProfileSpec, cards: list[tuple[str, Scorecard]], old: bool) -> Block:
    pair = (profile.customer_id, profile.profile_id)
    return _block(
        "scorecard",
        [(c.scorecard_id, *pair, conv, c.time_ms, c.scorecard_type, _updated_ms(c, old)) for conv, c in cards],
    )


def _score_block(table: str, profile: ProfileSpec, scores: list[tuple[str, Scorecard, Score]], old: bool) -> Block:
    pair = (profile.customer_id, profile.profile_id)
    return _block(
        table,
        [
            (s.score_id, c.scorecard_id, *pair, conv, c.time_ms, s.criterion, s.value, _updated_ms(c, old))
            for conv, c, s in scores
        ],
    )


def _block(table: str, rows: Sequence[tuple[object, ...]]) -> Block:
    width = len(columns_of(table))
    columns = tuple(list(column) for column in zip(*rows, strict=True)) or tuple([] for _ in range(width))
    return Block(table, columns)

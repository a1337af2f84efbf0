"""The source store: what the real reindex code reads from Postgres, kept in one SQLite file per cluster."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sandbox.data.generate import APPEAL, Conversation
from sandbox.data.spec import ProfileSpec

_TABLES = (
    "profiles(customer_id TEXT, profile_id TEXT, PRIMARY KEY (customer_id, profile_id)) WITHOUT ROWID",
    "conversations(customer_id TEXT, profile_id TEXT, conversation_id TEXT PRIMARY KEY, started_at TEXT)",
    "scorecards(scorecard_id TEXT PRIMARY KEY, conversation_id TEXT, scorecard_type TEXT, scorecard_time TEXT)",
    "scores(score_id TEXT PRIMARY KEY, scorecard_id TEXT, criterion TEXT, value REAL)",
)
_INDEXES = (
    "conversations_by_start ON conversations(customer_id, profile_id, started_at, conversation_id)",
    "scorecards_by_conversation ON scorecards(conversation_id)",
    "scores_by_scorecard ON scores(scorecard_id)",
)


@dataclass(frozen=True, slots=True)
class ScorecardRow:
    """One ordinary scorecard to write again; time_ms is scorecard_time in UTC milliseconds."""

    scorecard_id: str
    conversation_id: str
    scorecard_type: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One score to write again, with the scorecard that it belongs to."""

    score_id: str
    scorecard: ScorecardRow
    criterion: str
    value: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Some conversations (count and the key of the last one) with their ordinary scorecards and scores."""

    conversations: int
    last: tuple[str, str]
    scorecards: tuple[ScorecardRow, ...]
    scores: tuple[ScoreRow, ...]


def iso_utc(time_ms: int) -> str:
    """UTC milliseconds as fixed-width ISO text, so that text order is time order.

    >>> iso_utc(1767225599999)
    '2025-12-31T23:59:59.999Z'
    """
    moment = datetime.fromtimestamp(time_ms // 1000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


def parse_utc(text: str) -> int:
    """RFC 3339 text with an offset -> UTC milliseconds; ValueError when the offset is missing."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time {text!r} has no UTC offset; write it like 2026-01-01T00:00:00Z")
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


class SourceWriter:
    """Fills a source store in one transaction; readers see the old data until `commit`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("BEGIN IMMEDIATE")
        for table in _TABLES:
            self._db.execute(f"DROP TABLE IF EXISTS {table.partition('(')[0]}")
            self._db.execute(f"CREATE TABLE {table}")

    def add(self, profile: ProfileSpec, conversations: Iterable[Conversation]) -> None:
        """Write the conversations of one profile."""
        pair = (profile.customer_id, profile.profile_id)
        rows = list(conversations)
        self._db.execute("INSERT INTO profiles VALUES (?, ?)", pair)
        self._db.executemany(
            "INSERT INTO conversations VALUES (?, ?, ?, ?)",
            ((*pair, c.conversation_id, iso_utc(c.started_ms)) for c in rows if c.started_ms is not None),
        )
        self._db.executemany(
            "INSERT INTO scorecards VALUES (?, ?, ?, ?)",
            (
                (s.scorecard_id, c.conversation_id, s.scorecard_type, iso_utc(s.time_ms))
                for c in rows
                for s in c.scorecards
            ),
        )
        self._db.executemany(
            "INSERT INTO scores VALUES (?, ?, ?, ?)",
            (
                (score.score_id, s.scorecard_id, score.criterion, score.value)
                for c in rows
                for s in c.scorecards
                for score in s.scores
            ),
        )

    def commit(self) -> None:
        """Make the new data visible and close the store."""
        for index in _INDEXES:
            self._db.execute(f"CREATE INDEX {index}")
        self._db.execute("COMMIT")
        self._db.close()

    def close(self) -> None:
        """Close; without an earlier `commit` the old data stays."""
        self._db.close()


class SourceReader:
    """Reads a source store; one instance may move between threads but not be used by two at once."""

    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError when there is no store at the path."""
        if not path.is_file():
            raise FileNotFoundError(f"no source store at {path}; write it with `python -m sandbox.data`")
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA query_only=ON")

    def close(self) -> None:
        """Close the store."""
        self._db.close()

    def profiles(self, customers: Sequence[str] | None) -> list[tuple[str, str]]:
        """(customer, profile) pairs in order; `customers` None means every customer, [] none."""
        pairs: list[tuple[str, str]] = self._db.execute("SELECT * FROM profiles ORDER BY 1, 2").fetchall()
        return [pair for pair in pairs if customers is None or pair[0] in set(customers)]

    def count(self, customer_id: str, profile_id: str, start: str, end: str) -> int:
        """Conversations of the profile that started in [start, end), both in the form of iso_utc."""
        sql = f"SELECT count(*) FROM conversations WHERE {_OF_PROFILE} AND started_at >= ?"
        row = self._db.execute(sql, (customer_id, profile_id, end, start)).fetchone()
        return int(row[0])

    def batch(self, customer_id: str, profile_id: str, after: tuple[str, str], end: str, limit: int) -> Batch | None:
        """The next `limit` conversations with (started_at, id) > after and started_at < end, None at the end.

        Appeal scorecards are left out, as the new reindex code does.
        """
        chosen = self._db.execute(
            f"SELECT conversation_id, started_at FROM conversations WHERE {_OF_PROFILE}"
            " AND (started_at, conversation_id) > (?, ?) ORDER BY started_at, conversation_id LIMIT ?",
            (customer_id, profile_id, end, *after, limit),
        ).fetchall()
        if not chosen:
            return None
        scorecards = self._scorecards([row[0] for row in chosen])
        return Batch(len(chosen), (chosen[-1][1], chosen[-1][0]), scorecards, self._scores(scorecards))

    def _scorecards(self, conversation_ids: Sequence[str]) -> tuple[ScorecardRow, ...]:
        marks = ",".join("?" * len(conversation_ids))
        rows = self._db.execute(
            "SELECT scorecard_id, conversation_id, scorecard_type, scorecard_time FROM scorecards"
            f" WHERE conversation_id IN ({marks}) AND scorecard_type <> ? ORDER BY scorecard_id",
            (*conversation_ids, APPEAL),
        )
        return tuple(ScorecardRow(row[0], row[1], row[2], parse_utc(row[3])) for row in rows)

    def _scores(self, scorecards: Sequence[ScorecardRow]) -> tuple[ScoreRow, ...]:
        by_id = {card.scorecard_id: card for card in scorecards}
        marks = ",".join("?" * len(by_id))
        rows = self._db.execute(
            "SELECT score_id, scorecard_id, criterion, value FROM scores"
            f" WHERE scorecard_id IN ({marks}) ORDER BY score_id",
            tuple(by_id),
        )
        return tuple(ScoreRow(row[0], by_id[row[1]], row[2], row[3]) for row in rows)


_OF_PROFILE = "customer_id = ? AND profile_id = ? AND started_at < ?"


def list_profiles(path: Path, customers: Sequence[str] | None) -> list[tuple[str, str]]:
    """Shortcut of SourceReader.profiles for one call."""
    with closing(SourceReader(path)) as reader:
        return reader.profiles(customers)

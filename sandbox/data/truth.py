"""The right counts: rows per customer, table and day before and after a clean-up. Pure, plus a JSON form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from sandbox.data.generate import APPEAL, Conversation, day_of, generate
from sandbox.data.spec import ClusterSpec, ProfileSpec

TABLES = ("scorecard", "score")
"""The tables that a clean-up touches; `scorecard_score` is never deleted by default."""


@dataclass(frozen=True, slots=True)
class TableTruth:
    """Rows of one table in a range, counted with FINAL."""

    before: int
    after: int

    @property
    def removed(self) -> int:
        """Rows that a clean-up takes away for good."""
        return self.before - self.after

    def __add__(self, other: TableTruth) -> TableTruth:
        return TableTruth(self.before + other.before, self.after + other.after)


ZERO = TableTruth(0, 0)


@dataclass(frozen=True, slots=True)
class Late:
    """Scorecards of one day whose conversation has another day (None: no conversation in the source)."""

    day: date
    conversation_day: date | None
    scorecard: int
    score: int


@dataclass(slots=True)
class ProfileTruth:
    """Counts per UTC day of one profile. `days[d][table]`; `after` leaves the late rows out."""

    customer_id: str
    profile_id: str
    database: str
    days: dict[date, dict[str, TableTruth]] = field(default_factory=dict)
    conversations: dict[date, int] = field(default_factory=dict)
    late: list[Late] = field(default_factory=list)

    def total(self, start_day: date, end_day: date) -> RangeTruth:
        """Counts for one clean-up window [start_day, end_day).

        Late rows come back only if scorecard and conversation both lie in the window, so a range that is
        cleaned in several windows equals the sum over these windows when there are stragglers.
        """
        counts = dict.fromkeys(TABLES, ZERO)
        for day, tables in self.days.items():
            if start_day <= day < end_day:
                counts = {table: counts[table] + tables.get(table, ZERO) for table in TABLES}
        for late in self.late:
            inside = late.conversation_day is not None and start_day <= late.conversation_day < end_day
            if inside and start_day <= late.day < end_day:
                counts["scorecard"] += TableTruth(0, late.scorecard)
                counts["score"] += TableTruth(0, late.score)
        conversations = sum(n for day, n in self.conversations.items() if start_day <= day < end_day)
        return RangeTruth(self.customer_id, self.profile_id, self.database, conversations, **counts)


@dataclass(frozen=True, slots=True)
class RangeTruth:
    """Counts of one profile in one range: conversations in the source, rows per table in ClickHouse."""

    customer_id: str
    profile_id: str
    database: str
    conversations: int
    scorecard: TableTruth
    score: TableTruth

    def table(self, name: str) -> TableTruth:
        """Counts of a table by its local name; KeyError if the table is not counted."""
        return {"scorecard": self.scorecard, "score": self.score}[name]


def profile_truth(profile: ProfileSpec, conversations: Iterable[Conversation]) -> ProfileTruth:
    """Count the records of one profile per day."""
    truth = ProfileTruth(profile.customer_id, profile.profile_id, profile.database)
    late: dict[tuple[date, date | None], tuple[int, int]] = {}
    for conversation in conversations:
        conversation_day = None if conversation.started_ms is None else day_of(conversation.started_ms)
        if conversation_day is not None:
            truth.conversations[conversation_day] = truth.conversations.get(conversation_day, 0) + 1
        for card in conversation.scorecards:
            day, scores, kept = day_of(card.time_ms), len(card.scores), card.scorecard_type != APPEAL
            on_time = kept and day == conversation_day
            tables = truth.days.setdefault(day, dict.fromkeys(TABLES, ZERO))
            tables["scorecard"] += TableTruth(1, int(on_time))
            tables["score"] += TableTruth(scores, scores * on_time)
            if kept and not on_time:
                cards, rows = late.get((day, conversation_day), (0, 0))
                late[day, conversation_day] = (cards + 1, rows + scores)
    truth.late = [Late(day, other, cards, rows) for (day, other), (cards, rows) in late.items()]
    return truth


def truth(spec: ClusterSpec, start_day: date, end_day: date) -> tuple[RangeTruth, ...]:
    """Counts per profile (in the spec's order) for a clean-up of [start_day, end_day) in one window."""
    profiles = (profile_truth(profile, generate(spec, profile)) for profile in spec.profiles)
    return tuple(profile.total(start_day, end_day) for profile in profiles)


def by_customer(rows: Iterable[RangeTruth]) -> Mapping[str, Mapping[str, TableTruth]]:
    """Sum the profiles of each customer: `{customer_id: {table: TableTruth}}`."""
    totals: dict[str, dict[str, TableTruth]] = {}
    for row in rows:
        tables = totals.setdefault(row.customer_id, dict.fromkeys(TABLES, ZERO))
        for table in TABLES:
            tables[table] += row.table(table)
    return totals


def write_truth(path: Path, spec: ClusterSpec, profiles: Iterable[ProfileTruth]) -> None:
    """Write the counts per customer and day as JSON (the folder is made)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "cluster": spec.name,
        "seed": spec.seed,
        "first_day": spec.first_day.isoformat(),
        "end_day_exclusive": spec.end_day.isoformat(),
        "profiles": [_to_json(profile) for profile in profiles],
    }
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document, indent=1) + "\n")
    part.replace(path)


def read_truth(path: Path) -> tuple[ProfileTruth, ...]:
    """Read what write_truth wrote. Raises OSError, KeyError or ValueError for a file that is not one."""
    return tuple(_from_json(entry) for entry in json.loads(path.read_text())["profiles"])


def _to_json(profile: ProfileTruth) -> dict[str, Any]:
    days = {
        day.isoformat(): {name: {"before": t.before, "after": t.after, "removed": t.removed}
                          for name, t in tables.items()}
        for day, tables in sorted(profile.days.items())
    }  # fmt: skip
    late = [
        {
            "day": entry.day.isoformat(),
            "conversation_day": entry.conversation_day and entry.conversation_day.isoformat(),
            "scorecard": entry.scorecard,
            "score": entry.score,
        }
        for entry in profile.late
    ]
    return {
        "customer_id": profile.customer_id,
        "profile_id": profile.profile_id,
        "database": profile.database,
        "conversations": {day.isoformat(): n for day, n in sorted(profile.conversations.items())},
        "days": days,
        "late": late,
    }


def _from_json(entry: dict[str, Any]) -> ProfileTruth:
    parse = date.fromisoformat
    return ProfileTruth(
        entry["customer_id"],
        entry["profile_id"],
        entry["database"],
        days={
            parse(day): {name: TableTruth(row["before"], row["after"]) for name, row in tables.items()}
            for day, tables in entry["days"].items()
        },
        conversations={parse(day): n for day, n in entry["conversations"].items()},
        late=[
            Late(
                parse(row["day"]),
                row["conversation_day"] and parse(row["conversation_day"]),
                row["scorecard"],
                row["score"],
            )
            for row in entry["late"]
        ],
    )

"""A ClickHouse that a deleter asks, from memory: what it is asked is kept in its order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from types import SimpleNamespace
from typing import Any

from backfill.hooks.clickhouse_errors import DdlAnswer
from include.scorecard_backfill import sql
from include.scorecard_backfill.planning.deletes import Step
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.mutations import Mutation

KEY = "0123456789abcdef"
OTHER = "f" * 16
NAMES = sql.Names("scorecard_time", "customer_id", "profile_id", "conversation_id")
PART = sql.Slice("acme_voice", "acme", "voice", date(2026, 1, 1), date(2026, 2, 1))
STEP = Step("scorecard", PART)
DROP = Step("scorecard", PART, kind="drop", partitions=("202601", "202602"))
HOSTS = [Host("node-1", 1), Host("node-2", 2)]


def mutation(host: str = "node-1", *, key: str = KEY, generation: int = 1, chunk: int = 0, **fields: Any) -> Mutation:
    """A mutation of ours as a host lists it; without a key, one of others."""
    marker = sql.marker_literal(key, generation, chunk) if key else "1"
    base: dict[str, Any] = {
        "database": "acme_voice",
        "table": "scorecard",
        "mutation_id": "mutation_7.txt",
        "command": f"(DELETE WHERE {marker} != '')",
        "created": 1_000,
        "is_done": False,
        "parts_to_do": 1,
        "fail_reason": "",
        "is_killed": False,
    }
    return Mutation(host=host, **{**base, **fields})


@dataclass
class House:
    """ClickHouse as a deleter asks it; what it is asked is kept in its order."""

    answer: DdlAnswer = field(default_factory=lambda: DdlAnswer("done", frozenset({"node-1", "node-2"})))
    running: list[str] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)
    listed: list[list[Mutation]] = field(default_factory=lambda: [[]])
    counted: dict[str, dict[str, int]] = field(default_factory=dict)
    on_send: Callable[[], None] = lambda: None
    asked: list[Any] = field(default_factory=list)
    waited_for: list[list[Host]] = field(default_factory=list)
    """The hosts whose answers are waited for, by statement."""

    names: sql.Names = NAMES
    config: Any = field(
        default_factory=lambda: SimpleNamespace(cluster="conversations", max_unfinished_foreign_mutations=2)
    )

    def send_ddl(self, statement: str, hosts: Sequence[Host]) -> DdlAnswer:
        """Take a statement; nobody executes it."""
        self.asked.append(("send", statement))
        self.waited_for.append(list(hosts))
        self.on_send()
        return self.answer

    def running_ddl(self, *needles: str) -> list[str]:
        """Hosts that still execute a statement with these texts."""
        self.asked.append(("running", needles))
        return self.running

    def queued_ddl(self, *needles: str) -> list[str]:
        """Hosts in whose queue one with these texts waits."""
        self.asked.append(("queued", needles))
        return self.queued

    def was_queued(self, *needles: str) -> bool:
        """Whether the queue has ever held one."""
        return True

    def mutations(self) -> list[Mutation]:
        """What the hosts list, look by look; the last list stays."""
        self.asked.append("mutations")
        return self.listed.pop(0) if len(self.listed) > 1 else self.listed[0]

    def host_counts(self, parts: Any, hosts: Sequence[Host]) -> list[dict[str, dict[str, int]]]:
        """Rows by host, as one count."""
        self.asked.append(("count", parts))
        return [self.counted]

    def raw(self, statement: str) -> str:
        """Nothing."""
        self.asked.append(("raw", statement))
        return ""

"""Why a workflow failed, by the types of Temporal's Failure message; its texts are only read for a deadlock."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

LinkKind = Literal["timeout", "application", "canceled", "terminated", "server", "wrapper", "unknown"]

TIMEOUTS = {
    "HEARTBEAT": "heartbeat_timeout",
    "START_TO_CLOSE": "start_to_close_timeout",
    "SCHEDULE_TO_START": "schedule_to_start_timeout",
    "SCHEDULE_TO_CLOSE": "schedule_to_close_timeout",
}
"""Words of Temporal's TimeoutType, and the causes that they are."""

CLOSINGS = {"timed_out": "workflow_timeout", "terminated": "terminated", "canceled": "canceled"}
"""How a run may end without a failure message of its own."""

_DEADLOCK = re.compile(r"\b40P01\b|\bdeadlock", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Link:
    """One failure of a chain. ``kind`` is the type of its details; ``wrapper`` only says where the next one came from.

    ``word``: the time-out's type or the application error's type. ``message``: '' when it is encoded and nobody can
    read it.
    """

    kind: LinkKind
    word: str = ""
    message: str = ""

    @property
    def text(self) -> str:
        """One phrase for a log line."""
        if self.kind == "timeout":
            return f"{self.word or 'UNKNOWN'} timeout"
        if self.kind == "application":
            return f"{self.word or 'ApplicationError'}: {self.message}" if self.message else self.word
        return self.message


def mentions_deadlock(text: str) -> bool:
    """Return True when a text of Postgres or of a client says that a deadlock was found (SQLSTATE 40P01)."""
    return bool(_DEADLOCK.search(text))


def chain_text(chain: Sequence[Link]) -> str:
    """Return the failures of a chain in one line, each once, the outermost first."""
    return " <- ".join(dict.fromkeys(link.text for link in chain if link.text))


def cause_of_end(chain: Sequence[Link], status: str) -> str:
    """Return the cause of a run that ended badly; ``chain`` from the outermost failure to the innermost.

    The innermost link that says something decides: an activity that ran out of time because each of its tries ended
    in a deadlock is a deadlock. How the run was closed decides when no link says anything.
    """
    for link in reversed(chain):
        if link.kind == "timeout" and link.word in TIMEOUTS:
            return TIMEOUTS[link.word]
        # Postgres' error has no type of its own on its way through the reindexer.
        if mentions_deadlock(link.message) or mentions_deadlock(link.word):
            return "deadlock"
    if status in CLOSINGS:
        return CLOSINGS[status]
    kinds = [link.kind for link in chain if link.kind != "wrapper"]
    inner = kinds[-1] if kinds else ""
    return inner if inner in ("canceled", "terminated") else "workflow_failed"

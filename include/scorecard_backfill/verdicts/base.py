"""What a wait decides: ok, wait or failed, each with the sentences that say why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "wait", "failed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of one look at the facts.

    ``cause`` is a short machine word (``killed``, ``heartbeat_timeout``, ``lost_rows``...) that a later stage or a
    retry decides by; it is empty unless ``state`` is ``failed``.
    """

    state: State
    reasons: tuple[str, ...] = ()
    cause: str = ""

    @property
    def text(self) -> str:
        """All reasons in one line, for a log or an error message."""
        return "; ".join(self.reasons) or self.state


def ok(*reasons: str) -> Verdict:
    """Return the verdict that everything asked for was proven."""
    return Verdict("ok", reasons)


def wait(*reasons: str) -> Verdict:
    """Return the verdict that it is not decided yet; at least one reason is owed to the reader of the log."""
    if not reasons:
        raise ValueError("a wait needs a reason")
    return Verdict("wait", reasons)


def failed(cause: str, *reasons: str) -> Verdict:
    """Return the verdict that it cannot come to a good end without a person or another attempt."""
    if not reasons or not cause:
        raise ValueError("a failure needs a cause and a reason")
    return Verdict("failed", reasons, cause)

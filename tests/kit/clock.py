"""A clock for the shared poll that only the test moves: how often it loads is then a count, on any machine."""

from __future__ import annotations

import pytest

from backfill.kit import poll


class Clock:
    """Stands for the module ``time`` in backfill.kit.poll."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of backfill.kit.poll, standing still."""
    made = Clock()
    monkeypatch.setattr(poll, "time", made)
    return made

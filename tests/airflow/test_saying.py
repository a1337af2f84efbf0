"""Lines that many waits log at one moment come one after another: a burst stops the triggerer for good."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.kit import saying
from backfill.kit.look import Look, wait
from backfill.kit.saying import LINES_A_SECOND, LINES_AT_ONCE, Pace, say
from tests.airflow.test_waits_base import Probe, failed, ok
from tests.kit.waits import NAME, cluster, only_event

__all__ = ["cluster"]

SOCKET_BYTES = 212_992
"""What a socket of Linux holds (net.core.wmem_default)."""

LINE_BYTES = 500
AWAY_SECONDS = 3.0
"""For so long the supervisor may look after something else, such as a large answer of Airflow's API."""


def test_what_may_be_said_while_nobody_reads_fits_a_socket() -> None:
    assert (LINES_AT_ONCE + AWAY_SECONDS * LINES_A_SECOND) * LINE_BYTES < SOCKET_BYTES


@given(st.lists(st.floats(0, 2), max_size=300))
def test_no_second_has_more_lines_than_are_taken(pauses: list[float]) -> None:
    pace, now, said = Pace(), 0.0, []
    for pause in pauses:
        now += pause
        said.append(now + pace.turn(now))
    assert said == sorted(said)
    for number, first in enumerate(said):
        within = [at for at in said[number:] if at < first + 1]
        assert len(within) <= LINES_AT_ONCE + LINES_A_SECOND + 1


def test_who_is_alone_does_not_wait_and_a_pause_gives_no_more_than_the_first_moment() -> None:
    pace = Pace()
    assert pace.turn(0.0) == 0
    for start in (10.0, 10_000.0):
        turns = [pace.turn(start) for _ in range(LINES_AT_ONCE + 2)]
        assert turns[:LINES_AT_ONCE] == pytest.approx([0.0] * LINES_AT_ONCE, abs=1e-6)
        assert turns[-2:] == pytest.approx([1 / LINES_A_SECOND, 2 / LINES_A_SECOND])


async def test_of_many_waits_with_a_line_at_one_moment_the_event_loop_writes_few() -> None:
    lines: list[str] = []

    def write(text: str, *args: object) -> None:
        lines.append(text % args)

    waits = [asyncio.create_task(say(write, "waiting: %s", number)) for number in range(4 * LINES_AT_ONCE)]
    # One turn of the loop begins them all.
    await asyncio.sleep(0)
    assert lines == [f"waiting: {number}" for number in range(LINES_AT_ONCE)]
    await asyncio.gather(*waits)
    assert lines == [f"waiting: {number}" for number in range(4 * LINES_AT_ONCE)]


ENDS: list[tuple[str, Look]] = [
    ("waiting: not yet", wait("not yet")),
    ("verify failed: breaker: too many have failed", failed("breaker", "too many have failed")),
    ("done: at last", ok("at last")),
]


@pytest.mark.parametrize(("line", "look"), ENDS)
async def test_waits_that_come_to_the_same_at_one_moment_do_not_all_log_it_at_once(
    line: str, look: Look, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken: list[str] = []
    never = asyncio.Event()

    def write(text: str, *args: object) -> None:
        spoken.append(text % args)

    async def sleep(_: float) -> None:
        await never.wait()

    monkeypatch.setattr(Probe, "log", SimpleNamespace(info=write, error=write, warning=write))
    monkeypatch.setattr(saying, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(saying, "time", SimpleNamespace(monotonic=lambda: 0.0))
    waits = [asyncio.create_task(only_event(Probe(NAME, look))) for _ in range(3 * LINES_AT_ONCE)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert [text.splitlines()[0] for text in spoken] == [line] * LINES_AT_ONCE
    for task in waits:
        task.cancel()
    await asyncio.gather(*waits, return_exceptions=True)

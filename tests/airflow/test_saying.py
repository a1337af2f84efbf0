"""Lines that many waits log at one moment come one after another: a burst stops the triggerer for good."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from backfill.kit import saying
from backfill.kit.look import Look, wait
from backfill.kit.saying import LINES_A_SECOND, LINES_AT_ONCE, LOOK_SECONDS, Pace, channel, has_room, say
from tests.airflow.test_waits_base import Probe, failed, ok
from tests.kit.waits import NAME, cluster, only_event

__all__ = ["cluster"]


class Logs:
    """A socket as that of a triggerer's process to its supervisor, of which somebody reads when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reader, writer = socket.socketpair()
        # Like Airflow's: unbuffered, and blocking.
        self.stream = os.fdopen(os.dup(writer.fileno()), "wb", buffering=0)
        writer.close()
        monkeypatch.setattr(structlog, "get_config", lambda: {"logger_factory": SimpleNamespace(io=self.stream)})
        self.lines = 0

    def write(self, text: str, *args: object) -> None:
        """Write a line as long as ours are."""
        self.stream.write((text % args).ljust(450).encode() + b"\n")
        self.lines += 1

    def read(self) -> None:
        """Read all that is there."""
        self.reader.setblocking(False)
        with suppress(BlockingIOError):
            while self.reader.recv(65_536):
                pass

    def room(self) -> int:
        """How many of Airflow's own lines fit before a write would block."""
        os.set_blocking(self.stream.fileno(), False)
        fit = 0
        while self.stream.write(b"x" * 450) is not None:
            fit += 1
        return fit


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Logs]:
    made = Logs(monkeypatch)
    yield made
    made.reader.close()
    made.stream.close()


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


async def test_while_nobody_reads_waits_leave_room_for_the_lines_of_airflow(logs: Logs) -> None:
    waits = [asyncio.create_task(say(logs.write, "waiting: %s", number)) for number in range(300)]
    await until(lambda: not has_room(channel()))
    said = logs.lines
    assert said > 10
    # The loop is not blocked, and nothing more is said however long it goes on.
    await asyncio.sleep(5 * LOOK_SECONDS)
    assert logs.lines == said
    # Fifty triggers that start, and another fifty before the first lines are read.
    assert logs.room() >= 100
    os.set_blocking(logs.stream.fileno(), True)
    while not all(task.done() for task in waits):
        logs.read()
        await asyncio.sleep(0.02)
    assert logs.lines == 300


async def test_a_wait_goes_on_without_its_line_when_nobody_reads(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saying, "ROOM_SECONDS", 3 * LOOK_SECONDS)
    texts: list[str] = []

    def write(text: str, *args: object) -> None:
        texts.append(text % args)
        logs.write(text, *args)

    waits = [asyncio.create_task(say(write, "waiting: %s", number)) for number in range(300)]
    # All go on, the first after its time, the others at once: it is not asked 300 times for so long.
    await asyncio.wait_for(asyncio.gather(*waits), 20)
    said = len(texts)
    assert 10 < said < 100
    assert logs.room() >= 100
    os.set_blocking(logs.stream.fileno(), True)
    logs.read()
    await say(write, "waiting: %s", "again")
    assert texts[said:] == [
        f"{300 - said} lines of waits were not logged: the triggerer did not read them in time",
        "waiting: again",
    ]
    await say(write, "waiting: %s", "once more")
    assert texts[said + 2 :] == ["waiting: once more"]


def test_what_is_not_a_socket_has_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        for stream in (file, None, SimpleNamespace()):
            factory = SimpleNamespace(io=stream)
            monkeypatch.setattr(structlog, "get_config", lambda factory=factory: {"logger_factory": factory})
            assert channel() is None
        monkeypatch.setattr(structlog, "get_config", dict)
        assert channel() is None
        # Nor does a file tell what of it was read.
        assert has_room(file.fileno())
    assert has_room(None)


def test_airflow_logs_to_its_supervisor_where_it_is_looked_for() -> None:
    """Its own function makes the descriptor that the look takes, in a process of its own: it changes all of logging."""
    code = (
        "import os, socket, sys; from airflow.sdk.execution_time.supervisor import _configure_logs_over_json_channel;"
        "from backfill.kit import saying; ours, _ = socket.socketpair();"
        "_configure_logs_over_json_channel(ours.fileno());"
        "sys.exit(0 if saying.channel() == ours.detach() and saying.has_room(saying.channel()) else 1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


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
    monkeypatch.setattr(saying, "asyncio", SimpleNamespace(sleep=sleep, Lock=asyncio.Lock))
    monkeypatch.setattr(saying, "time", SimpleNamespace(monotonic=lambda: 0.0))
    waits = [asyncio.create_task(only_event(Probe(NAME, look))) for _ in range(3 * LINES_AT_ONCE)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert [text.splitlines()[0] for text in spoken] == [line] * LINES_AT_ONCE
    for task in waits:
        task.cancel()
    await asyncio.gather(*waits, return_exceptions=True)

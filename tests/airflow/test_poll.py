"""The shared poll: one load for all who wait, nothing stale, and no storm on a server that is in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from backfill.kit import poll as module
from backfill.kit.poll import SharedPoll, shared_poll
from tests.kit.clock import Clock, clock

__all__ = ["clock"]


class Source:
    """Counts its loads; answers with their number, or with an error."""

    def __init__(self) -> None:
        self.loads = 0
        self.error: BaseException | None = None

    async def load(self) -> int:
        """Return the number of the load."""
        self.loads += 1
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return self.loads


@pytest.mark.parametrize("waiters", [1, 10, 1_000])
async def test_any_number_of_waiters_costs_one_load(clock: Clock, waiters: int) -> None:
    poll, source = SharedPoll(), Source()
    found = await asyncio.gather(*(poll.get("mutations", source.load, max_age=15) for _ in range(waiters)))
    assert found == [1] * waiters
    clock.now += 15
    assert await poll.get("mutations", source.load, max_age=15) == 1
    clock.now += 0.1
    again = await asyncio.gather(*(poll.get("mutations", source.load, max_age=15) for _ in range(waiters)))
    assert again == [2] * waiters


async def test_keys_are_apart_and_do_not_wait_for_each_other(clock: Clock) -> None:
    poll, source, gate = SharedPoll(), Source(), asyncio.Event()

    async def slow() -> str:
        await gate.wait()
        return "slow"

    first = asyncio.create_task(poll.get("slow", slow, max_age=15))
    assert await poll.get("fast", source.load, max_age=15) == 1
    assert not first.done()
    gate.set()
    assert await first == "slow"


async def test_a_failed_load_is_everybodys_answer_for_a_second(clock: Clock) -> None:
    poll, source = SharedPoll(), Source()
    assert await poll.get("k", source.load, max_age=15) == 1
    clock.now += 20
    source.error = ConnectionError("reset")
    answers = await asyncio.gather(*(poll.get("k", source.load, max_age=15) for _ in range(50)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {ConnectionError}
    assert source.loads == 2
    clock.now += module.FAILURE_SECONDS - 0.1
    with pytest.raises(ConnectionError):
        await poll.get("k", source.load, max_age=15)
    assert source.loads == 2
    # Never the old snapshot, and no longer than the second.
    clock.now += 0.2
    source.error = None
    assert await poll.get("k", source.load, max_age=15) == 3


async def test_a_failure_is_not_kept_longer_than_a_snapshot_would_be(clock: Clock) -> None:
    poll, source = SharedPoll(), Source()
    source.error = ConnectionError("reset")
    with pytest.raises(ConnectionError):
        await poll.get("k", source.load, max_age=0.1)
    clock.now += 0.2
    source.error = None
    assert await poll.get("k", source.load, max_age=0.1) == 2


async def test_a_cancelled_load_is_nobody_elses_failure(clock: Clock) -> None:
    poll, source, gate = SharedPoll(), Source(), asyncio.Event()

    async def held() -> int:
        await gate.wait()
        return 0

    first = asyncio.create_task(poll.get("k", held, max_age=15))
    await asyncio.sleep(0)
    second = asyncio.create_task(poll.get("k", source.load, max_age=15))
    first.cancel()
    assert await second == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_dropped_snapshot_is_loaded_anew(clock: Clock) -> None:
    poll, source = SharedPoll(), Source()
    poll.drop("k")
    assert await poll.get("k", source.load, max_age=600) == 1
    poll.drop("k")
    assert await poll.get("k", source.load, max_age=600) == 2


async def test_what_nobody_asks_for_is_forgotten(clock: Clock) -> None:
    poll = SharedPoll()

    def loader(name: str) -> Callable[[], Awaitable[str]]:
        async def load() -> str:
            return name

        return load

    for run in range(100):
        await poll.get(("states", run), loader(f"run {run}"), max_age=1)
    clock.now += 2 * SharedPoll._FORGET_AFTER
    await poll.get("last", loader("last"), max_age=1)
    assert list(poll._entries) == ["last"]


async def test_each_loop_has_its_own() -> None:
    assert shared_poll() is shared_poll()

    async def other() -> SharedPoll:
        return shared_poll()

    assert await asyncio.to_thread(lambda: asyncio.run(other())) is not shared_poll()

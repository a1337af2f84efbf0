"""Trying again inside one try of a task: a bounded number of times, with the last answer when none was good."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_attempt
from tenacity.wait import wait_base

T = TypeVar("T")


def until_good(
    ask: Callable[[], T],
    *,
    good: Callable[[T], bool],
    tries: int,
    pause: wait_base,
    say: Callable[[T, float], None] = lambda answer, seconds: None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return the first good answer, or the last one of ``tries``; what ``ask`` raises goes on.

    ``say`` is called with an answer that is not good and the pause that follows it, in seconds.
    """

    def tell(state: RetryCallState) -> None:
        if state.outcome is not None and state.next_action is not None:
            say(state.outcome.result(), state.next_action.sleep)

    retrying = Retrying(
        stop=stop_after_attempt(tries),
        wait=pause,
        retry=retry_if_result(lambda answer: not good(answer)),
        retry_error_callback=_last,
        before_sleep=tell,
        sleep=sleep,
    )
    return retrying(ask)


def _last(state: RetryCallState) -> object:
    if state.outcome is None:
        raise AssertionError("it was never tried")
    return state.outcome.result()

"""Trying again: how often, with which pauses, and what is left when no answer was good."""

from __future__ import annotations

import pytest
from tenacity import wait_exponential, wait_fixed

from backfill.kit.retries import until_good


def test_the_first_good_answer_is_taken() -> None:
    answers = iter([0, 0, 7, 8])
    slept: list[float] = []
    said: list[tuple[int, float]] = []
    found = until_good(
        lambda: next(answers),
        good=bool,
        tries=5,
        pause=wait_exponential(multiplier=5),
        say=lambda answer, seconds: said.append((answer, seconds)),
        sleep=slept.append,
    )
    assert found == 7
    assert slept == [5, 10]
    assert said == [(0, 5), (0, 10)]
    assert next(answers) == 8


def test_the_last_answer_is_handed_over_when_none_is_good_and_nothing_is_slept_after_it() -> None:
    answers = iter(["a", "b", "c"])
    slept: list[float] = []
    assert until_good(lambda: next(answers), good=str.isdigit, tries=3, pause=wait_fixed(1), sleep=slept.append) == "c"
    assert slept == [1, 1]


def test_what_is_raised_is_not_tried_again() -> None:
    calls: list[int] = []

    def broken() -> bool:
        calls.append(1)
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        until_good(broken, good=bool, tries=3, pause=wait_fixed(1), sleep=lambda _: None)
    assert calls == [1]

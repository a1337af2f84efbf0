"""A number with its noun, as a person would say it."""

from __future__ import annotations


def number_of(count: int, noun: str) -> str:
    """Return the number and the noun, in the plural unless it is one.

    >>> number_of(1, "window"), number_of(2, "window")
    ('1 window', '2 windows')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

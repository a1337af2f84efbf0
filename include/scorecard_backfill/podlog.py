"""A container's log as lines of plain text, whatever its program has printed."""

from __future__ import annotations

import re

_COLOURS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
"""Escape sequences of a terminal: colours, cursor movements, titles."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that no line of a log needs; PostgreSQL stores no NUL."""


def lines_of(raw: bytes, limit: int) -> list[str]:
    r"""Return the lines of a log, its last one left out when the server has cut it at ``limit`` bytes.

    What is not UTF-8 is replaced, and escape sequences are left out, so that a coloured id is the id.

    >>> lines_of(b"\x1b[36mid=w-1\x1b[0m, \xff\n", 100)
    ['id=w-1, \ufffd']
    """
    found = [_CONTROL.sub(" ", _COLOURS.sub("", line)).rstrip() for line in raw.decode("utf-8", "replace").split("\n")]
    if found and not found[-1]:
        found.pop()
    return found[:-1] if len(raw) >= limit and not raw.endswith(b"\n") else found

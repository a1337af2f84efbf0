"""How the command ends when it cannot answer yes."""

from __future__ import annotations

OK = 0
NO = 1
"""The answer is no, or something has failed."""
USAGE = 2
UNREACHABLE = 3
"""The server cannot be reached, or does not allow it."""


class CommandError(Exception):
    """Ends the command: ``text`` says what, which value, where and what to do; ``code`` is the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


def usage(text: str) -> CommandError:
    """Return the error of input that cannot be used."""
    return CommandError(text, USAGE)


def refused(text: str) -> CommandError:
    """Return the error of a question that is answered with no."""
    return CommandError(text, NO)


def unreachable(text: str) -> CommandError:
    """Return the error of a server that does not answer or does not let this person in."""
    return CommandError(text, UNREACHABLE)

"""Where the command's answers go: lines for people, or one JSON document; a question to a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from backfill.cli.errors import CommandError, refused, usage
from backfill.cli.text import clean


@dataclass(frozen=True, slots=True)
class Output:
    """Standard output and error. ``ask`` puts a question, None: nobody can answer."""

    as_json: bool
    out: TextIO
    err: TextIO
    ask: Callable[[str], str] | None

    def show(self, lines: Sequence[str], document: Mapping[str, Any] | str) -> None:
        """Print lines to a person, or the document (JSON text is taken as it is) to a program."""
        if not self.as_json:
            print("\n".join(clean(line) for line in lines), file=self.out)
        elif isinstance(document, str):
            print(document.rstrip("\n"), file=self.out)
        else:
            print(json.dumps(document, default=str), file=self.out)

    def file(self, text: str) -> None:
        """Print a file of the page; what a terminal would take for a command is made harmless on a terminal only."""
        print((clean(text) if self.out.isatty() else text).rstrip("\n"), file=self.out)

    def tell(self, text: str) -> None:
        """Say something besides the answer."""
        print(clean(text), file=self.err)

    def fail(self, error: CommandError) -> None:
        """Say why the command ends."""
        if self.as_json:
            print(json.dumps({"error": error.text, "exit_code": error.code}), file=self.err)
        else:
            self.tell(error.text)

    def confirm(self, what: Sequence[str], *, yes: bool) -> None:
        """Show what will be done and ask once. Raises CommandError unless it is confirmed."""
        for line in what:
            self.tell(line)
        if yes:
            return
        if self.ask is None:
            raise usage("Nothing was done: nobody can be asked here; add --yes when this is meant.")
        # The question goes where the explanation went, so that standard output is the answer alone.
        self.err.write("Do this? Write yes: ")
        self.err.flush()
        if self.ask("").strip().lower() != "yes":
            raise refused("Nothing was done.")


def standard(*, as_json: bool) -> Output:
    """Return the process's own standard output and error."""
    return Output(as_json, sys.stdout, sys.stderr, input if sys.stdin.isatty() else None)

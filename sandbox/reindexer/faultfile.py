"""Reads a faults file afresh for each decision and keeps a log of the rules that hit, next to it.

The log `<file>.used.jsonl` has one line `{"rule": id, "run": run}` per hit and survives a restart.
"""

from __future__ import annotations

import json
from pathlib import Path

from sandbox.reindexer.faults import FaultSet, parse_faults, used_by_others


class FaultFile:
    """A faults file that may be missing (no faults). Decisions of one process must not run at once."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self) -> FaultSet:
        """Current content; FaultFileError for a bad file."""
        if self._path is None or not self._path.is_file():
            return FaultSet()
        return parse_faults(self._path.read_text())

    def used(self, run: str) -> dict[str, int]:
        """How many runs other than `run` each rule has hit."""
        log = self._log
        if log is None or not log.is_file():
            return {}
        return used_by_others([json.loads(line) for line in log.read_text().splitlines()], run)

    def record(self, rules: list[str], run: str) -> None:
        """Note that these rules hit the run."""
        log = self._log
        if log is None or not rules:
            return
        with log.open("a") as file:
            file.write("".join(json.dumps({"rule": rule, "run": run}) + "\n" for rule in rules))

    @property
    def _log(self) -> Path | None:
        return self._path and self._path.with_name(self._path.name + ".used.jsonl")

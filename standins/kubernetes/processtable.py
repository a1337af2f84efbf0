"""Which process groups belong to containers: kept in a file, so that others can end them (standard library only)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
BOOT_ID = PROC / "sys" / "kernel" / "random" / "boot_id"


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on (see proc(5)); empty if the process is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def start_ticks(pid: int) -> int | None:
    """The start time of a process in clock ticks since boot, which tells reused ids apart; None if it is gone."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def group_members(group: int) -> Iterator[int]:
    """The processes of a group that also leads its session, as each container's does."""
    for entry in PROC.iterdir():
        if entry.name.isdigit() and _stat(int(entry.name))[2:4] == [str(group), str(group)]:
            yield int(entry.name)


def is_same_group(group: int, ticks: int) -> bool:
    """Whether the group that was led by a process started at ``ticks`` still has a process.

    Its leader may have ended before its children; no id of a living group is given to a new process.
    """
    leader = start_ticks(group)
    if leader is not None:
        return leader == ticks
    return any((start_ticks(pid) or -1) >= ticks for pid in group_members(group))


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process group; a group that is gone is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


class ProcessTable:
    """The running process groups by pod uid and container, with a copy in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner = f"{os.getpid()}-{start_ticks(os.getpid())}"
        self._running: dict[str, int] = {}

    def claim(self) -> None:
        """Write the file anew as this process's own, without any group."""
        self._running.clear()
        self._save()

    def add(self, key: str, pid: int) -> None:
        """Note a new process group."""
        self._running[key] = pid
        self._save()

    def drop(self, key: str) -> None:
        """Forget a group that has ended."""
        self._running.pop(key, None)
        self._save()

    def listing(self) -> dict[str, int]:
        """Process ids by ``<pod uid>/<container>``."""
        return dict(self._running)

    def _save(self) -> None:
        rows = {key: [pid, start_ticks(pid)] for key, pid in self._running.items()}
        draft = self.path.with_name(self.path.name + ".new")
        saved = {"boot": BOOT_ID.read_text().strip(), "owner": self.owner, "groups": rows}
        draft.write_text(json.dumps(saved), encoding="utf-8")
        draft.replace(self.path)

    def end_leftovers(self, owner: str | None = None) -> int:
        """Kill the groups that the file names and that still have a process; returns how many.

        ``owner``: only if the file is of this owner (a later server may have claimed it).
        """
        if not self.path.exists():
            return 0
        saved = json.loads(self.path.read_text(encoding="utf-8"))
        if saved["boot"] != BOOT_ID.read_text().strip() or owner not in (None, saved["owner"]):
            return 0
        alive = [pid for pid, ticks in saved["groups"].values() if ticks is not None and is_same_group(pid, ticks)]
        for pid in alive:
            signal_group(pid, signal.SIGKILL)
        return len(alive)

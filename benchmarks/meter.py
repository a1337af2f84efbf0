"""CPU and memory of the parts of a running stack, from the kernel's own books (psutil over whole process trees)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

from sandbox.stack_model import Stack
from sandbox.stack_supervisor import PartControl

AIRFLOW = ("scheduler", "triggerer", "dag-processor", "api-server")
"""Parts of Airflow; the scheduler's includes its workers, which are its children under the LocalExecutor."""

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one part: CPU seconds since its start, its ended children included, and memory in MB.

    Memory is PSS: pages that processes of a tree share are counted once.
    """

    cpu_seconds: float
    memory_mb: float


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and its live descendants; empty when it is gone."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def usage(pids: Iterable[int]) -> Usage:
    """Return what process trees have used. What ended has left its CPU time to the parent that waited for it."""
    cpu = memory = 0.0
    for pid in pids:
        for process in tree(pid):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                times = process.cpu_times()
                cpu += times.user + times.system + times.children_user + times.children_system
                memory += process.memory_full_info().pss / MEGABYTE
    return Usage(cpu, memory)


def parts_usage(stack: Stack, names: Iterable[str] = AIRFLOW) -> dict[str, Usage]:
    """Return the usage of parts of a stack by name."""
    control = PartControl(stack.control)
    return {name: usage(control.pids(name)) for name in names}


def cpu_between(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """Return CPU seconds of each part between two looks, rounded to hundredths."""
    return {name: round(after[name].cpu_seconds - before[name].cpu_seconds, 2) for name in before}

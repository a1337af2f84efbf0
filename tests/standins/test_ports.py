"""Ports are one process's alone, before anything listens on them."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

import pytest

from standins import ports
from standins.ports import CANDIDATES, free_port, free_ports
from tests.standins.temporal_fixtures import python_environment

HOLD = "import sys; from standins.ports import free_ports; print(*free_ports({count}), flush=True); sys.stdin.read()"


@contextmanager
def _holder(command: list[str]) -> Iterator[IO[str]]:
    """What a process prints that keeps its ports until the end of the block."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=python_environment()) as process:
        assert process.stdout is not None
        yield process.stdout
        process.communicate()


def test_processes_that_ask_for_most_of_them_never_get_the_same_one() -> None:
    """With three times a fifth of all, started at random places, chance alone would give hundreds twice."""
    command = [sys.executable, "-c", HOLD.format(count=len(CANDIDATES) // 5)]
    with ExitStack() as running:
        holders = [running.enter_context(_holder(command)) for _ in range(3)]
        given = [int(port) for holder in holders for port in holder.readline().split()]
    assert len(given) == len(set(given)) == 3 * (len(CANDIDATES) // 5)


def test_no_port_is_one_that_the_kernel_gives_to_others() -> None:
    with socket.socket() as outgoing:
        outgoing.bind(("127.0.0.1", 0))
        assert outgoing.getsockname()[1] not in CANDIDATES
    assert free_port() in CANDIDATES


def test_one_process_gets_each_only_once_and_not_what_is_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port()
    with socket.create_server(("127.0.0.1", free_port())) as listening:
        taken = listening.getsockname()[1]
        monkeypatch.setattr(ports, "CANDIDATES", sorted({first, taken, *free_ports(2)}))
        monkeypatch.setattr(ports, "_given", {first})
        assert not {first, taken} & set(free_ports(2))
        with pytest.raises(OSError, match="1 ports wanted, 0 left") as refused:
            free_ports(1)
    assert refused.value.errno == errno.EADDRNOTAVAIL


def test_a_port_can_be_bound_by_its_server_and_again_after_it() -> None:
    port = free_port()
    for _ in range(2):
        with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
            pass

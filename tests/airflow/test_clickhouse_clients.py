"""Which client a piece of work gets: one that has answered lately, never one that another has or that failed."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest

from backfill.hooks.clickhouse_clients import KEPT_SECONDS, MOST_IDLE, Clients


class Client:
    """Only knows whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        """Close it, once."""
        assert not self.is_closed
        self.is_closed = True


class Time:
    """Moved by the test. Seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    """A clock that stands still."""
    return Time()


@pytest.fixture
def clients(time: Time) -> Clients:
    """No idle ones."""
    return Clients(time)


def used(clients: Clients, key: str = "east") -> Client:
    """Do a piece of work that ends well; return the client it was done with."""
    with clients.taken(key, Client) as client:  # type: ignore[arg-type]
        return client  # type: ignore[return-value]


def test_the_next_piece_of_work_has_the_same_client(clients: Clients) -> None:
    first = used(clients)
    assert used(clients) is first
    assert not first.is_closed


def test_what_is_made_of_something_else_is_another_client(clients: Clients) -> None:
    east = used(clients, "east")
    assert used(clients, "west") is not east
    assert used(clients, "east") is east


def test_two_at_the_same_time_have_two(clients: Clients) -> None:
    with clients.taken("east", Client) as first, clients.taken("east", Client) as second:  # type: ignore[arg-type]
        assert first is not second


def test_a_client_whose_work_failed_is_closed_and_not_given_again(clients: Clients) -> None:
    failed = used(clients)
    with pytest.raises(ConnectionError), clients.taken("east", Client):  # type: ignore[arg-type]
        raise ConnectionError("reset")
    assert failed.is_closed
    assert used(clients) is not failed


def test_it_is_kept_for_as_long_as_what_it_knows_of_the_server_is_believed(clients: Clients, time: Time) -> None:
    old = used(clients)
    time.now = KEPT_SECONDS - 1
    assert used(clients) is old
    # From when it was made, not from its last use.
    time.now = KEPT_SECONDS
    assert used(clients) is not old
    assert old.is_closed


def test_only_so_many_are_kept_whoever_they_are_of(clients: Clients) -> None:
    with ExitStack() as many:
        taken = [many.enter_context(clients.taken(key, Client)) for key in "ab" * MOST_IDLE]  # type: ignore[arg-type]
    assert sum(client.is_closed for client in taken) == MOST_IDLE  # type: ignore[attr-defined]


def test_a_forked_process_does_not_use_its_parents_connections(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = used(clients)
    parent = os.getppid()
    monkeypatch.setattr("os.getpid", lambda: parent)
    assert used(clients) is not parents
    assert not parents.is_closed


def test_the_idle_ones_are_closed_at_the_end(clients: Clients) -> None:
    kept = used(clients)
    clients.close()
    assert kept.is_closed

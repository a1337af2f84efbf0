"""Where debts are kept: the state store of the cluster's asset, which outlives every run and its clearing.

One key for each debt, written by the one window that owes it, and an index, written by `plan`, replans and `report`
of the only run of a cluster (max_active_runs 1): the index holds every key *before* a debt is written under it,
so that a debt is never there unseen. A key of the index without a debt is a window that has deleted nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.execution_time.context import AssetStateStoreAccessor

from include.scorecard_backfill.debts import Debt, Handover
from include.scorecard_backfill.records import RecordError
from include.scorecard_backfill.spoiled import OpenDebts, Spoiled, read_debt

INDEX = "debts"
PREFIX = "debt:"
"""Keys are ``debt:<window key>``."""

WRITTEN_OFF = "written-off:"
"""Keys are ``written-off:<window key>``: what a person has written off, with name, reason and the debt as it was."""

PAID = "paid"
"""Value of a debt that was paid. A trigger pays by writing it: a delete that is lost would leave the debt open."""


def cluster_asset(cluster: str) -> Asset:
    """Return the asset of a cluster: verified customers and months are its events, debts its state."""
    return Asset(name=f"scorecards of {cluster}", uri=f"scorecard-backfill://{cluster}/scorecards")


def verified_alias(cluster: str) -> AssetAlias:
    """Return the alias under which verified customers and months become events of the cluster's asset.

    An outlet that is an asset gives one event for each task that succeeds; an alias gives as many as were added.
    """
    return AssetAlias(name=f"verified scorecards of {cluster}")


def asset_state(cluster: str) -> Any:
    """Return the state store of a cluster's asset."""
    return AssetStateStoreAccessor(name=cluster_asset(cluster).name)


def index_of(cluster: str, found: object) -> list[str]:
    """Return the window keys of what is stored as a cluster's index. Raises DebtIndexError for anything but a list."""
    if not isinstance(found, list) or not all(isinstance(key, str) for key in found):
        raise DebtIndexError(cluster, found)
    return list(found)


def key_of(window: str) -> str:
    """Return the key of a window's debt."""
    return f"{PREFIX}{window}"


class DebtIndexError(RecordError):
    """The index of a cluster's debts cannot be read, so nobody knows what is owed."""

    def __init__(self, cluster: str, found: object) -> None:
        super().__init__(
            f"the index of the debts of {cluster} (key {INDEX!r} of the state of its asset) cannot be read: a list of"
            f" window keys is wanted, {str(found)[:80]!r} is there. Have it made anew from the debts that are stored:"
            f" `python -m backfill write-off {INDEX} --reason …` (docs/runbook.md); none of them is lost by it"
        )


class DebtBook:
    """The debts of one cluster. Blocking calls are for workers, those that begin with ``a`` for triggers."""

    def __init__(self, cluster: str, store: Any = None) -> None:
        self.cluster = cluster
        self._store: Any = store or asset_state(cluster)

    def indexed(self) -> list[str]:
        """Return the window keys under which a debt may be.

        Raises:
            DebtIndexError: what is stored as the index is none.
        """
        return index_of(self.cluster, self._store.get(INDEX, default=[]))

    def debt(self, window: str) -> Debt | Spoiled | None:
        """Return a window's open debt, None when it has none."""
        found = self._store.get(key_of(window))
        return read_debt(window, found) if found not in (None, PAID) else None

    def owes(self, window: str) -> bool:
        """Return True while a window owes what it has deleted; a debt that cannot be read is open.

        Of a window that has sent a DELETE and owes nothing, another plan has taken the days over, or they are settled:
        what is there now is not what this window's DELETE was meant for.
        """
        return self._store.get(key_of(window)) not in (None, PAID)

    async def aowes(self, window: str) -> bool:
        """Return the same as :meth:`owes`, in a trigger."""
        return await self._store.aget(key_of(window)) not in (None, PAID)

    def open(self) -> OpenDebts:
        """Return every open debt, oldest first, and those that cannot be read. Raises DebtIndexError."""
        found = [debt for window in self.indexed() if (debt := self.debt(window)) is not None]
        readable = sorted((d for d in found if isinstance(d, Debt)), key=lambda d: (d.since, d.label))
        return OpenDebts(tuple(readable), tuple(d for d in found if isinstance(d, Spoiled)))

    def announce(self, windows: Iterable[str]) -> None:
        """Put window keys into the index, before one of them may owe something."""
        known = self.indexed()
        fresh = [key for key in windows if key not in set(known)]
        if fresh:
            self._store.set(INDEX, [*known, *fresh])

    def write(self, debt: Debt) -> None:
        """Store a debt. Its window must be in the index already."""
        self._store.set(key_of(debt.window), debt.to_json())

    def hand_over(self, handover: Handover) -> None:
        """Store the debts of new windows, then drop those that they have taken over whole."""
        self.announce(debt.window for debt in handover.write)
        for debt in handover.write:
            self.write(debt)
        for window in handover.drop:
            self._store.set(key_of(window), PAID)

    def prune(self, windows: Iterable[str] = ()) -> OpenDebts:
        """Take keys without an open debt out of the index, and return the open debts, oldest first.

        One that cannot be read is open: it stays where it is.

        ``windows`` are looked for whether they are in the index or not: several windows of a run that were cleared
        after its report announce themselves at the same time, and of two writers of the index one may lose its key.
        """
        self.announce(windows)
        found = self.open()
        owing = found.owing
        for window in self.indexed():
            if window not in owing:
                self._store.delete(key_of(window))
        self._store.set(INDEX, owing)
        return found

    async def apay(self, window: str) -> None:
        """Mark a window's debt as paid, if it has one."""
        if await self.aowes(window):
            await self._store.aset(key_of(window), PAID)

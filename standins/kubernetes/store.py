"""The objects: in memory for reading, in one SQLite file for the next start."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import secrets
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from standins.kubernetes import errors
from standins.kubernetes.clock import rfc3339, utc_now
from standins.kubernetes.resources import Obj, ResourceType

Key = tuple[str, str]
"""Namespace (empty if cluster-wide), name."""

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # of k8s.io/apimachinery/pkg/util/rand


def random_suffix(length: int = 5) -> str:
    """The random end of a generated name."""
    return "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(length))


def key_of(obj: Obj) -> Key:
    """The key of an object that has its metadata filled in."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


class ObjectStore:
    """All objects of the cluster. ``version`` is the newest resourceVersion.

    Not thread-safe: for one event loop. Objects that are read must not be changed.
    """

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE IF NOT EXISTS objects (uid TEXT PRIMARY KEY, resource TEXT, body TEXT)")
        self._objects: dict[str, dict[Key, Obj]] = {}
        for resource, body in self._database.execute("SELECT resource, body FROM objects"):
            obj = json.loads(body)
            self._objects.setdefault(resource, {})[key_of(obj)] = obj
        self.changed = asyncio.Event()
        self._held_back = False
        self.version = 0
        self._next_version()

    def _next_version(self) -> int:
        """Microseconds since 1970, and no number twice: so versions rise over restarts, too."""
        self.version = max(self.version + 1, time.time_ns() // 1000)
        return self.version

    def find(self, resource: ResourceType, namespace: str | None, name: str) -> Obj | None:
        """The object, or None."""
        return self._objects.get(resource.qualified, {}).get((namespace or "", name))

    def get(self, resource: ResourceType, namespace: str | None, name: str) -> Obj:
        """The object. Raises StatusError 404 if it does not exist."""
        obj = self.find(resource, namespace, name)
        if obj is None:
            raise errors.not_found(resource, name)
        return obj

    def every(self, resource: ResourceType, namespace: str | None = None) -> list[Obj]:
        """All objects of a type, in one namespace or in all, ordered by namespace and name."""
        rows = sorted(self._objects.get(resource.qualified, {}).items())
        return [obj for key, obj in rows if namespace is None or key[0] == namespace]

    def prepare(self, resource: ResourceType, obj: Obj) -> Obj:
        """A copy of a new object with the metadata that the server fills in (also for a dry run)."""
        new = copy.deepcopy(obj)
        meta = new.setdefault("metadata", {})
        for field in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            meta.pop(field, None)
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": rfc3339(utc_now())}
        if "spec" in new:
            meta["generation"] = 1
        return new

    def add(self, resource: ResourceType, prepared: Obj, dry_run: bool = False) -> Obj:
        """Store a prepared object. Raises StatusError 409 if the name is taken."""
        if self.find(resource, *key_of(prepared)) is not None:
            raise errors.already_exists(resource, prepared["metadata"]["name"])
        return prepared if dry_run else self._write(resource, prepared)

    def change(self, resource: ResourceType, current: Obj, edit: Callable[[Obj], object]) -> Obj:
        """Apply ``edit`` to a copy of a stored object and store it if that made a difference.

        ``current`` names the object and may be an older version of it; the stored one is changed, and nothing if it
        is gone. A change of the spec counts the generation up.
        """
        stored = self.current(resource, current)
        if stored is None:
            return current
        new = copy.deepcopy(stored)
        edit(new)
        if new == stored:
            return stored
        if new.get("spec") != stored.get("spec") and "generation" in new["metadata"]:
            new["metadata"]["generation"] += 1
        return self._write(resource, new)

    def remove(self, resource: ResourceType, obj: Obj) -> None:
        """Drop an object at once; a second call does nothing."""
        if self.current(resource, obj) is not None:
            del self._objects[resource.qualified][key_of(obj)]
            self._next_version()
            self._save("DELETE FROM objects WHERE uid = ?", obj["metadata"]["uid"])

    def current(self, resource: ResourceType, obj: Obj) -> Obj | None:
        """The stored version of an object; None if it is gone, even if another one has its name."""
        stored = self.find(resource, *key_of(obj))
        return stored if stored and stored["metadata"]["uid"] == obj["metadata"]["uid"] else None

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Changes that a killed server must leave all or none of (to be used without awaiting inside)."""
        self._held_back = True
        try:
            yield
        finally:
            self._held_back = False
            self._database.commit()

    def _write(self, resource: ResourceType, obj: Obj) -> Obj:
        obj["metadata"]["resourceVersion"] = str(self._next_version())
        self._objects.setdefault(resource.qualified, {})[key_of(obj)] = obj
        row = (obj["metadata"]["uid"], resource.qualified, json.dumps(obj))
        self._save("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", *row)
        return obj

    def _save(self, statement: str, *values: str) -> None:
        self._database.execute(statement, values)
        if not self._held_back:
            self._database.commit()
        self.wake()

    def wake(self) -> None:
        """Let everybody who waits for a change look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

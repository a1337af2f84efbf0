"""The objects: in memory for reading, in one SQLite file for the next start."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import secrets
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from standins.kubernetes import errors
from standins.kubernetes.clock import rfc3339, utc_now
from standins.kubernetes.resources import JOBS, Obj, ResourceType

Key = tuple[str, str, str]
"""Qualified resource, namespace (empty if cluster-wide), name."""

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # of k8s.io/apimachinery/pkg/util/rand


def random_suffix(length: int = 5) -> str:
    """The random end of a generated name."""
    return "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(length))


def key_of(resource: ResourceType, obj: Obj) -> Key:
    """The key of an object that has its metadata filled in."""
    return resource.qualified, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


class ObjectStore:
    """All objects of the cluster.

    Not thread-safe: for one event loop. Objects that are read must not be changed.
    """

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS objects"
            " (resource TEXT, namespace TEXT, name TEXT, body TEXT NOT NULL, PRIMARY KEY (resource, namespace, name))"
        )
        self._database.execute("CREATE TABLE IF NOT EXISTS counter (version INTEGER NOT NULL)")
        self._objects: dict[str, dict[tuple[str, str], Obj]] = {}
        self._uids: set[str] = set()
        self.changed = asyncio.Event()
        self._held_back = False
        self._version = self._load()

    def _load(self) -> int:
        for resource, namespace, name, body in self._database.execute("SELECT * FROM objects"):
            obj = json.loads(body)
            self._objects.setdefault(resource, {})[(namespace, name)] = obj
            self._uids.add(obj["metadata"]["uid"])
        row = self._database.execute("SELECT max(version) FROM counter").fetchone()
        if row[0] is None:
            self._database.execute("INSERT INTO counter VALUES (1)")
            self._database.commit()
        return int(row[0] or 1)

    @property
    def version(self) -> int:
        """The newest resourceVersion of the whole store."""
        return self._version

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

    def exists(self, uid: str) -> bool:
        """Whether an object of any type has this uid."""
        return uid in self._uids

    def prepare(self, resource: ResourceType, obj: Obj) -> Obj:
        """A copy of a new object with the metadata that the server fills in (also for a dry run)."""
        new = copy.deepcopy(obj)
        meta = new.setdefault("metadata", {})
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"][:58] + random_suffix()  # 63 characters in all at most
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = rfc3339(utc_now())
        for field in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
            meta.pop(field, None)
        meta.pop("generation", None)
        if "spec" in new:
            meta["generation"] = 1
        return new

    def check_new(self, resource: ResourceType, obj: Obj) -> None:
        """Raises StatusError 409 if the name is taken."""
        _, namespace, name = key_of(resource, obj)
        if self.find(resource, namespace, name) is not None:
            raise errors.already_exists(resource, obj["metadata"]["name"])

    def add(self, resource: ResourceType, prepared: Obj) -> Obj:
        """Store a prepared object. Raises StatusError 409 if the name is taken."""
        self.check_new(resource, prepared)
        return self._write("ADDED", resource, prepared)

    def change(self, resource: ResourceType, current: Obj, edit: Callable[[Obj], None]) -> Obj:
        """Apply ``edit`` to a copy of a stored object and store it if that made a difference.

        ``current`` names the object and may be an older version of it; the stored one is changed, and nothing if it
        is gone. A change of the spec counts the generation up. A Job that is marked for deletion and has no
        finalizer is removed; a pod goes when its process has ended (Kubelet).
        """
        stored = self.find(resource, *key_of(resource, current)[1:])
        if stored is None or stored["metadata"]["uid"] != current["metadata"]["uid"]:
            return current
        current, new = stored, copy.deepcopy(stored)
        edit(new)
        if new == current:
            return current
        if new.get("spec") != current.get("spec") and "generation" in new["metadata"]:
            new["metadata"]["generation"] += 1
        stored = self._write("MODIFIED", resource, new)
        meta = stored["metadata"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers") and resource is JOBS:
            self.remove(resource, stored)
        return stored

    def remove(self, resource: ResourceType, obj: Obj) -> None:
        """Drop an object at once; a second call does nothing."""
        _, namespace, name = key_of(resource, obj)
        stored = self.find(resource, namespace, name)
        if stored is None or stored["metadata"]["uid"] != obj["metadata"]["uid"]:
            return
        self._write("DELETED", resource, copy.deepcopy(stored))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Changes that a killed server must leave all or none of (to be used without awaiting inside)."""
        self._held_back = True
        try:
            yield
        finally:
            self._held_back = False
            self._database.commit()

    def _write(self, kind: str, resource: ResourceType, obj: Obj) -> Obj:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        key = key_of(resource, obj)
        rows = self._objects.setdefault(key[0], {})
        if kind == "DELETED":
            del rows[key[1:]]
            self._uids.discard(obj["metadata"]["uid"])
            self._database.execute("DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", key)
        else:
            rows[key[1:]] = obj
            self._uids.add(obj["metadata"]["uid"])
            self._database.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", (*key, json.dumps(obj)))
        self._database.execute("UPDATE counter SET version = ?", (self._version,))
        if not self._held_back:
            self._database.commit()
        self.wake()
        return obj

    def wake(self) -> None:
        """Let everybody who waits for a change look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

"""Watch requests: the changes of one type as a stream of JSON lines."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

from standins.kubernetes.errors import bad_request, gone
from standins.kubernetes.resources import Obj, ResourceType
from standins.kubernetes.store import ObjectStore

DEFAULT_TIMEOUT_SECONDS = 1800.0  # --min-request-timeout of kube-apiserver


def start_version(store: ObjectStore, text: str) -> int | None:
    """The version after which changes are wanted; None means the present objects first.

    Raises StatusError 400 for a bad number and 410 for a version before the kept history.
    """
    if text in ("", "0"):
        return None
    if not text.isdigit():
        raise bad_request(f'invalid resource version "{text}"')
    if int(text) < store.oldest_watch:
        raise gone(int(text), store.oldest_watch)
    return int(text)


async def stream(
    store: ObjectStore,
    resource: ResourceType,
    wanted: Callable[[Obj], bool],
    after: int | None,
    timeout_seconds: float,
    stopping: asyncio.Event,
) -> AsyncIterator[bytes]:
    """The events as JSON lines until the time-out (seconds) or the server's stop; ``wanted`` selects the
    objects.
    """
    end = time.monotonic() + timeout_seconds
    if after is None:
        after = store.version
        for obj in store.every(resource):
            if wanted(obj):
                yield _line("ADDED", obj)
    while not stopping.is_set() and (left := end - time.monotonic()) > 0:
        changed = store.changed
        for change in [entry for entry in store.changes if entry.version > after]:
            after = change.version
            if change.resource is resource and wanted(change.obj):
                yield _line(change.kind, change.obj)
        waiters = {asyncio.ensure_future(changed.wait()), asyncio.ensure_future(stopping.wait())}
        await asyncio.wait(waiters, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiters:
            waiter.cancel()


def _line(kind: str, obj: Obj) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"

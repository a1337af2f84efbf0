"""The log subresource of a pod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from standins.kubernetes.clock import parse_time, utc_now
from standins.kubernetes.cluster import Cluster
from standins.kubernetes.errors import bad_request
from standins.kubernetes.podrun import log_path
from standins.kubernetes.resources import PODS, Obj

FOLLOW_SECONDS = 0.05


@dataclass(frozen=True)
class LogQuery:
    """The options of a log request; ``since`` is the oldest time (inclusive), limits are lines and bytes."""

    container: str | None
    follow: bool
    previous: bool
    timestamps: bool
    tail_lines: int | None
    limit_bytes: int | None
    since: datetime | None


def parse_query(query: Mapping[str, str]) -> LogQuery:
    """The options of a request's query. Raises StatusError 400 for a bad number or time."""
    try:
        since = parse_time(query["sinceTime"]) if "sinceTime" in query else None
        if "sinceSeconds" in query:
            since = utc_now() - timedelta(seconds=int(query["sinceSeconds"]))
        tail = int(query["tailLines"]) if "tailLines" in query else None
        limit = int(query["limitBytes"]) if "limitBytes" in query else None
    except ValueError as error:
        raise bad_request(f"invalid log options: {error}") from error
    if (tail is not None and tail < 0) or (limit is not None and limit < 1):
        raise bad_request("invalid log options: tailLines must be >= 0 and limitBytes must be > 0")
    follow, previous, timestamps = (
        query.get(name, "").lower() == "true" for name in ("follow", "previous", "timestamps")
    )
    return LogQuery(query.get("container") or None, follow, previous, timestamps, tail, limit, since)


def _status(pod: Obj, container: str) -> Obj:
    rows = [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]
    return next((row for row in rows if row["name"] == container), {"state": {"waiting": {}}, "restartCount": 0})


def choose_file(cluster: Cluster, pod: Obj, query: LogQuery) -> tuple[Path, str]:
    """The log file and the container's name. Raises StatusError 400 as the kubelet words it."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    inits = [container["name"] for container in pod["spec"].get("initContainers", [])]
    pod_name = pod["metadata"]["name"]
    if query.container is None and len(names) > 1:
        listed = f"choose one of: [{' '.join(names)}]"
        listed += f" or one of the init containers: [{' '.join(inits)}]" if inits else ""
        raise bad_request(f"a container name must be specified for pod {pod_name}, {listed}")
    name = query.container or names[0]
    if name not in [*names, *inits]:
        raise bad_request(f"container {name} is not valid for pod {pod_name}")
    status = _status(pod, name)
    restart = int(status["restartCount"])
    if query.previous or (restart and "waiting" in status["state"]):
        restart -= 1
        if restart < 0:
            raise bad_request(f'previous terminated container "{name}" in pod "{pod_name}" not found')
    elif "waiting" in status["state"]:
        reason = status["state"]["waiting"].get("reason", "ContainerCreating")
        text = "trying and failing to pull image" if "ImagePull" in reason else reason
        raise bad_request(f'container "{name}" in pod "{pod_name}" is waiting to start: {text}')
    return log_path(cluster.settings.logs, pod["metadata"]["uid"], name, restart), name


def read(path: Path) -> bytes:
    """The whole log; empty if the container wrote nothing."""
    return path.read_bytes() if path.exists() else b""


def _strip(line: bytes, query: LogQuery) -> bytes | None:
    stamp, _, text = line.partition(b" ")
    if query.since is not None and parse_time(stamp.decode()) < query.since:
        return None
    return line if query.timestamps else text


def select(data: bytes, query: LogQuery) -> bytes:
    """The part of a log that a request asks for (without following)."""
    kept = [text for line in data.splitlines(keepends=True) if (text := _strip(line, query)) is not None]
    if query.tail_lines is not None:
        kept = kept[len(kept) - query.tail_lines :] if query.tail_lines < len(kept) else kept
    joined = b"".join(kept)
    return joined if query.limit_bytes is None else joined[: query.limit_bytes]


async def follow(
    cluster: Cluster, pod: Obj, path: Path, container: str, query: LogQuery, stopping: asyncio.Event
) -> AsyncIterator[bytes]:
    """The selected part, then whole new lines until the container has ended or the server stops."""
    position, left = 0, query.limit_bytes
    first = True
    while True:
        current = cluster.store.find(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        same = current is not None and current["metadata"]["uid"] == pod["metadata"]["uid"]
        over = current is None or not same or "running" not in _status(current, container)["state"]
        data = read(path)[position:]
        if not over:
            data = data[: data.rfind(b"\n") + 1]
        position += len(data)
        chunk = (
            select(data, query)
            if first
            else b"".join(text for line in data.splitlines(keepends=True) if (text := _strip(line, query)) is not None)
        )
        first = False
        if left is not None:
            chunk, left = chunk[:left], left - len(chunk[:left])
        if chunk:
            yield chunk
        if over or stopping.is_set() or left == 0:
            return
        await asyncio.sleep(FOLLOW_SECONDS)

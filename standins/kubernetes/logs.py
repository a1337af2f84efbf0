"""The log subresource of a pod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from standins.kubernetes.cluster import Cluster
from standins.kubernetes.errors import bad_request
from standins.kubernetes.podrun import log_path
from standins.kubernetes.resources import PODS, Obj

FOLLOW_SECONDS = 0.05


@dataclass(frozen=True)
class LogQuery:
    """The options of a log request; limits are lines and bytes."""

    container: str | None
    follow: bool
    timestamps: bool
    tail_lines: int | None
    limit_bytes: int | None


def parse_query(query: Mapping[str, str]) -> LogQuery:
    """The options of a request's query. Raises StatusError 400 for a bad number, or an option that is not read."""
    if unread := {"previous", "sinceSeconds", "sinceTime"} & set(query):
        raise bad_request(f"the sandbox does not read the log option {sorted(unread)}")
    try:
        tail = int(query["tailLines"]) if "tailLines" in query else None
        limit = int(query["limitBytes"]) if "limitBytes" in query else None
    except ValueError as error:
        raise bad_request(f"invalid log options: {error}") from error
    if (tail is not None and tail < 0) or (limit is not None and limit < 1):
        raise bad_request("invalid log options: tailLines must be >= 0 and limitBytes must be > 0")
    follow, timestamps = (query.get(name, "").lower() == "true" for name in ("follow", "timestamps"))
    return LogQuery(query.get("container") or None, follow, timestamps, tail, limit)


def _state(pod: Obj, container: str) -> Obj:
    rows = pod["status"].get("containerStatuses", [])
    return next((row["state"] for row in rows if row["name"] == container), {"waiting": {}})


def choose_file(cluster: Cluster, pod: Obj, query: LogQuery) -> tuple[Path, str]:
    """The log file and the container's name. Raises StatusError 400 as the kubelet words it."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    pod_name = pod["metadata"]["name"]
    if query.container is None and len(names) > 1:
        listed = " ".join(names)
        raise bad_request(f"a container name must be specified for pod {pod_name}, choose one of: [{listed}]")
    name = query.container or names[0]
    if name not in names:
        raise bad_request(f"container {name} is not valid for pod {pod_name}")
    if (waiting := _state(pod, name).get("waiting")) is not None:
        reason = waiting.get("reason", "ContainerCreating")
        text = "trying and failing to pull image" if "ImagePull" in reason else reason
        raise bad_request(f'container "{name}" in pod "{pod_name}" is waiting to start: {text}')
    return log_path(cluster.settings.logs, pod["metadata"]["uid"], name), name


def read(path: Path) -> bytes:
    """The whole log; empty if the container wrote nothing."""
    return path.read_bytes() if path.exists() else b""


def _lines(data: bytes, query: LogQuery) -> list[bytes]:
    """The lines as the client wants them, with or without their times."""
    lines = data.splitlines(keepends=True)
    return lines if query.timestamps else [line.partition(b" ")[2] for line in lines]


def select(data: bytes, query: LogQuery) -> bytes:
    """The part of a log that a request asks for (without following)."""
    lines = _lines(data, query)
    kept = lines if query.tail_lines is None else lines[max(len(lines) - query.tail_lines, 0) :]
    return b"".join(kept)[: query.limit_bytes]


async def follow(
    cluster: Cluster, pod: Obj, path: Path, container: str, query: LogQuery, stopping: asyncio.Event
) -> AsyncIterator[bytes]:
    """The whole log, then whole new lines until the container has ended or the server stops; limits are not read."""
    position = 0
    while True:
        current = cluster.store.find(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        same = current is not None and current["metadata"]["uid"] == pod["metadata"]["uid"]
        over = current is None or not same or "running" not in _state(current, container)
        data = read(path)[position:]
        if not over:
            data = data[: data.rfind(b"\n") + 1]
        position += len(data)
        if chunk := b"".join(_lines(data, query)):
            yield chunk
        if over or stopping.is_set():
            return
        await asyncio.sleep(FOLLOW_SECONDS)

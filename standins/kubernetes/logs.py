"""The log subresource of a pod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from standins.kubernetes.cluster import Cluster
from standins.kubernetes.errors import bad_request
from standins.kubernetes.resources import PODS, Obj

FOLLOW_SECONDS = 0.05


class LogQuery(BaseModel, frozen=True, extra="forbid"):
    """The options of a log request that are read; limits are lines and bytes."""

    container: str = ""
    follow: bool = False
    timestamps: bool = False
    tail_lines: int | None = Field(None, alias="tailLines", ge=0)
    limit_bytes: int | None = Field(None, alias="limitBytes", ge=1)


def answer(cluster: Cluster, pod: Obj, options: Mapping[str, str], stopping: asyncio.Event) -> Response:
    """A container's log. Raises StatusError 400 for bad options, and for a container that has none."""
    try:
        query = LogQuery.model_validate(options)
    except ValidationError as error:
        raise bad_request(f"invalid log options: {error}") from error
    name = _container(pod, query)
    path = cluster.settings.log_path(pod["metadata"]["uid"], name)
    if query.follow:
        return StreamingResponse(_follow(cluster, pod, path, name, query, stopping), media_type="text/plain")
    lines = _lines(_read(path), query)
    kept = lines if query.tail_lines is None else lines[max(len(lines) - query.tail_lines, 0) :]
    return PlainTextResponse(b"".join(kept)[: query.limit_bytes])


def _container(pod: Obj, query: LogQuery) -> str:
    """The name of the container that is meant. Raises StatusError 400 as the kubelet words it."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    pod_name = pod["metadata"]["name"]
    if not query.container and len(names) > 1:
        listed = " ".join(names)
        raise bad_request(f"a container name must be specified for pod {pod_name}, choose one of: [{listed}]")
    name = query.container or names[0]
    if name not in names:
        raise bad_request(f"container {name} is not valid for pod {pod_name}")
    if (waiting := _state(pod, name).get("waiting")) is not None:
        reason = waiting.get("reason", "ContainerCreating")
        text = "trying and failing to pull image" if "ImagePull" in reason else reason
        raise bad_request(f'container "{name}" in pod "{pod_name}" is waiting to start: {text}')
    return name


def _state(pod: Obj, container: str) -> Obj:
    rows = pod["status"].get("containerStatuses", [])
    return next((row["state"] for row in rows if row["name"] == container), {"waiting": {}})


def _read(path: Path) -> bytes:
    """The whole log; empty if the container wrote nothing."""
    return path.read_bytes() if path.exists() else b""


def _lines(data: bytes, query: LogQuery) -> list[bytes]:
    """The lines as the client wants them, with or without their times."""
    lines = data.splitlines(keepends=True)
    return lines if query.timestamps else [line.partition(b" ")[2] for line in lines]


async def _follow(
    cluster: Cluster, pod: Obj, path: Path, container: str, query: LogQuery, stopping: asyncio.Event
) -> AsyncIterator[bytes]:
    """The whole log, then whole new lines until the container has ended or the server stops; limits are not read."""
    position = 0
    while True:
        current = cluster.store.current(PODS, pod)
        over = current is None or "running" not in _state(current, container)
        data = _read(path)[position:]
        if not over:
            data = data[: data.rfind(b"\n") + 1]
        position += len(data)
        if chunk := b"".join(_lines(data, query)):
            yield chunk
        if over or stopping.is_set():
            return
        await asyncio.sleep(FOLLOW_SECONDS)

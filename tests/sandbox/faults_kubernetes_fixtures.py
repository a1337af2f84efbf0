"""More of the scene in which Kubernetes' known faults are tried: pieces that several files of such tests use."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from standins.kubernetes.client import NAMESPACE
from tests.sandbox.test_faults_kubernetes import LIMIT_SECONDS, Scene
from tests.standins.kubernetes_fixtures import CONTEXT, wait_for

Json = dict[str, Any]

CONNECTION = "AIRFLOW_CONN_KUBERNETES_KUBE_FAULTS"
"""Environment variable with the connection of the scene's cluster."""


def connect(monkeypatch: pytest.MonkeyPatch, **extra: Any) -> None:
    """Replace the connection of the scene's cluster by one with just this extra."""
    monkeypatch.setenv(CONNECTION, json.dumps({"conn_type": "kubernetes", "extra": extra}))


def window_jobs(scene: Scene) -> list[Json]:
    """The stored Jobs of the scene's window."""
    return scene.kube.sandbox.jobs(f"scorecard-backfill/window={scene.window.key}")


def window_pods(scene: Scene) -> list[Json]:
    """The stored pods of the scene's window, whatever owns them."""
    selector = f"scorecard-backfill/window={scene.window.key}"
    found = scene.kube.core.list_namespaced_pod(NAMESPACE, label_selector=selector)
    return [scene.kube.plain(pod) for pod in found.items]


def wait_running(scene: Scene) -> Json:
    """The window's pod once its container runs."""

    def look() -> Json | None:
        return next((pod for pod in window_pods(scene) if pod["status"].get("phase") == "Running"), None)

    return wait_for(look, "a running pod of the window")


def two_contexts(scene: Scene, wrong_port: int) -> Json:
    """The stand-in's kubeconfig with a second cluster at a port of this machine, and no current context."""
    config: Json = yaml.safe_load(scene.kube.sandbox.kubeconfig.read_text(encoding="utf-8"))
    config.pop("current-context", None)
    named = next(item for item in config["contexts"] if item["name"] == CONTEXT)
    config["clusters"].insert(0, {"name": "wrong", "cluster": {"server": f"http://127.0.0.1:{wrong_port}"}})
    config["contexts"].insert(0, {"name": "wrong", "context": {**named["context"], "cluster": "wrong"}})
    return config


@contextmanager
def wrong_cluster() -> Iterator[socket.socket]:
    """A port at which no call may arrive; a caller that does so hangs until its time-out, and the block fails."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening
        with pytest.raises(BlockingIOError):
            listening.accept()


def cancelled(trigger: Any, *message: str) -> None:
    """Run a trigger until its second look, then cancel it as the triggerer does."""
    looks = itertools.count(1)
    look = trigger.look
    waits = asyncio.Event()

    async def counted() -> Any:
        if next(looks) == 2:
            waits.set()
        return await look()

    trigger.look = counted

    async def drive() -> None:
        async def consume() -> None:
            async for _ in trigger.run():
                raise AssertionError("the trigger fired")

        running = asyncio.ensure_future(consume())
        await asyncio.wait_for(waits.wait(), LIMIT_SECONDS)
        running.cancel(*message)
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(drive())


def event_within(trigger: Any, seconds: float) -> Any:
    """A trigger's only event. Raises TimeoutError when there is none within the seconds."""

    async def first() -> Any:
        async for event in trigger.run():
            return event
        raise AssertionError("the trigger ended without an event")

    return asyncio.run(asyncio.wait_for(first(), seconds))

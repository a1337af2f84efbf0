"""The port-forward inside the process: what the Kubernetes API saw, and what came back through it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
import pytest

from backfill.hooks.port_forward import PortForwardError, PortForwards, pod_port, read_target, ready_pods
from tests.airflow.kube_api_fixtures import KubeApi, kube_api, pod

TARGET = read_target("temporal/temporal-frontend-headless:7233", "kubernetes_demo", "demo_dev")


@pytest.fixture
async def api() -> AsyncIterator[KubeApi]:
    async with kube_api() as served:
        yield served


@pytest.fixture
def forwards() -> Iterator[PortForwards]:
    made = PortForwards()
    yield made
    made.close()


async def echo(name: bytes) -> asyncio.Server:
    """Serve: each connection is told the server's name, then gets back what it sends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name)
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


def address_of(server: asyncio.Server) -> tuple[str, int]:
    return "127.0.0.1", server.sockets[0].getsockname()[1]


async def talk(address: tuple[str, int], text: bytes, greeting: int) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(text)
    try:
        return await asyncio.wait_for(reader.readexactly(greeting + len(text)), 10)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_bytes_go_both_ways_through_the_pod_of_the_service(api: KubeApi, forwards: PortForwards) -> None:
    async with await echo(b"one:") as server:
        api.backends["frontend-0", 7233] = address_of(server)
        address = await forwards.address(TARGET, api.extra())
        big = bytes(range(256)) * 4_000
        assert await talk(address, big, 4) == b"one:" + big
    assert "GET /api/v1/namespaces/temporal/services/temporal-frontend-headless" in api.asked
    assert "GET /api/v1/namespaces/temporal/pods/frontend-0/portforward" in api.asked


async def test_one_listener_for_all_event_loops_of_a_process(api: KubeApi, forwards: PortForwards) -> None:
    mine = await forwards.address(TARGET, api.extra())
    theirs: list[Any] = []
    thread = threading.Thread(target=lambda: theirs.append(asyncio.run(forwards.address(TARGET, api.extra()))))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert theirs == [mine]


async def test_when_the_pod_is_gone_the_next_connection_goes_to_another(api: KubeApi, forwards: PortForwards) -> None:
    async with await echo(b"one:") as first, await echo(b"two:") as second:
        api.backends["frontend-0", 7233] = address_of(first)
        api.backends["frontend-1", 7233] = address_of(second)
        address = await forwards.address(TARGET, api.extra())
        assert await talk(address, b"x", 4) == b"one:x"
        api.pods = [pod("frontend-1")]
        assert await talk(address, b"y", 4) == b"two:y"
        assert await forwards.address(TARGET, api.extra()) == address


async def test_a_stream_that_breaks_closes_its_connection_only(api: KubeApi, forwards: PortForwards) -> None:
    async with await echo(b"one:") as server:
        api.backends["frontend-0", 7233] = address_of(server)
        address = await forwards.address(TARGET, api.extra())
        reader, writer = await asyncio.open_connection(*address)
        assert await asyncio.wait_for(reader.readexactly(4), 10) == b"one:"
        await api.sockets[0].close()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        assert await talk(address, b"again", 4) == b"one:again"


async def test_rotated_credentials_are_taken_for_the_next_connection(api: KubeApi, forwards: PortForwards) -> None:
    async with await echo(b"one:") as server:
        api.backends["frontend-0", 7233] = address_of(server)
        await forwards.address(TARGET, api.extra("old"))
        address = await forwards.address(TARGET, api.extra("new"))
        api.tokens.clear()
        await talk(address, b"x", 4)
    assert api.tokens == {"new"}


async def test_grpc_goes_through(api: KubeApi, forwards: PortForwards) -> None:
    async def upper(request: bytes, context: Any) -> bytes:
        return request.upper()

    handler = grpc.method_handlers_generic_handler("Demo", {"Upper": grpc.unary_unary_rpc_method_handler(upper)})
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    api.backends["frontend-0", 7233] = ("127.0.0.1", port)
    host, local = await forwards.address(TARGET, api.extra())
    async with grpc.aio.insecure_channel(f"{host}:{local}") as channel:
        answers = await asyncio.gather(*(channel.unary_unary("/Demo/Upper")(b"a" * n, timeout=10) for n in (1, 99_999)))
    assert answers == [b"A", b"A" * 99_999]
    await server.stop(0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda api: api.forbidden.add("services"), "403 Forbidden; it needs get services, list pods"),
        (lambda api: api.forbidden.add("pods"), "in namespace temporal"),
        (lambda api: api.pods.clear(), "no pod is ready (labels app=frontend)"),
        (lambda api: api.pods.__setitem__(0, pod("frontend-0", ready=False)), "no pod is ready"),
        (lambda api: setattr(api, "target_port", "grpc"), "has no port named 'grpc'"),
        (lambda api: setattr(api, "url", "http://127.0.0.1:1"), "the API server cannot be reached"),
    ],
    ids=["no right to services", "no right to pods", "no pod", "no ready pod", "no such port", "no API server"],
)
async def test_what_cannot_be_opened_is_said_at_once(
    change: Any, words: str, api: KubeApi, forwards: PortForwards
) -> None:
    change(api)
    with pytest.raises(PortForwardError) as caught:
        await forwards.address(TARGET, api.extra())
    assert words in str(caught.value)
    assert "temporal/temporal-frontend-headless:7233" in str(caught.value)
    assert "'kubernetes_demo'" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda api: api.forbidden.add("portforward"), "the stream is refused: 403"),
        (lambda api: api.backends.clear(), "nothing listens there"),
    ],
    ids=["no right to the stream", "nothing listens"],
)
async def test_what_a_stream_is_refused_for_is_kept(
    change: Any, words: str, api: KubeApi, forwards: PortForwards
) -> None:
    address = await forwards.address(TARGET, api.extra())
    change(api)
    reader, writer = await asyncio.open_connection(*address)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    assert words in forwards.last_error(TARGET)


@pytest.mark.parametrize("text", ["", "temporal", "temporal/x", "a/b:0", "a/b:70000", "/b:1", "A/b:1", "a/b:1 "])
def test_a_target_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="namespace/service:port"):
        read_target(text, "kubernetes_demo")


def test_ports_by_number_and_by_name() -> None:
    service = {"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 81, "targetPort": "rpc"}, {"port": 82}]}}
    assert [pod_port(service, pod("p"), port) for port in (80, 81, 82)] == [8080, 7233, 82]
    with pytest.raises(LookupError, match="no port 9, but 80, 81, 82"):
        pod_port(service, pod("p"), 9)


def test_a_pod_that_is_about_to_end_takes_no_new_connection() -> None:
    leaving = pod("leaving")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert ready_pods([leaving, pod("young", ready=False), pod("good")]) == [pod("good")]

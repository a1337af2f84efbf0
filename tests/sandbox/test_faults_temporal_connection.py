"""What stands between us and Temporal: outages, limits, refusals, TLS; what passes is waited for, the rest is said."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from backfill.hooks.temporal import TemporalHook, connection, workflows
from backfill.kit.poll import shared_poll
from backfill.settings import CLUSTERS_ENV
from backfill.triggers.workflows import WorkflowsTrigger
from include.scorecard_backfill.config import ClusterConfig
from standins.temporal.proxy import Faults, Proxy
from tests.kit.clock import Clock, clock
from tests.sandbox.faults_temporal_fixtures import (
    NAME,
    Scene,
    Server,
    cluster_file,
    connect_to,
    failure,
    first_event,
    impatient,
    in_triggerer,
    nothing,
    returned,
    scene,
    server,
)
from tests.standins.temporal_fixtures import python_environment, until

__all__ = ["clock", "scene", "server"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterConfig:
    """The cluster's file with its connection to the proxy, for tests without workflows."""
    server.set_rules()
    impatient(monkeypatch)
    return cluster_file(tmp_path, monkeypatch, server.proxy)


@pytest.mark.parametrize("kind", ["unavailable", "resource_exhausted", "deadline_exceeded", "internal"])
async def test_errors_that_pass_are_waited_for(scene: Scene, kind: str) -> None:
    one = await scene.start()
    trouble = {"kind": kind, "match": {"method": "ListWorkflowExecutions|DescribeWorkflowExecution"}}

    async def begin() -> None:
        scene.server.set_rules(trouble)

    async def end() -> None:
        scene.server.set_rules()

    result = returned(await scene.wait(one, steps=(begin, nothing, end, lambda: scene.ends(one))))
    assert result["status"] == "completed"


async def test_dropped_connections_are_waited_for_and_the_client_is_made_anew(scene: Scene) -> None:
    one = await scene.start()

    made: list[int] = []

    async def drop() -> None:
        made.append(len(scene.clients))
        scene.server.set_rules({"kind": "drop"})

        async def deaf() -> bool:
            with socket.socket() as probe:
                host, port = scene.server.proxy.split(":")
                return probe.connect_ex((host, int(port))) != 0

        await until(deaf, "the proxy does not listen")

    async def back() -> None:
        scene.server.set_rules()
        await scene.ends(one)

    assert returned(await scene.wait(one, steps=(drop, nothing, back)))["status"] == "completed"
    assert len(scene.clients) > made[0]


async def test_an_outage_that_lasts_too_long_is_a_failure(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    # The least that a file may say is ten minutes.
    monkeypatch.setattr(WorkflowsTrigger, "outage_seconds", 1.0)
    one = await scene.start()
    scene.server.set_rules({"kind": "unavailable", "match": {"method": "DescribeWorkflowExecution"}})
    began = time.monotonic()
    record = failure(await scene.wait(one))
    assert record["cause"] == "outage"
    assert "unreachable for" in record["reason"]
    assert time.monotonic() - began >= 1.0


async def test_a_call_that_is_never_answered_ends_and_is_made_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflows, "RPC_TIMEOUT", timedelta(seconds=0.5))
    one = await scene.start()
    scene.server.set_rules({"kind": "delay", "seconds": 60, "match": {"method": "DescribeWorkflowExecution"}})

    async def answer() -> None:
        scene.server.set_rules()
        await scene.ends(one)

    assert returned(await scene.wait(one, steps=(nothing, answer)))["status"] == "completed"


async def test_waiting_windows_share_their_list_query_also_while_it_fails(scene: Scene, clock: Clock) -> None:
    handles = await asyncio.gather(*(scene.start() for _ in range(20)))
    scene.server.set_rules({"kind": "resource_exhausted", "match": {"method": "ListWorkflowExecutions"}})
    triggers = [in_triggerer(scene.trigger(scene.reindexed(handle))) for handle in handles]
    since, loads = len(scene.server.calls()), 1
    waits = [asyncio.create_task(first_event(trigger)) for trigger in triggers]

    async def refused_again() -> bool:
        # Not when the server has the call: what the product notes later than that stands still with the clock.
        nonlocal loads
        if clock.now in [entry.failed_at for entry in shared_poll()._entries.values()]:
            clock.now += 1
            loads += 1
        return loads > 6

    await until(refused_again, "some refused list queries", 90)
    scene.server.set_rules()
    await asyncio.gather(*(scene.ends(handle) for handle in handles))
    # More than the age of any snapshot that is taken.
    clock.now += scene.config.temporal.poll_seconds
    loads += 1
    for event in await asyncio.gather(*waits):
        assert returned(event)["status"] == "completed"
    asked = scene.server.calls("ListWorkflowExecutions", since)
    assert len([call for call in asked if "ExecutionStatus" in call["subject"]]) <= 2 * loads
    # And each asks once for its own customer before its verdict.
    assert len([call for call in asked if "ExecutionStatus" not in call["subject"]]) <= 2 * len(handles)


async def test_a_socket_that_never_answers_ends_with_a_hint(
    cluster: ClusterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_SECONDS", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        connect_to(monkeypatch, f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ConnectionError, match="Check address and port"):
            await TemporalHook(cluster.temporal.conn_id).connect()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that only itself vouches for; file of the certificate, file of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "ca.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
    return files


@asynccontextmanager
async def tls_before(server: Server, files: tuple[Path, Path], clients: bytes | None = None) -> AsyncIterator[int]:
    """A port that speaks TLS and passes calls on to the server; with ``clients`` (CA) it asks for a certificate."""
    credentials = grpc.ssl_server_credentials(
        [(files[1].read_bytes(), files[0].read_bytes())],
        root_certificates=clients,
        require_client_auth=clients is not None,
    )
    async with grpc.aio.insecure_channel(server.address) as channel:
        listening = grpc.aio.server()
        listening.add_generic_rpc_handlers((Proxy(channel, Faults(server.faults), None),))
        port = listening.add_secure_port("127.0.0.1:0", credentials)
        await listening.start()
        try:
            yield port
        finally:
            await listening.stop(None)


async def test_tls_a_private_ca_and_an_api_key(
    server: Server, cluster: ClusterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = certificate(tmp_path)
    hook = TemporalHook(cluster.temporal.conn_id)
    async with tls_before(server, files) as port:
        connect_to(monkeypatch, f"127.0.0.1:{port}")
        with pytest.raises(ConnectionError, match=r"without TLS.*a TLS port needs extra\.tls"):
            await hook.connect()
        # A key alone means TLS, and the private CA is not known yet.
        connect_to(monkeypatch, f"127.0.0.1:{port}", password="key")
        with pytest.raises(ConnectionError, match=r"with TLS.*a private CA extra\.server_root_ca_cert"):
            await hook.connect()
        connect_to(monkeypatch, f"127.0.0.1:{port}", password="key", tls=False)
        with pytest.raises(ConnectionError, match="without TLS"):
            await hook.connect()
        connect_to(monkeypatch, f"localhost:{port}", password="key", server_root_ca_cert=files[0].read_text())
        client = await hook.connect(cluster.temporal.namespace)
        assert (await client.count_workflows("WorkflowId = 'nobody'")).count == 0


async def test_a_server_that_asks_for_a_certificate(
    server: Server, cluster: ClusterConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "client"
    folder.mkdir()
    files, mine = certificate(tmp_path), certificate(folder)
    hook = TemporalHook(cluster.temporal.conn_id)
    async with tls_before(server, files, mine[0].read_bytes()) as port:
        known = {"server_root_ca_cert": files[0].read_text(), "domain": "localhost"}
        connect_to(monkeypatch, f"127.0.0.1:{port}", **known)
        with pytest.raises(ConnectionError, match=r"extra\.client_cert and extra\.client_private_key"):
            await hook.connect()
        pair = {"client_cert": mine[0].read_text(), "client_private_key": mine[1].read_text()}
        connect_to(monkeypatch, f"127.0.0.1:{port}", **known, **pair)
        client = await hook.connect(cluster.temporal.namespace)
        assert (await client.count_workflows("WorkflowId = 'nobody'")).count == 0
        # As a form's one-line field keeps it.
        flat = {name: text.replace("\n", "\\n") for name, text in pair.items()}
        connect_to(monkeypatch, f"127.0.0.1:{port}", **known, **flat)
        await hook.connect(cluster.temporal.namespace)


FORKED = """
import asyncio, os, sys
import temporalio.runtime
import backfill.operators.wait_workflows  # what the plugin loads in the parent of the workers
from airflow.sdk import BaseHook
from backfill import settings
from backfill.hooks.temporal import TemporalHook, Workflows

assert temporalio.runtime._runtime_ref._default_runtime is None, "a runtime was made by importing"
config = settings.cluster_config(sys.argv[1])

async def open_ids(config):
    connection = BaseHook.get_connection(config.temporal.conn_id)
    client = await TemporalHook(config.temporal.conn_id, connection).connect(config.temporal.namespace)
    workflows = Workflows(client, config)
    return await workflows.list_ids(workflows.open_query())

for _ in range(2):
    child = os.fork()
    if child == 0:
        asyncio.run(open_ids(config))
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert temporalio.runtime._runtime_ref._default_runtime is None
print("forked twice")
"""


def test_no_client_is_made_before_workers_are_forked(cluster: ClusterConfig, tmp_path: Path) -> None:
    names = (f"AIRFLOW_CONN_{cluster.temporal.conn_id.upper()}", CLUSTERS_ENV)
    kept = {name: os.environ[name] for name in names}
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, NAME],
        env=python_environment(**kept) | paths, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "forked twice" in done.stdout, done.stderr[-2_000:]


async def test_a_client_belongs_to_its_loop() -> None:
    other = await asyncio.to_thread(lambda: asyncio.run(polled()))
    assert shared_poll() is not other
    assert shared_poll() is shared_poll()


async def polled() -> object:
    """The shared poll of another loop."""
    return shared_poll()

"""Reaching a cluster: the check names each broken set-up with its remedy; a port-forward, a password in a Secret.

Temporal and the product are real, ClickHouse and Kubernetes stand-ins; a small API serves streams and Secrets.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection
from temporalio.client import Client

from backfill import check as command
from backfill import settings
from backfill.hooks import secrets
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.hooks.port_forward import port_forwards
from backfill.hooks.temporal import TemporalHook
from backfill.operators.checks.table import check_cluster
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.verdicts.remedies import Line, markdown
from standins.clickhouse.client import ClickHouseSandbox, running
from standins.kubernetes.client import KubernetesSandbox
from tests.airflow.kube_api_fixtures import KubeApi, kube_api
from tests.standins.kubernetes_fixtures import CONTEXT, IMAGES
from tests.standins.temporal_fixtures import running_server

Json = dict[str, Any]
PASSWORD = "an-invented-password"
NAME = "reach"


class Cluster:
    """The three systems, and what a test changes about the way to them."""

    def __init__(self, clickhouse: ClickHouseSandbox, kubernetes: KubernetesSandbox, temporal: str) -> None:
        self.clickhouse, self.kubernetes, self.temporal = clickhouse, kubernetes, temporal
        node = clickhouse.topology.node("node-1-1")
        host, port = temporal.split(":")
        self.file: Json = {"name": NAME, "kubernetes": {"context": CONTEXT}, "temporal": {"namespace": "ingestion"}}
        self.connections: dict[str, Json | None] = {
            "clickhouse": {"conn_type": "clickhouse", "host": node.host, "port": node.port, "login": "admin",
                           "password": PASSWORD, "extra": {"secure": False}},
            "kubernetes": {"conn_type": "kubernetes", "extra": {"kube_config_path": str(kubernetes.kubeconfig)}},
            "temporal": {"conn_type": "temporal", "host": host, "port": int(port), "extra": {"namespace": "ingestion"}},
        }  # fmt: skip

    def set(self, kind: str, **fields: Any) -> None:
        """Change fields of a connection; those of `extra` are replaced as a whole."""
        connection = self.connections[kind]
        assert connection is not None
        connection.update(fields)

    def configure(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> ClusterConfig:
        """Write file and connections as they are now."""
        (folder / f"{NAME}.yaml").write_text(json.dumps(self.file))
        monkeypatch.setenv(settings.CLUSTERS_ENV, str(folder))
        settings._load.cache_clear()
        for kind, record in self.connections.items():
            name = f"AIRFLOW_CONN_{kind}_{NAME}".upper()
            if record is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, json.dumps(record))
        return settings.cluster_config(NAME)


def create_tables(clickhouse: ClickHouseSandbox) -> None:
    """Make a customer's tables; a cluster on which a user sees none is not right."""
    node = clickhouse.nodes()[0]
    node.query("CREATE DATABASE acme_voice ON CLUSTER conversations")
    for table in ("scorecard", "score"):
        more = "" if table == "scorecard" else "scorecard_id String, "
        node.query(
            f"CREATE TABLE acme_voice.{table} ON CLUSTER conversations ({table}_id String, {more}customer_id String,"
            " profile_id String, conversation_id String, scorecard_time DateTime64(3, 'UTC'))"
            f" ENGINE = ReplacingMergeTree ORDER BY (conversation_id, {table}_id)"
        )


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ClickHouseSandbox, KubernetesSandbox, str]]:
    folder = tmp_path_factory.mktemp("reaching")
    kubernetes = KubernetesSandbox(folder / "kubernetes", IMAGES, CONTEXT)
    with (
        running(ClickHouseSandbox(folder / "clickhouse", (1, 1), password=PASSWORD)) as clickhouse,
        running_server(folder) as temporal,
    ):
        create_tables(clickhouse)
        kubernetes.start()
        try:
            yield clickhouse, kubernetes, temporal
        finally:
            kubernetes.stop()


@pytest.fixture
def cluster(systems: Any) -> Iterator[Cluster]:
    made = Cluster(*systems)
    yield made
    made.clickhouse.clear()
    made.kubernetes.clear_faults()
    made.kubernetes.deny()


@pytest.fixture(autouse=True)
def _no_kept_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_cache", secrets.SecretCache())


@contextmanager
def api_in_a_thread() -> Iterator[KubeApi]:
    """Serve the small API beside what runs an event loop of its own."""
    ready: threading.Event = threading.Event()
    made: list[KubeApi] = []
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def serve() -> None:
        async with kube_api() as api:
            made.append(api)
            ready.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    try:
        yield made[0]
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(20)
        loop.close()


@contextmanager
def native_port() -> Iterator[int]:
    """A port that answers as ClickHouse's native one does to HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(400, explain="Port 9000 is for clickhouse-client program.")

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def broken(lines: list[Line]) -> dict[str, str]:
    """Remedies of what is broken, by system."""
    return {line.system: line.remedy for line in lines if line.state == "broken"}


def test_a_cluster_that_is_right_is_said_to_work(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    lines = check_cluster(cluster.configure(monkeypatch, tmp_path))
    assert broken(lines) == {}, markdown(lines)
    works = {line.system: line.text for line in lines if line.state == "works" and line.text.startswith("version ")}
    assert set(works) == {"clickhouse", "kubernetes", "temporal"}
    clocks = {line.system for line in lines if line.text.startswith("clock ") and line.state == "works"}
    assert clocks == {"clickhouse", "kubernetes"}
    assert cluster.kubernetes.mutations("jobs") == [] or all(
        "dryRun" in str(one) for one in cluster.kubernetes.mutations("jobs")
    )
    assert command.main([NAME]) == 0
    assert f"| works | {NAME} | temporal |" in capsys.readouterr().out
    assert command.main(["moon"]) == 2


Change = Callable[[Cluster], None]


def _file(section: str, **fields: Any) -> Change:
    return lambda c: c.file.setdefault(section, {}).update(fields)


def _connection(kind: str, **fields: Any) -> Change:
    return lambda c: c.set(kind, **fields)


def _without(kind: str) -> Change:
    return lambda c: c.connections.__setitem__(kind, None)


def _grants(text: str) -> Change:
    def change(cluster: Cluster) -> None:
        for node in cluster.clickhouse.nodes():
            node.add_faults({"kind": "grants", "text": text})

    return change


SETUPS: Mapping[str, tuple[Change, str, str]] = {
    "clickhouse: no connection": (_without("clickhouse"), "clickhouse", "Create the connection"),
    "clickhouse: wrong port": (_connection("clickhouse", port=closed_port()), "clickhouse", "Correct host, port"),
    "clickhouse: wrong password": (_connection("clickhouse", password="x"), "clickhouse", "Correct user and password"),
    "clickhouse: TLS where there is none": (
        _connection("clickhouse", extra={"secure": True, "verify": False}), "clickhouse", "Correct host, port and TLS"),
    "clickhouse: wrong cluster": (_file("clickhouse", cluster="nobody"), "clickhouse", "Correct clickhouse.cluster"),
    "clickhouse: missing grant": (
        _grants("GRANT SELECT ON *.* TO admin"), "clickhouse", "Grant the right"),
    "kubernetes: no connection": (_without("kubernetes"), "kubernetes", "Create the connection"),
    "kubernetes: no cluster in it": (_connection("kubernetes", extra={}), "kubernetes", "Put kube_config"),
    "kubernetes: wrong context": (_file("kubernetes", context="moon_dev"), "kubernetes", "Correct kubernetes.context"),
    "kubernetes: wrong namespace": (
        _file("kubernetes", namespace="moon"), "kubernetes", "Correct kubernetes.namespace"),
    "kubernetes: wrong CronJob": (_file("kubernetes", cronjob="moon"), "kubernetes", "Correct kubernetes.namespace"),
    "kubernetes: a container that is not there": (
        _file("kubernetes", container="moon"), "kubernetes", "Correct the CronJob's field"),
    "kubernetes: missing right": (
        lambda c: c.kubernetes.deny({"verbs": ["create"], "resources": ["jobs"]}), "kubernetes", "Bind the Role"),
    "temporal: no connection": (_without("temporal"), "temporal", "Create the connection"),
    "temporal: wrong port": (_connection("temporal", port=closed_port()), "temporal", "Correct host, port"),
    "temporal: TLS where there is none": (
        _connection("temporal", extra={"namespace": "ingestion", "tls": True}), "temporal",
        "Correct host, port and TLS"),
    "temporal: wrong namespace": (_file("temporal", namespace="moon"), "temporal", "Correct temporal.namespace"),
    "temporal: no codec": (
        _connection("temporal", extra={"codec_endpoint": f"http://127.0.0.1:{closed_port()}"}), "temporal",
        "Correct codec_endpoint"),
    "temporal: port-forward unreadable": (
        _connection("temporal", extra={"port_forward": "temporal"}), "temporal", "Correct port_forward"),
}  # fmt: skip


@pytest.mark.parametrize("name", SETUPS)
def test_a_broken_setup_is_named_with_its_remedy_and_the_others_work(
    name: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    change, system, remedy = SETUPS[name]
    change(cluster)
    lines = check_cluster(cluster.configure(monkeypatch, tmp_path))
    found = broken(lines)
    assert set(found) == {system}, markdown(lines)
    assert found[system].startswith(remedy), markdown(lines)
    assert PASSWORD not in markdown(lines)


def test_the_native_port_is_told_from_a_wrong_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with native_port() as port:
        cluster.set("clickhouse", port=port)
        lines = check_cluster(cluster.configure(monkeypatch, tmp_path))
    assert broken(lines)["clickhouse"].startswith("Set the connection's port to the HTTP(S) one")


def test_a_file_that_cannot_be_read_is_broken(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    cluster.configure(monkeypatch, tmp_path)
    (tmp_path / "moon.yaml").write_text("name: moon\nadmission: {max_parallel: many}\n")
    settings._load.cache_clear()
    assert command.main(["moon"]) == 1
    said = capsys.readouterr().out
    assert "| broken | moon | file | moon.yaml: admission.max_parallel" in said
    assert "| Correct the file. |" in said


def test_a_clock_that_differs_is_broken(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = cluster.configure(monkeypatch, tmp_path)
    late = lambda self: datetime.now(UTC) - timedelta(seconds=90)  # noqa: E731
    monkeypatch.setattr(BackfillClickHouse, "server_time", late)
    (line,) = [one for one in check_cluster(config) if one.state == "broken"]
    assert "clock 90.0 s behind" in line.text
    assert line.remedy.startswith("Set the clocks")


# Through the Kubernetes API


def test_temporal_is_reached_through_a_port_forward(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with api_in_a_thread() as api:
        host, port = cluster.temporal.split(":")
        api.backends["frontend-0", 7233] = (host, int(port))
        forward = {"port_forward": "temporal/temporal-frontend-headless:7233", "kubernetes_conn_id": "kubernetes_api"}
        cluster.connections["api"] = None
        cluster.set("temporal", host="", port=None, extra={"namespace": "ingestion", **forward})
        config = cluster.configure(monkeypatch, tmp_path)
        record = {"conn_type": "kubernetes", "extra": api.extra()}
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_API", json.dumps(record))
        lines = check_cluster(config)
        assert broken(lines) == {}, markdown(lines)
        streams = [one for one in api.asked if one.endswith("/pods/frontend-0/portforward")]
        assert streams
        # A pod that is gone: the client finds its way again by itself.
        client = asyncio.run(_counted(config))
        assert client >= 0
        api.forbidden.add("services")
        lines = check_cluster(config)
        assert broken(lines) == {"temporal": "Correct port_forward, or bind deploy/kubernetes/role-port-forward.yaml."}


async def _counted(config: ClusterConfig) -> int:
    client: Client = await TemporalHook(config.temporal.conn_id).connect(config.temporal.namespace)
    answer = await client.count_workflows("WorkflowType = 'nobody'", rpc_timeout=timedelta(seconds=20))
    return answer.count


def test_clickhouse_gets_its_password_from_the_secret_and_reads_it_again_when_it_is_refused(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with api_in_a_thread() as api:
        api.secrets["clickhouse", "clickhouse-cluster"] = {"admin_password": "old"}
        extra = {"secure": False, "password_secret": "clickhouse/clickhouse-cluster#admin_password",
                 "kubernetes_conn_id": "kubernetes_api", "kubernetes_context": "demo_dev"}  # fmt: skip
        cluster.set("clickhouse", password="", extra=extra)
        config = cluster.configure(monkeypatch, tmp_path)
        record = {"conn_type": "kubernetes", "extra": api.extra()}
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_API", json.dumps(record))
        hook = BackfillClickHouse(config)
        with pytest.raises(ConnectionError, match="it is read again"):
            hook.topology()
        api.secrets["clickhouse", "clickhouse-cluster"] = {"admin_password": PASSWORD}
        assert len(hook.topology()) == 2
        assert len(hook.topology()) == 2
        asked = [one for one in api.asked if "/secrets/" in one]
        assert len(asked) == 2
        api.forbidden.add("secrets")
        monkeypatch.setattr(secrets, "_cache", secrets.SecretCache())
        found = broken(check_cluster(config))
        assert found == {"clickhouse": "Correct password_secret, or bind deploy/kubernetes/role-secret.yaml."}


def test_the_form_of_a_forward_is_the_clusters_own_connection() -> None:
    from backfill.hooks.temporal.connection import forward_of

    made = Connection(conn_id="temporal_us_west_2_prod", conn_type="temporal")
    target = forward_of(made, {"port_forward": "temporal/temporal-frontend-headless:7233"})
    assert target is not None
    assert (target.conn_id, target.namespace, target.port) == ("kubernetes_us_west_2_prod", "temporal", 7233)
    with pytest.raises(ValueError, match="kubernetes_conn_id"):
        forward_of(Connection(conn_id="other", conn_type="temporal"), {"port_forward": "a/b:1"})
    assert forward_of(made, {}) is None
    assert port_forwards() is port_forwards()

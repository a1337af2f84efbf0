"""A port-forward and a password in a Secret on a real API server, with the documented Roles and with one verb less.

The stand-in has neither streams nor Roles; tests/airflow/test_port_forward.py has the rest over a small API.
"""

from __future__ import annotations

import asyncio
import contextlib
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client as sync_client

from backfill.hooks.port_forward import PortForwardError, PortForwards, Target
from backfill.hooks.secrets import Reference, SecretError, read_secret
from standins.kubernetes.client import PROJECT
from tests.sandbox.test_kubernetes_rights import Right, administrator, documented, in_force, written
from tests.standins.kubernetes_fixtures import CONTEXT, SLEEPER, Json, Kube, kube, server, wait_for

__all__ = ["kube", "server"]

ROLES = PROJECT / "deploy" / "kubernetes"
FORWARD, SECRET = ROLES / "role-port-forward.yaml", ROLES / "role-secret.yaml"


def extra(kube: Kube) -> Json:
    """Of a connection straight to the API server: the door in front of it passes no streams."""
    return {"kube_config_path": str(kube.sandbox.folder / "data" / "direct.yaml")}


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(b"frontend: " + line)


@pytest.fixture(scope="module")
def target(server: Kube) -> Iterator[Target]:
    """A Service of the documented name with one ready pod, behind which a port of this machine answers."""
    core = sync_client.CoreV1Api(administrator(server))
    namespace, service, labels = "temporal", "temporal-frontend-headless", {"app": "frontend"}
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as echo:
        echo.daemon_threads = True
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        port = echo.server_address[1]
        core.create_namespace({"metadata": {"name": namespace}})
        wait_for(lambda: _account(core, namespace), "the namespace's service account")
        core.create_namespaced_service(
            namespace,
            {
                "metadata": {"name": service},
                "spec": {
                    "selector": labels,
                    "clusterIP": "None",
                    "ports": [{"name": "rpc", "port": 7233, "targetPort": "rpc"}],
                },
            },
        )
        container = {"name": "c", "image": SLEEPER, "ports": [{"name": "rpc", "containerPort": port}]}
        spec = {"restartPolicy": "Never", "containers": [container]}
        core.create_namespaced_pod(namespace, {"metadata": {"name": "frontend-0", "labels": labels}, "spec": spec})

        def ready() -> bool:
            status: Any = core.read_namespaced_pod_status("frontend-0", namespace).status
            return any(one.type == "Ready" and one.status == "True" for one in status.conditions or [])

        wait_for(ready, "pod frontend-0 ready")
        yield Target("kubernetes_forward", CONTEXT, namespace, service, 7233)
        echo.shutdown()


def _account(core: Any, namespace: str) -> bool:
    return any(one.metadata.name == "default" for one in core.list_namespaced_service_account(namespace).items)


async def asked(forwards: PortForwards, target: Target, kube: Kube, text: str) -> str:
    """Send a line through a forward and return what comes back, '' when the stream is closed."""
    host, port = await forwards.address(target, extra(kube))
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"{text}\n".encode())
        await writer.drain()
        return (await asyncio.wait_for(reader.readline(), 30)).decode().strip()
    except ConnectionError:
        return ""
    finally:
        writer.close()


@pytest.fixture
def forwards() -> Iterator[PortForwards]:
    made = PortForwards()
    yield made
    made.close()


def test_a_service_is_reached_with_the_documented_role(target: Target, kube: Kube, forwards: PortForwards) -> None:
    def through() -> str:
        with contextlib.suppress(PortForwardError):
            return asyncio.run(asked(forwards, target, kube, "hello"))
        return ""

    with in_force(kube, path=FORWARD):
        # A Role counts as soon as the API server has seen it.
        assert wait_for(through, "an answer through the forward") == "frontend: hello"
        assert asyncio.run(asked(forwards, target, kube, "again")) == "frontend: again"


@pytest.mark.parametrize("right", sorted(documented(FORWARD)), ids=lambda right: f"{right[0]}-{right[2]}{right[3]}")
def test_a_forward_with_one_verb_less_says_what_it_needs(
    target: Target, kube: Kube, forwards: PortForwards, right: Right
) -> None:
    def refusal() -> str:
        try:
            answer = asyncio.run(asked(forwards, target, kube, "hello"))
        except PortForwardError as error:
            return str(error)
        return "" if answer else forwards.last_error(target)

    with in_force(kube, right, FORWARD):
        wanted = "the stream is refused: 403" if right[3] == "portforward" else "403 Forbidden"
        text = wait_for(lambda: found if wanted in (found := refusal()) else None, f"{wanted} without {right}")
        assert "it needs get services, list pods, get and create pods/portforward in namespace temporal" in text


def test_a_password_is_read_from_the_secret_with_the_documented_role_only(kube: Kube) -> None:
    core = sync_client.CoreV1Api(administrator(kube))
    role, _ = written(SECRET)
    namespace, name = role["metadata"]["namespace"], role["rules"][0]["resourceNames"][0]
    made = [one.metadata.name for one in core.list_namespace().items]
    if namespace not in made:
        core.create_namespace({"metadata": {"name": namespace}})
    core.create_namespaced_secret(namespace, {"metadata": {"name": name}, "stringData": {"admin_password": "invented"}})
    core.create_namespaced_secret(namespace, {"metadata": {"name": "another"}, "stringData": {"k": "v"}})
    reference = Reference("kubernetes_secret", CONTEXT, namespace, name, "admin_password")

    def read(one: Reference) -> str:
        try:
            return asyncio.run(read_secret(one, extra(kube)))
        except SecretError as error:
            return str(error)

    with in_force(kube, path=SECRET):
        wait_for(lambda: read(reference) == "invented", "the password")
        other = Reference("kubernetes_secret", CONTEXT, namespace, "another", "k")
        assert "403 Forbidden; grant *get* on this Secret" in read(other)
    wait_for(lambda: "403 Forbidden" in read(reference), "a refusal without the Role")

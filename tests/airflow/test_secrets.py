"""The ClickHouse password from a Kubernetes Secret: what was asked, what is kept, what is said."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from airflow.sdk import Connection
from airflow.sdk._shared.secrets_masker import redact

from backfill.hooks import secrets
from backfill.hooks.secrets import FRESH_SECONDS, SecretCache, SecretError, reference_of, resolved, resolved_now
from tests.airflow.kube_api_fixtures import KubeApi, kube_api

PASSWORD = "an-invented-password"
REFERENCE = "clickhouse/clickhouse-cluster#admin_password"
ASKED = "GET /api/v1/namespaces/clickhouse/secrets/clickhouse-cluster"


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeApi]:
    async with kube_api() as served:
        served.secrets["clickhouse", "clickhouse-cluster"] = {"admin_password": PASSWORD + "\n", "user": "admin"}
        record = {"conn_type": "kubernetes", "extra": served.extra()}
        monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEMO", json.dumps(record))
        monkeypatch.setattr(secrets, "_cache", SecretCache())
        yield served


def connection(secret: str | None = REFERENCE, password: str | None = None, **extra: Any) -> Connection:
    fields = {"secure": True, **({"password_secret": secret} if secret else {}), **extra}
    return Connection(
        conn_id="clickhouse_demo", conn_type="clickhouse", host="ch", port=8443, login="admin", password=password,
        extra=json.dumps(fields),
    )  # fmt: skip


async def test_the_password_is_read_and_the_connection_is_otherwise_the_same(api: KubeApi) -> None:
    made = await resolved(connection(), "kubernetes_demo", "demo_dev")
    assert (made.password, made.host, made.port, made.login) == (PASSWORD, "ch", 8443, "admin")
    assert made.extra_dejson == {"secure": True}
    assert api.asked == [ASKED]


def test_a_worker_reads_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(reference: Any, extra: Any) -> str:
        assert extra == {"kube_config": "x"}
        return PASSWORD

    monkeypatch.setattr(secrets, "read_secret", read)
    monkeypatch.setattr(secrets, "_cache", SecretCache())
    record = {"conn_type": "kubernetes", "extra": {"kube_config": "x"}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_DEMO", json.dumps(record))
    assert resolved_now(connection(), "kubernetes_demo", "demo_dev").password == PASSWORD


async def test_a_connection_with_a_password_asks_nobody(api: KubeApi) -> None:
    own = connection(secret=None, password="own")
    assert await resolved(own, "kubernetes_demo", "demo_dev") is own
    assert api.asked == []


async def test_it_is_read_once_in_five_minutes_and_again_when_it_was_refused(api: KubeApi) -> None:
    now = [0.0]
    cache = SecretCache(lambda: now[0])
    reference = reference_of(connection(), "kubernetes_demo", "demo_dev")
    assert reference is not None
    for _ in range(3):
        assert await cache.password(reference, api.extra()) == PASSWORD
    assert api.asked == [ASKED]
    api.secrets["clickhouse", "clickhouse-cluster"]["admin_password"] = "another"
    assert not cache.refused("one that was not read here")
    assert await cache.password(reference, api.extra()) == PASSWORD
    assert cache.refused(PASSWORD)
    assert await cache.password(reference, api.extra()) == "another"
    api.secrets["clickhouse", "clickhouse-cluster"]["admin_password"] = "third"
    now[0] = FRESH_SECONDS
    assert await cache.password(reference, api.extra()) == "third"
    assert api.asked == [ASKED] * 3


async def test_the_log_masks_it(api: KubeApi) -> None:
    await resolved(connection(), "kubernetes_demo", "demo_dev")
    shown = redact(f"refused: {PASSWORD}")
    assert "refused" in str(shown)
    assert PASSWORD not in str(shown)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda api: api.forbidden.add("secrets"), "403 Forbidden; grant *get* on this Secret"),
        (lambda api: api.secrets.clear(), "404 Not Found; correct namespace and name"),
        (lambda api: api.secrets["clickhouse", "clickhouse-cluster"].pop("admin_password"), "no such key, but user"),
    ],
    ids=["no right", "no Secret", "no key"],
)
async def test_what_is_wrong_is_said_with_its_remedy(change: Any, words: str, api: KubeApi) -> None:
    change(api)
    with pytest.raises(SecretError) as caught:
        await resolved(connection(), "kubernetes_demo", "demo_dev")
    assert words in str(caught.value)
    assert "clickhouse/clickhouse-cluster" in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("text", ["clickhouse-cluster", "a/b", "a/b#", "/b#c", "a/b/c#d"])
def test_a_reference_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(SecretError, match="namespace/secret#key"):
        reference_of(connection(secret=text), "kubernetes_demo", "")


def test_a_password_beside_the_secret_is_refused() -> None:
    with pytest.raises(SecretError, match="remove one of them"):
        reference_of(connection(password="own"), "kubernetes_demo", "")


def test_another_cluster_can_hold_the_secret() -> None:
    found = reference_of(connection(kubernetes_conn_id="kubernetes_vault", kubernetes_context="v"), "k", "c")
    assert found is not None
    assert (found.conn_id, found.context) == ("kubernetes_vault", "v")

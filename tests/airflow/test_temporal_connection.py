"""What a connection of the type temporal means: target, certificates, key, codec, port-forward; no server is asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk import Connection
from temporalio.client import TLSConfig
from temporalio.converter import DataConverter

from backfill.hooks.port_forward import Target
from backfill.hooks.temporal import connection as module
from backfill.hooks.temporal.codec import RemoteCodec
from backfill.hooks.temporal.connection import TemporalHook, connect_options, forward_of, read_extra
from backfill.hooks.temporal.errors import RefusedError

PEM = "-----BEGIN X-----\nabc"
CERTIFICATE = {"client_cert": PEM, "client_private_key": f"{PEM}2"}


def of(extra: Any = None, **fields: Any) -> Connection:
    """A connection."""
    text = extra if extra is None or isinstance(extra, str) else json.dumps(extra)
    return Connection(**{"conn_id": "temporal_east", "conn_type": "temporal", "host": "h"} | fields, extra=text)


def options_of(made: Connection, namespace: str | None = None) -> tuple[str, dict[str, Any]]:
    """Target and options of ``Client.connect``."""
    return connect_options(made, asyncio.run(read_extra(made)), namespace)


@pytest.mark.parametrize(
    ("made", "target", "tls"),
    [
        (of(), "h:7233", False),
        (of(port=4), "h:4", False),
        (of(password="key"), "h:7233", True),
        (of({"tls": False}, password="key"), "h:7233", False),
        (of({"tls": " TRUE "}), "h:7233", True),
        (of({"tls": "1"}), "h:7233", True),
        (of({"tls": "0"}, password="key"), "h:7233", False),
        (of({"tls": ""}), "h:7233", False),
        (of({"server_root_ca_cert": PEM}), "h:7233", TLSConfig(server_root_ca_cert=PEM.encode())),
        (of({"server_root_ca_cert": "-----BEGIN\\nabc"}), "h:7233", TLSConfig(server_root_ca_cert=b"-----BEGIN\nabc")),
        (of(CERTIFICATE), "h:7233", TLSConfig(client_cert=PEM.encode(), client_private_key=f"{PEM}2".encode())),
        (of({"domain": "d", "tls": True}), "h:7233", TLSConfig(domain="d")),
        (of({"domain": "d"}), "h:7233", False),
        # The certificate of what is behind a port-forward names the host, not this machine.
        (of({"port_forward": "a/b:1", "tls": True}), "h:7233", TLSConfig(domain="h")),
        (of({"port_forward": "a/b:1", "tls": True, "domain": "d"}), "h:7233", TLSConfig(domain="d")),
        (of({"port_forward": "a/b:1", "tls": True}, host=""), ":7233", True),
    ],
)
def test_target_and_tls(made: Connection, target: str, tls: Any) -> None:
    found, options = options_of(made)
    assert (found, options) == (
        target, {"namespace": "default", "tls": tls, "api_key": made.password or None}
    )  # fmt: skip


def test_the_namespace_is_the_files_then_the_connections() -> None:
    made = of({"namespace": "n"})
    assert options_of(made, "other")[1]["namespace"] == "other"
    assert options_of(made)[1]["namespace"] == "n"


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ({}, None),
        ({"codec_auth": "Basic abc"}, "Basic abc"),
        # The key goes to another host only when the extra says so.
        ({"codec_auth": "api_key"}, "Bearer key"),
    ],
)
def test_a_codec_decodes_with_its_own_key(auth: dict[str, str], header: str | None) -> None:
    made = of({"codec_endpoint": "https://codec:8/{namespace}/"} | auth, password="key")
    converter = options_of(made, "ns")[1]["data_converter"]
    codec = converter.payload_codec
    assert isinstance(codec, RemoteCodec)
    assert codec._url == "https://codec:8/ns/decode"
    assert codec._headers.get("Authorization") == header
    assert codec._headers["X-Namespace"] == "ns"
    assert converter.payload_converter_class is DataConverter.default.payload_converter_class
    assert converter.failure_converter_class is DataConverter.default.failure_converter_class


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (of(host=""), "connection temporal_east: host is empty; give the frontend's address"),
        *(
            (of(extra), f"connection temporal_east: extra{text}")
            for extra, text in (
                ({"client_cert": PEM},
                 ".client_cert and client_private_key belong together; only one of them is given"),
                ({"client_private_key": PEM},
                 ".client_cert and client_private_key belong together; only one of them is given"),
                ({"client_cert": "/etc/cert.pem", "client_private_key": PEM},
                 ".client_cert must be the PEM text itself (-----BEGIN ...), not a path"),
                ({"server_root_ca_cert": 5}, ".server_root_ca_cert must be the PEM text itself (-----BEGIN ...),"
                 " not a path"),
                ({"server_root_ca_cert": PEM, "tls": False},
                 ".tls is false, but certificates are given (server_root_ca_cert)"),
                (CERTIFICATE | {"tls": False},
                 ".tls is false, but certificates are given (client_cert, client_private_key)"),
                ({"tls": "perhaps"}, ".tls must be true or false, not 'perhaps'"),
                ({"codec_endpoint": "http://codec", "codec_auth": "api_key"},
                 ".codec_auth is 'api_key', but there is no API key"),
                ("{", " is not valid JSON"),
                ("[]", " must be a JSON object"),
            )
        ),
        (of({"codec_endpoint": "codec"}), "extra.codec_endpoint must be an http(s) address"),
    ],
)  # fmt: skip
def test_an_extra_that_cannot_be_right_is_refused_by_field(made: Connection, text: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared whole
        options_of(made)
    assert str(refused.value) == text
    # As the connection form's button shows it.
    assert TemporalHook("temporal_east", made).test_connection() == (False, text)


def test_secrets_of_the_extra_are_masked_and_empty_fields_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    masked: list[str] = []

    async def mask(value: str) -> None:
        masked.append(value)

    monkeypatch.setattr(module, "amask_secret", mask)
    extra = {"client_private_key": PEM, "codec_auth": "Bearer s3cret", "domain": "", "tls": None, "namespace": "n"}
    assert asyncio.run(read_extra(of(extra))) == {k: v for k, v in extra.items() if k not in ("domain", "tls")}
    assert {PEM, "Bearer s3cret", "s3cret"} <= {*masked}
    masked.clear()
    assert asyncio.run(read_extra(of({"codec_auth": "api_key"}))) == {"codec_auth": "api_key"}
    assert masked == []
    assert asyncio.run(read_extra(of())) == {}


@pytest.mark.parametrize(
    ("conn_id", "extra", "target"),
    [
        ("temporal_east", {}, None),
        ("temporal_east", {"port_forward": "a/b:1"}, Target("kubernetes_east", "", "a", "b", 1)),
        ("temporal_a_b", {"port_forward": "a/b:1"}, Target("kubernetes_a_b", "", "a", "b", 1)),
        ("other", {"port_forward": "a/b:1", "kubernetes_conn_id": "k"}, Target("k", "", "a", "b", 1)),
        ("temporal_east", {"port_forward": "a/b:1", "kubernetes_context": "c"},
         Target("kubernetes_east", "c", "a", "b", 1)),
    ],
)  # fmt: skip
def test_the_cluster_of_a_port_forward(conn_id: str, extra: dict[str, str], target: Target | None) -> None:
    assert forward_of(of(conn_id=conn_id), extra) == target


@pytest.mark.parametrize("conn_id", ["other", "temporal_", "kubernetes_east"])
def test_a_port_forward_whose_cluster_is_not_known_is_refused(conn_id: str) -> None:
    with pytest.raises(ValueError, match=r"extra\.port_forward needs extra\.kubernetes_conn_id, as this name does"):
        forward_of(of(conn_id=conn_id), {"port_forward": "a/b:1"})


def test_a_port_forward_that_cannot_be_read_is_refused_by_field() -> None:
    with pytest.raises(ValueError, match=r"connection temporal_east: extra\.port_forward 'b:1' is not namespace/"):
        forward_of(of(), {"port_forward": "b:1"})


@pytest.fixture
def connecting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[Any]]:
    """Let ``Client.connect`` answer so, and keep what it was called with."""

    def install(answer: Any) -> list[Any]:
        calls: list[Any] = []

        class Fake:
            @staticmethod
            async def connect(target: str, **options: Any) -> Any:
                calls.append((target, options))
                if isinstance(answer, BaseException):
                    raise answer
                return answer

        monkeypatch.setattr(module, "Client", Fake)
        return calls

    return install


def test_the_button_says_that_temporal_answers(connecting: Callable[[Any], list[Any]]) -> None:
    calls = connecting("client")
    assert TemporalHook("temporal_east", of()).test_connection() == (True, "Temporal answers")
    assert calls == [("h:7233", {"namespace": "default", "tls": False, "api_key": None})]


@pytest.mark.parametrize(
    ("error", "password", "kind", "text"),
    [
        (RuntimeError("tcp connect error"), "", ConnectionError,
         "connection temporal_east: Temporal at h:7233 cannot be reached without TLS: tcp connect error. Check address"
         " and port; an API key or a TLS port needs extra.tls, a private CA extra.server_root_ca_cert, a server that"
         " asks for a certificate extra.client_cert and extra.client_private_key"),
        (TimeoutError(), "key", ConnectionError,
         "connection temporal_east: Temporal at h:7233 cannot be reached with TLS: "),
        *(
            (RuntimeError(f"Status {{ code: {word} }}"), "key", RefusedError,
             f"connection temporal_east: Temporal at h:7233 does not accept this connection: Status {{ code: {word} }}."
             " Renew the API key or the client certificate")
            for word in ("PermissionDenied", "Unauthenticated", "permission_denied", "unauthenticated")
        ),
    ],
)  # fmt: skip
def test_what_a_connection_that_fails_is_told_as(
    error: Exception, password: str, kind: type[Exception], text: str, connecting: Callable[[Any], list[Any]]
) -> None:
    connecting(error)
    hook = TemporalHook("temporal_east", of(password=password))
    with pytest.raises(kind) as failed:
        asyncio.run(hook.connect())
    assert str(failed.value).startswith(text)
    assert failed.value.__cause__ is error
    assert hook.test_connection() == (False, str(failed.value))


class Forwards:
    """Port-forwards of which one opens and one does not."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.asked: list[Any] = []

    async def address(self, target: Target, extra: Any) -> tuple[str, int]:
        """Where it listens."""
        self.asked.append((target, extra))
        return "127.0.0.1", 9

    def last_error(self, target: Target) -> str:
        """Why its last stream was refused."""
        assert target == self.asked[-1][0]
        return self.reason


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("", " (port-forward to a/b:1 (connection 'kubernetes_east', context of the connection)) cannot be reached"
         " without TLS: refused. Check"),
        ("no pod is ready", " cannot be reached: no pod is ready"),
    ],
)  # fmt: skip
def test_behind_a_port_forward_its_own_reason_is_told(
    reason: str, text: str, connecting: Callable[[Any], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KUBERNETES_EAST", json.dumps({"conn_type": "kubernetes", "extra": {"a": "b"}}))
    forwards = Forwards(reason)
    monkeypatch.setattr(module, "port_forwards", lambda: forwards)
    calls = connecting(RuntimeError("refused"))
    with pytest.raises(ConnectionError) as failed:
        asyncio.run(TemporalHook("temporal_east", of({"port_forward": "a/b:1"})).connect("ns"))
    assert str(failed.value).startswith(f"connection temporal_east: Temporal at 127.0.0.1:9{text}")
    assert forwards.asked == [(Target("kubernetes_east", "", "a", "b", 1), {"a": "b"})]
    assert calls[0][0] == "127.0.0.1:9"

"""Payloads that workers have encrypted: they decide nothing, and a remote codec makes them readable."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.log import redact  # type: ignore[attr-defined]
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes, PayloadCodec

from backfill.hooks.temporal import Workflows
from backfill.hooks.temporal.codec import CodecError, RemoteCodec
from backfill.hooks.temporal.connection import TemporalHook
from backfill.operators.checks import temporal as checks
from standins.ports import free_port
from tests.sandbox.faults_temporal_fixtures import (
    Scene,
    Server,
    connect_to,
    failure,
    nothing,
    returned,
    running_scene,
    server,
)
from tests.standins.temporal_fixtures import until

__all__ = ["server"]

KEY = 0x5A
AUTH = "Bearer codec-word-of-this-test"


class Scramble(PayloadCodec):
    """What the workers use: nothing of a payload can be read without it."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": b"binary/encrypted"}, data=bytes(b ^ KEY for b in p.SerializeToString()))
            for p in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(bytes(b ^ KEY for b in p.data)) for p in payloads]


SCRAMBLED = replace(
    DataConverter.default,
    payload_codec=Scramble(),
    failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
)


@dataclass
class CodecServer:
    """A codec endpoint that answers by a status and a body of the test, else by decoding."""

    port: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    body: bytes | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def codec_server() -> Iterator[CodecServer]:
    made = CodecServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"]))
            made.asked.append({"path": self.path, "text": text, **{k.lower(): v for k, v in self.headers.items()}})
            body = made.body if made.body is not None else decode(text)
            self.send_response(made.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = listening.server_address[1]
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def decode(text: bytes) -> bytes:
    given = json_format.Parse(text, Payloads()).payloads
    plain = [Payload.FromString(bytes(b ^ KEY for b in p.data)) for p in given]
    return json_format.MessageToJson(Payloads(payloads=plain)).encode()


@pytest.fixture
def endpoint() -> Iterator[CodecServer]:
    with codec_server() as made:
        yield made


@pytest.fixture
async def encrypted(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """A scene whose worker encrypts everything."""
    async with running_scene(server, tmp_path, monkeypatch, SCRAMBLED) as made:
        yield made


async def product(scene: Scene) -> Workflows:
    """The product's own client."""
    hook = TemporalHook(scene.config.temporal.conn_id)
    return Workflows(await hook.connect(scene.config.temporal.namespace), scene.config)


async def hanging(scene: Scene) -> Any:
    """A workflow whose activity has told its progress once; gives its handle."""
    one = await scene.start()
    await one.signal("do", "hang")

    async def told() -> bool:
        found = await one.describe()
        return any(a.HasField("heartbeat_details") for a in found.raw_description.pending_activities)

    await until(told, "a heartbeat")
    return one


async def test_encrypted_heartbeats_and_failures_decide_nothing_but_the_type(encrypted: Scene) -> None:
    one = await hanging(encrypted)
    found = await (await product(encrypted)).describe(one.id)
    assert (found.status, found.done, found.total) == ("running", None, None)
    # Its heartbeat runs out: said by the failure's type, with every text encoded.
    record = failure(await encrypted.wait(one, steps=(lambda: encrypted.closed(one),)))
    assert record["cause"] == "heartbeat_timeout"
    assert "Encoded failure" in record["reason"]


async def test_an_encrypted_failure_without_a_codec_is_a_failure_like_any(encrypted: Scene) -> None:
    one = await encrypted.start()
    await encrypted.ends(one, "fail ERROR: deadlock detected (SQLSTATE 40P01)")
    assert failure(await encrypted.wait(one))["cause"] == "workflow_failed"


async def test_a_remote_codec_makes_progress_and_deadlocks_known(
    encrypted: Scene, endpoint: CodecServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_to(monkeypatch, encrypted.server.proxy, codec_endpoint=endpoint.address + "/", codec_auth=AUTH)
    one = await hanging(encrypted)
    found = await (await product(encrypted)).describe(one.id)
    assert (found.done, found.total) == (5, 10)
    assert {call["path"] for call in endpoint.asked} == {"/decode"}
    assert {call["authorization"] for call in endpoint.asked} == {AUTH}
    assert {call["x-namespace"] for call in endpoint.asked} == {encrypted.config.temporal.namespace}
    await one.terminate(reason="seen")
    two = await encrypted.start()
    await encrypted.ends(two, "fail ERROR: deadlock detected (SQLSTATE 40P01)")
    record = failure(await encrypted.wait(two))
    assert record["cause"] == "deadlock"
    assert "40P01" in record["reason"]
    assert AUTH.removeprefix("Bearer ") not in json.dumps(record)


async def test_a_codec_that_does_not_answer_holds_nothing_up_and_is_left_alone_for_a_while(
    encrypted: Scene, endpoint: CodecServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect_to(monkeypatch, encrypted.server.proxy, codec_endpoint=endpoint.address, codec_auth=AUTH)
    endpoint.status = 500
    one = await hanging(encrypted)
    with caplog.at_level(logging.DEBUG):
        record = failure(await encrypted.wait(one, steps=(nothing, lambda: encrypted.closed(one))))
    assert record["cause"] == "heartbeat_timeout"
    assert len(endpoint.asked) == 1
    assert AUTH.removeprefix("Bearer ") not in caplog.text


async def test_the_api_key_goes_to_the_codec_only_when_that_is_asked_for(
    encrypted: Scene, endpoint: CodecServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, one = encrypted.server.proxy, await hanging(encrypted)
    connect_to(monkeypatch, address, password="key-of-temporal", tls=False, codec_endpoint=endpoint.address)
    await (await product(encrypted)).describe(one.id)
    assert "authorization" not in endpoint.asked[0]
    connect_to(
        monkeypatch, address, password="key-of-temporal", tls=False, codec_endpoint=endpoint.address,
        codec_auth="api_key",
    )  # fmt: skip
    await (await product(encrypted)).describe(one.id)
    assert endpoint.asked[1]["authorization"] == "Bearer key-of-temporal"
    await one.terminate(reason="seen")


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (401, b"", "answers 401"),
        (404, b"", "answers 404"),
        (200, b"<html>", "answers something else than payloads"),
        (200, b"3", "answers something else than payloads"),
        (200, b'{"payloads": []}', "answers 0 payloads for 1"),
    ],
)
async def test_what_a_codec_answers_wrongly_is_said_without_its_credentials(
    endpoint: CodecServer, status: int, body: bytes, text: str
) -> None:
    endpoint.status, endpoint.body = status, body
    codec = RemoteCodec(f"{endpoint.address}/of-{AUTH[7:]}", "ingestion", AUTH)
    with pytest.raises(CodecError) as found:
        await codec.ask([Payload(data=b"1")])
    assert text in str(found.value)
    assert f"http://127.0.0.1:{endpoint.port}" in str(found.value)
    assert AUTH.removeprefix("Bearer ") not in str(found.value)


async def test_a_codec_that_is_not_there_is_said_by_its_address() -> None:
    port = free_port()
    with pytest.raises(CodecError, match=f"codec at http://127.0.0.1:{port} cannot be reached"):
        await RemoteCodec(f"http://127.0.0.1:{port}", "ingestion", AUTH).ask([])


@pytest.mark.parametrize("endpoint", ["codec:8080", "ftp://codec", "http://", ""])
def test_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"extra\.codec_endpoint must be an http"):
        RemoteCodec(endpoint, "ingestion")


def test_credentials_in_the_address_are_refused_without_repeating_them() -> None:
    with pytest.raises(ValueError, match=r"put them into extra\.codec_auth") as found:
        RemoteCodec("http://user:pass-word@127.0.0.1:1", "ingestion", AUTH)
    assert "pass-word" not in str(found.value)


async def test_the_namespace_may_stand_in_the_address(endpoint: CodecServer) -> None:
    await RemoteCodec(endpoint.address + "/{namespace}", "ingestion").ask([])
    assert endpoint.asked[0]["path"] == "/ingestion/decode"


@pytest.mark.parametrize(("status", "problems"), [(200, 0), (403, 1)])
async def test_preflight_asks_the_codec(
    server: Server, encrypted: Scene, endpoint: CodecServer, monkeypatch: pytest.MonkeyPatch, status: int, problems: int
) -> None:
    endpoint.status = status
    found: list[str] = []
    connect_to(monkeypatch, server.proxy, codec_endpoint=endpoint.address, codec_auth=AUTH)
    connection = await TemporalHook.aget_connection(encrypted.config.temporal.conn_id)
    await checks._ask(encrypted.config, connection, found, [])
    assert len(found) == problems
    assert all("answers 403" in text and AUTH not in text for text in found)
    assert len(endpoint.asked) == 1


async def test_the_codecs_authorization_is_masked_in_every_log(
    encrypted: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_to(monkeypatch, encrypted.server.proxy, codec_endpoint="http://127.0.0.1:1", codec_auth=AUTH)
    await product(encrypted)
    assert "codec-word-of-this-test" not in str(redact(f"sent {AUTH}"))


async def test_a_wait_of_encrypted_workflows_ends_well(encrypted: Scene) -> None:
    one = await encrypted.start()
    assert returned(await encrypted.wait(one, steps=(nothing, lambda: encrypted.ends(one))))["status"] == "completed"

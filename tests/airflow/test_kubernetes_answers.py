"""Answers of an API server, or of what stands before it, that are not what they should be; and logs of any bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from backfill.hooks import kubernetes
from backfill.hooks.kubernetes import KubeCallError, KubernetesJobs, is_transient
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.podlog import lines_of
from include.scorecard_backfill.verdicts.workflows import created_workflows
from tests.airflow.kube_api_fixtures import KubeApi

PAGE = "<html><body>Wartung \u00fcber Nacht</body></html>"


@asynccontextmanager
async def answering(answer: Callable[[], web.Response], asked: list[web.Request]) -> AsyncIterator[KubernetesJobs]:
    """A client whose every call gets this answer."""

    async def handle(request: web.Request) -> web.Response:
        asked.append(request)
        return answer()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    config = ClusterConfig.model_validate({"name": "demo", "kubernetes": {"context": "demo_dev"}})
    try:
        yield KubernetesJobs(config, KubeApi(url=url).extra())
    finally:
        await runner.cleanup()


def log_of(body: bytes) -> tuple[list[str], web.Request]:
    """The lines of a log that holds these bytes, and the request."""
    asked: list[web.Request] = []

    async def ask() -> list[str]:
        async with answering(lambda: web.Response(body=body, content_type="text/plain"), asked) as client:
            return await client.pod_log("pod-1", "reindex")

    found = asyncio.run(ask())
    (request,) = asked
    return found, request


def error_of(answer: Callable[[], web.Response], call: Callable[[KubernetesJobs], Any]) -> KubeCallError:
    """The error that a call ends with."""

    async def ask() -> None:
        async with answering(answer, []) as client:
            await call(client)

    with pytest.raises(KubeCallError) as caught:
        asyncio.run(ask())
    return caught.value


def created(workflow_id: str) -> str:
    """The line that the program logs for a workflow."""
    return f"Created reindex conversations job: name=jobs/1, execution_id={workflow_id}, cluster=c"


@pytest.mark.parametrize(
    "body",
    [
        created("w-1").encode() + b" \xff\xfe\nnext",
        b"\x1b[32mINFO\x1b[0m Created reindex conversations job: name=jobs/1, execution_id=\x1b[1mw-1\x1b[0m,"
        b" cluster=c",
        b'{"msg": "' + created("w-1").encode() + b'"}',
        b"\r\n" + created("w-1").encode() + b"\r\nzero\x00byte\r\n",
        b"12",
    ],
    ids=["not UTF-8", "colours", "one line of JSON", "other line ends and NUL", "a number"],
)
def test_a_log_of_any_bytes_is_read(body: bytes) -> None:
    lines, request = log_of(body)
    assert created_workflows(lines) == ([] if body == b"12" else ["w-1"])
    assert "\x00" not in "".join(lines)
    assert request.query["container"] == "reindex"
    # A log is no JSON: an API server that is asked for JSON alone answers 406.
    assert request.headers["Accept"] == "*/*"
    assert int(request.query["limitBytes"]) == kubernetes.LOG_LIMIT_BYTES
    assert int(request.query["tailLines"]) == kubernetes.LOG_TAIL_LINES
    if body == b"12":
        assert lines == ["12"]


def test_a_line_that_was_cut_off_is_not_read_as_a_whole_one() -> None:
    assert lines_of(b"one\ntwo\nthr", 11) == ["one", "two"]
    assert lines_of(b"one\ntwo\nthr", 12) == ["one", "two", "thr"]
    assert lines_of(b"one\n", 4) == ["one"]
    assert lines_of("\u00fc".encode()[:1], 1) == []
    assert lines_of(b"", 10) == []


def test_a_refused_log_is_told() -> None:
    body = {"kind": "Status", "reason": "BadRequest", "message": "container is waiting to start", "code": 400}
    error = error_of(lambda: web.json_response(body, status=400), lambda client: client.pod_log("pod-1", "reindex"))
    assert (error.status, error.reason, error.detail) == (400, "BadRequest", "container is waiting to start")


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        (b'{"reason": "Expired", "message": "too old"}', "Expired", "too old"),
        (b'{"message": "too old"}', "Gone", "too old"),
        (b'{"reason": "Expired"}', "Expired", "Gone"),
        (b"", "Gone", "Gone"),
        (b'["one", "two"]', "Gone", '["one", "two"]'),
        (b"not \xff\n  here", "Gone", "not \ufffd here"),
        (b"x" * 400, "Gone", "x" * 300),
    ],
    ids=["Status", "no reason", "no message", "nothing", "a list", "no UTF-8", "long"],
)
def test_a_refusal_says_what_its_body_says_or_what_http_says(body: bytes, reason: str, detail: str) -> None:
    error = error_of(lambda: web.Response(body=body, status=410), lambda client: client.jobs("a=b"))
    assert (error.status, error.reason, error.detail) == (410, reason, detail)
    assert str(error).startswith(f"cannot list jobs: 410 {reason}: {detail} (connection ")


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_a_page_of_a_proxy_in_place_of_the_api_passes(status: int, charset: str) -> None:
    def page() -> web.Response:
        return web.Response(body=PAGE.encode(charset), status=status, content_type="text/html")

    error = error_of(page, lambda client: client.jobs("a=b"))
    assert is_transient(error)
    assert "cannot list jobs" in str(error)
    assert "demo_dev" in str(error)

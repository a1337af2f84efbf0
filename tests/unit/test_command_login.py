"""The command's way to Airflow: address, login, a server that does not answer, and what the command loads."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.kit.fake_airflow import PAGE
from tests.unit.command_fixtures import FAILED, TOKEN, airflow, call

ROOT = Path(__file__).resolve().parents[2]


def test_a_password_gets_a_token_and_is_never_shown() -> None:
    env = {
        "AIRFLOW_API_URL": "https://airflow.test/",
        "AIRFLOW_API_USER": "joe",
        "AIRFLOW_API_PASSWORD": "the-password",
    }
    assert call(airflow(), "status", env=env).code == 0

    wrong = call(airflow(), "status", env={**env, "AIRFLOW_API_PASSWORD": "not-the-password"})
    assert wrong.code == 3
    assert "does not accept the login of joe" in wrong.err
    assert "not-the-password" not in wrong.out + wrong.err


def test_a_token_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("the-token\n")
    env = {"AIRFLOW_API_URL": "https://airflow.test"}
    assert call(airflow(), "status", "--token-file", str(file), env=env).code == 0

    file.write_text("a secret in\ntwo lines")
    ended = call(airflow(), "status", "--token-file", str(file), env=env)
    assert (ended.code, "a secret" in ended.err) == (2, False)
    assert call(airflow(), "status", "--token-file", str(tmp_path / "none"), env=env).code == 2


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({}, "AIRFLOW_API_URL"),
        ({"AIRFLOW_API_URL": "airflow.test"}, "is not an http(s) address"),
        ({"AIRFLOW_API_URL": "https://joe:sesame@airflow.test"}, "AIRFLOW_API_USER"),
        ({"AIRFLOW_API_URL": "https://airflow.test"}, "No login"),
        ({"AIRFLOW_API_URL": "https://airflow.test", "AIRFLOW_API_USER": "joe"}, "AIRFLOW_API_PASSWORD"),
    ],
)
def test_a_missing_or_broken_login_says_what_to_set(
    env: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    ended = call(airflow(), "status", env=env)

    assert (ended.code, text in ended.err) == (2, True), ended.err
    assert "sesame" not in ended.err


def test_an_airflow_below_a_path_is_asked_below_it() -> None:
    server = airflow()

    def below(request: httpx.Request) -> httpx.Response:
        assert request.url.path.startswith("/airflow/"), request.url
        return server(httpx.Request(request.method, str(request.url).replace("/airflow/", "/"),
                                    headers=request.headers, content=request.content))  # fmt: skip

    assert call(below, "status", env={**TOKEN, "AIRFLOW_API_URL": "https://airflow.test/airflow/"}).code == 0


def no_way(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


@pytest.mark.parametrize(
    ("server", "text"),
    [
        (no_way, "cannot be reached"),
        (lambda _: httpx.Response(401, json={"detail": "x"}), "may have expired"),
        (lambda _: httpx.Response(403, json={"detail": "Forbidden"}), "Not allowed (GET /scorecard-backfill/clusters"),
        (lambda _: httpx.Response(404, json={"detail": "Not Found"}), "is it the Airflow with the plugin"),
        (lambda _: httpx.Response(502, text="<html>"), "HTTP 502"),
        (lambda _: httpx.Response(200, text="<html>login</html>"), "answers in another form"),
        (lambda _: httpx.Response(302, headers={"location": "https://sso.test/?secret=1"}), "https://sso.test/:"),
    ],
)
def test_a_server_that_does_not_answer_or_allow_is_3(
    server: Callable[[httpx.Request], httpx.Response], text: str
) -> None:
    ended = call(server, "status")

    assert ended.code == 3
    assert text in ended.err
    assert "secret=1" not in ended.err
    assert "the-token" not in ended.err


def test_a_deed_of_unknown_outcome_says_so() -> None:
    server = airflow(FAILED)

    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("timed out")

    server.answers["POST", f"{PAGE}/actions/retry"] = lost
    ended = call(server, "retry")

    assert (ended.code, "is not known" in ended.err) == (3, True)


def test_the_command_imports_nothing_of_airflow_and_no_client_of_another_system() -> None:
    code = "import backfill.cli.main, sys; print('\\n'.join(sys.modules))"
    path = f"{ROOT}:{ROOT / 'plugins'}"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path, "PATH": ""}, capture_output=True,
                          text=True, check=True)  # fmt: skip
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    heavy = {"airflow", "sqlalchemy", "fastapi", "starlette", "kubernetes", "kubernetes_asyncio", "temporalio",
             "clickhouse_connect", "pendulum", "opentelemetry", "grpc", "jinja2"}  # fmt: skip

    assert "backfill" in loaded
    assert not loaded & heavy


def test_the_module_can_be_called() -> None:
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "PATH": ""}
    done = subprocess.run([sys.executable, "-m", "backfill", "--help"], env=env, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    for name in ("status", "plan", "retry", "reset", "pause", "resume", "report", "undo"):
        assert f"    {name}" in done.stdout

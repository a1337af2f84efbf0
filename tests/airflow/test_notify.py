"""Messages over Airflow's notifiers: what the other side sees, once in a run, and never at the cost of a stage."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import TaskFailedEvent

from backfill.kit.look import Failed, wait
from backfill.kit.stages import fail
from backfill.notify import channels, tell, watch
from backfill.operators import approve, preflight
from backfill.operators.approve import PlanApproval
from backfill.operators.report import ReportOperator
from backfill.settings import cluster_config
from include.scorecard_backfill.config.notify import Channel
from include.scorecard_backfill.notices import Notice, Run, failure_notice
from include.scorecard_backfill.records import Failure
from include.scorecard_backfill.records.report import Report, Sums
from tests.airflow.test_waits_base import Probe, WorkerProbe
from tests.kit.store import AssetState
from tests.kit.waits import NAME, assets, cluster, configure, context, only_event, window

__all__ = ["assets", "cluster"]

Json = dict[str, Any]
DAG = f"scorecard_backfill__{NAME}"
FAILURE = Failure(key="0" * 16, stage="verify", cause="lost_rows", reason="5 rows are missing", what_to_do="Look.")


class Hook(ThreadingHTTPServer):
    """Takes messages; answers with `status`, after `hold` is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.seen: list[tuple[str, dict[str, str], Json]] = []
        self.status = 200
        self.hold = threading.Event()
        self.hold.set()


class Taker(BaseHTTPRequestHandler):
    """Keeps what was sent."""

    server: Hook

    def do_POST(self) -> None:
        """Take a message."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.server.hold.wait(30)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hook(tmp_path: Path, cluster: str, assets: AssetState, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    """A service behind the cluster's only channel."""
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    configure(tmp_path, monkeypatch, notify={"channels": [{"kind": "webhook", "conn_id": "hook"}]})
    connect(monkeypatch, host="127.0.0.1", schema="http", port=server.server_port, extra={"endpoint": "/in"})
    tell.forget()
    yield server
    server.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_HOOK", json.dumps({"conn_type": "generic", **fields}))


def task(map_index: int = 0, run_id: str = "manual__1") -> Json:
    made = context("windows.delete")
    made["ti"].dag_id, made["ti"].map_index, made["ti"].run_id = DAG, map_index, run_id
    made["task"] = SimpleNamespace(window=window().to_json())
    return made


def failed(map_index: int = 0, cause: str = "lost_rows", run_id: str = "manual__1") -> None:
    with pytest.raises(AirflowFailException):
        fail(task(map_index, run_id), FAILURE.model_copy(update={"cause": cause}))


def notice(text: str = "text") -> Notice:
    return Notice("failed", "x", Run(NAME, "manual__1"), "subject", text)


def test_windows_that_fail_by_one_cause_are_one_message_in_each_run(hook: Hook) -> None:
    failed(0)
    failed(1)
    assert [body["cause"] for _, _, body in hook.seen] == ["lost_rows"]
    path, _, body = hook.seen[0]
    assert path == "/in"
    assert (body["about"], body["cluster"], body["run_id"]) == ("failed", NAME, "manual__1")
    assert "acme 2026-01-01..2026-02-01: lost_rows: 5 rows are missing\nLook." in body["text"]

    failed(1, "job_gone")
    failed(0, run_id="manual__2")
    assert [(body["cause"], body["run_id"]) for _, _, body in hook.seen[1:]] == [
        ("job_gone", "manual__1"),
        ("lost_rows", "manual__2"),
    ]


def test_another_process_does_not_tell_again_what_was_told(hook: Hook) -> None:
    failed(0)
    tell.forget()
    failed(1)

    assert len(hook.seen) == 1


def test_a_window_that_will_be_cut_is_not_told(hook: Hook) -> None:
    failed(0, "heartbeat_timeout")

    assert hook.seen == []


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_service_that_does_not_take_it_changes_nothing_and_is_in_the_log(
    hook: Hook, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(tell.log, "warning", lambda text, *args: said.append(text % args))
    hook.status = status
    failed(0)

    assert said == [f"connection hook has not taken the message 'failed:lost_rows': connection 'hook': HTTP {status}"]


def test_a_service_that_is_not_there_is_no_secret_in_the_log(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(tell.log, "warning", lambda text, *args: said.append(text % args))
    connect(monkeypatch, host="http://127.0.0.1:1/services/sesame", password="opensesame")
    failed(0)

    assert "ConnectError" in said[0]
    assert "sesame" not in said[0]


def test_a_service_that_hangs_does_not_hold_up_a_worker(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(tell.log, "warning", lambda text, *args: said.append(text % args))
    monkeypatch.setattr(tell, "GRACE_SECONDS", 0.05)
    hook.hold.clear()
    failed(0)

    assert said == ["1 messages about 'failed:lost_rows' are still being sent; the task goes on"]
    hook.hold.set()


def test_a_broken_state_store_changes_nothing(hook: Hook, assets: AssetState, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(key: str, default: Any = None) -> Any:
        raise RuntimeError("no answer")

    monkeypatch.setattr(assets, "get", broken)
    failed(0)

    assert hook.seen == []


def test_a_password_is_a_bearer_token_and_with_a_login_basic(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    host = f"http://127.0.0.1:{hook.server_port}/whole"
    connect(monkeypatch, host=host, password="sesame", extra={"headers": {"X-Team": "data"}})
    failed(0)
    connect(monkeypatch, host=host, login="joe", password="sesame")
    failed(0, "job_gone")

    (path, first, _), (_, second, _) = hook.seen
    assert (path, first["authorization"], first["x-team"]) == ("/whole", "Bearer sesame", "data")
    assert second["authorization"].startswith("Basic ")


async def test_a_trigger_tells_its_failure_beside_its_end(hook: Hook) -> None:
    probe = Probe(NAME, Failed(FAILURE))
    probe.task_instance = SimpleNamespace(  # type: ignore[assignment]
        dag_id=DAG, run_id="manual__1", task_id="windows.verify", map_index=3, try_number=1
    )
    hook.hold.clear()
    # The end of the task does not wait for the service.
    assert isinstance(await only_event(probe), TaskFailedEvent)
    hook.hold.set()
    await tell.all_sent()

    assert [body["cause"] for _, _, body in hook.seen] == ["lost_rows"]


async def test_a_wait_that_takes_long_is_told_once(
    hook: Hook, assets: AssetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def long(run: Run, label: str, *args: Any) -> Notice | None:
        asked.append(label)
        return failure_notice(run, label, FAILURE)

    monkeypatch.setattr(watch, "wait_notice", long)
    ti = SimpleNamespace(dag_id=DAG, run_id="manual__1", task_id="windows.verify", map_index=3)
    watched = watch.Watch(cluster_config(NAME), ti, "verify", "acme", window())
    for _ in range(3):
        watched.waits(wait("counts"))
    await tell.all_sent()
    watched.ended(None)

    assert len(hook.seen) == 1
    assert asked == ["acme"]


async def test_each_look_of_a_wait_is_watched(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(watch.Watch, "waits", lambda self, look: said.append(look.text))
    await only_event(Probe(NAME, wait("one"), wait("two"), Failed(FAILURE)))

    assert said == ["one", "two"]


async def test_a_failure_that_a_worker_ends_is_told_by_the_worker_alone(hook: Hook) -> None:
    probe = WorkerProbe(NAME, Failed(FAILURE))
    probe.task_instance = SimpleNamespace(  # type: ignore[assignment]
        dag_id=DAG, run_id="manual__1", task_id="windows.verify", map_index=3, try_number=1
    )
    await only_event(probe)
    await tell.all_sent()

    assert hook.seen == []


async def test_windows_that_fail_at_once_in_a_triggerer_are_one_message(
    hook: Hook, assets: AssetState, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = asyncio.Barrier(2)

    async def slow(key: str, default: Any = None) -> Any:
        # Both have read the state before one of them writes it.
        found = assets.get(key, default)
        await both.wait()
        return found

    monkeypatch.setattr(assets, "aget", slow)
    for _ in range(2):
        tell.tell_later(cluster_config(NAME), notice())
    await tell.all_sent()

    assert len(hook.seen) == 1


def test_what_another_library_says_of_its_error_is_not_logged(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(tell.log, "warning", lambda text, *args: said.append(text % args))

    def broken(*args: Any) -> Any:
        raise OSError("smtp://joe:sesame@mail")

    monkeypatch.setattr(tell, "notifier_of", broken)
    failed(0)

    assert said == ["connection hook has not taken the message 'failed:lost_rows': OSError"]


def test_the_end_of_a_run_is_told_with_its_totals(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = Sums(before=100, meant=10, after=90, removed=10, short=0)
    report = Report(
        planned=2, verified=2, complete=True, accounted=True, windows=(), customers=(), total={"scorecard": sums}
    )
    ReportOperator(task_id="report", cluster=NAME)._tell(task()["ti"], report)

    ((_, _, body),) = hook.seen
    assert body["about"] == "finished"
    assert "complete, 2 of 2 windows verified" in body["text"]
    assert "scorecard: 100 rows before, 90 after, 10 removed" in body["text"]


def test_nothing_is_read_or_sent_when_nobody_is_named(cluster: str, assets: AssetState) -> None:
    failed(0)

    assert assets.values == {}


def test_mail_goes_by_airflows_notifier_with_nothing_rendered() -> None:
    channel = Channel(kind="smtp", conn_id="mail", to=("jane@example.com",))
    made: Any = channels.notifier_of(channel, notice("<b>{{ 1 + 1 }}</b>"))

    assert isinstance(made, SmtpNotifier)
    assert (made.to, made.subject, made.smtp_conn_id) == (["jane@example.com"], "subject", "mail")
    assert made.html_content == "<pre>&lt;b&gt;{{ 1 + 1 }}&lt;/b&gt;</pre>"


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "http://127.0.0.1:{port}/services", "password": "T0/B0/s3cr3t"},
        {"password": "http://127.0.0.1:{port}/services/T0/B0/s3cr3t"},
        {"host": "127.0.0.1:{port}/services/", "schema": "http", "password": "/T0/B0/s3cr3t"},
        {"host": "http://127.0.0.1:{port}/services/T0/B0/s3cr3t"},
    ],
)
def test_slack_gets_a_text_in_which_nothing_is_markup(
    hook: Hook, fields: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, **{name: text.replace("{port}", str(hook.server_port)) for name, text in fields.items()})
    channel = Channel(kind="slack", conn_id="hook")
    channels.notifier_of(channel, notice("<!channel> & {{ 1 + 1 }}")).notify({})

    path, headers, body = hook.seen[0]
    assert (path, body) == ("/services/T0/B0/s3cr3t", {"text": "subject\n&lt;!channel&gt; &amp; {{ 1 + 1 }}"})
    assert "authorization" not in headers


def test_slacks_address_is_in_no_error_and_is_its_own_by_default(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    hook.status = 403
    connect(monkeypatch, host=f"http://127.0.0.1:{hook.server_port}/services", password="T0/B0/s3cr3t")
    with pytest.raises(channels.ChannelError) as error:
        channels.notifier_of(Channel(kind="slack", conn_id="hook"), notice()).notify({})
    assert str(error.value) == "connection 'hook': HTTP 403"
    blank = SimpleNamespace(host=None, schema=None, password="T0/B0/x")
    assert channels.slack_url("hook", blank) == "https://hooks.slack.com/services/T0/B0/x"


def test_preflight_names_a_missing_provider_and_a_missing_connection(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = [{"kind": "smtp", "conn_id": "hook", "to": ["jane@example.com"]}, {"kind": "webhook", "conn_id": "nowhere"},
             {"kind": "webhook", "conn_id": "hook"}, {"kind": "slack", "conn_id": "hook"}]  # fmt: skip
    configure(tmp_path, monkeypatch, notify={"channels": named})
    connect(monkeypatch, host="")
    monkeypatch.setitem(sys.modules, "airflow.providers.smtp.notifications.smtp", None)

    assert channels.channel_problems(cluster_config(NAME)) == [
        "notify: channels[0]: kind smtp needs apache-airflow-providers-smtp, which is not installed; install it, or"
        " use another kind",
        "notify: channels[1]: connection 'nowhere' is not defined in Airflow; create it",
        "notify: channels[2]: connection 'hook': its host is not an http(s) address",
        "notify: channels[3]: connection 'hook': its password is to be the webhook's address at Slack, or its end",
    ]


def test_a_plan_that_waits_for_a_person_is_told_and_the_question_is_asked_whatever_happens(
    hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ApprovalOperator, "execute", lambda self, context: asked.append("asked"))
    planned = [window().to_json(), window(customer_id="globex").to_json()]
    left = {("plan", "run"): {"destructive": True, "require_approval": True}, ("plan", "planned"): planned,
            ("plan", "terms"): {"mode": "cleanup"}}  # fmt: skip
    operator = PlanApproval(task_id="approve", cluster=NAME, subject="?", body="?", fail_on_reject=True)
    made = context("approve", left)
    made["ti"].map_index = -1
    operator.execute(made)
    monkeypatch.setattr(approve, "tell", lambda *args: 1 / 0)
    operator.execute(context("approve", left) | {"ti": made["ti"]})

    assert asked == ["asked", "asked"]
    (body,) = [body for _, _, body in hook.seen]
    assert (body["about"], body["run_id"]) == ("approval", "manual__1")
    assert "the plan of 2 windows of 2 customers waits for approval" in body["text"]


def test_preflight_refuses_a_run_whose_channels_cannot_work(
    tmp_path: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, notify={"channels": [{"kind": "webhook", "conn_id": "nowhere"}]})
    monkeypatch.setattr(preflight, "checks", lambda: ())
    monkeypatch.setattr(preflight, "refuse_late_start", lambda *args: None)
    monkeypatch.setattr(preflight, "run_parameters", lambda *args: SimpleNamespace(lines=lambda: []))
    with pytest.raises(AirflowFailException, match=r"notify: channels\[0\]: connection 'nowhere' is not defined"):
        preflight.PreflightOperator(task_id="preflight", cluster=NAME).execute(context("preflight"))

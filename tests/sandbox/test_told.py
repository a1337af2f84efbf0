"""A run that fails and is put right by the command alone, while a webhook, a mail server and a collector listen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from sandbox.airflow_api import AirflowApi
from sandbox.stack import running_stack
from sandbox.stack_layout import Options
from sandbox.stack_model import AIRFLOW_USER, Stack
from sandbox.stack_wait import wait_for
from tests.kit.airflow_home import ROOT
from tests.kit.receivers import MailSink, Sink, serving
from tests.sandbox.drive import APPROVAL_SECONDS, Driver

pytestmark = pytest.mark.timeout(900)

Json = dict[str, Any]

CLUSTER = "sandbox-west"
GOOD, BROKEN = "tyrell", "soylent"
START, END = "2026-01-01", "2026-02-01"
RUN = "told"
TO = "night-shift@example.com"
HOOK_SECRET = "hook-s3cr3t-7f1b"
LOOK_SECONDS = 60
LINKS = {"job": "https://k8s.example.com/{namespace}/{job}", "mutations": "https://ch.example.com/?query={query}",
         "temporal_ui": "https://temporal.example.com/{namespace}/{workflow_id}"}  # fmt: skip
UNDO_SECONDS = 180
UNDO_DAG = f"scorecard_backfill_undo__{CLUSTER}"


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Json:
        """What it printed with --json."""
        return dict(json.loads(self.out))


@dataclass
class Told:
    """The stack, and what its receivers got."""

    stack: Stack
    hook: Sink
    mail: MailSink
    meters: Sink
    said: dict[str, Ended] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    links: dict[str, Json] = field(default_factory=dict)
    undo_asked: Json = field(default_factory=dict)

    def command(self, *argv: str, **changes: str) -> Ended:
        """Run `python -m backfill` as a person in a terminal does, with a password from the environment."""
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
               "AIRFLOW_API_URL": self.stack.airflow_url, "AIRFLOW_API_USER": AIRFLOW_USER,
               "AIRFLOW_API_PASSWORD": self.stack.airflow_password, **changes}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "backfill", *argv], env=env, cwd=ROOT, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert self.stack.airflow_password not in done.stdout + done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)


def clusters_that_tell(folder: Path) -> Path:
    """Copy the file of one of the sandbox's clusters and give it a webhook and a mail address."""
    folder.mkdir()
    for name in ("defaults", CLUSTER):
        shutil.copy(ROOT / "sandbox" / "clusters" / f"{name}.yaml", folder)
    file = folder / f"{CLUSTER}.yaml"
    channels = [{"kind": "webhook", "conn_id": "told_hook"}, {"kind": "smtp", "conn_id": "told_mail", "to": [TO]}]
    more = {"notify": {"channels": channels}, "links": LINKS}
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | more))
    return folder


def environment(folder: Path, hook: Sink, mail: MailSink, meters: Sink) -> dict[str, str]:
    """What Airflow's processes are told about the receivers."""
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "backfill@example.com"}
    return {
        "SCORECARD_BACKFILL_CLUSTERS": str(clusters_that_tell(folder)),
        "AIRFLOW_CONN_TOLD_HOOK": json.dumps({"conn_type": "generic", "host": "127.0.0.1", "schema": "http",
                                              "port": hook.server_port, "password": HOOK_SECRET}),
        "AIRFLOW_CONN_TOLD_MAIL": json.dumps({"conn_type": "smtp", "host": "127.0.0.1",
                                              "port": mail.server_address[1], "extra": extra}),
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{meters.server_port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("told")
    with serving(Sink()) as hook, serving(MailSink()) as mail, serving(Sink()) as meters:
        options = Options(clusters=(CLUSTER,), extra_env=environment(folder / "clusters", hook, mail, meters))
        with running_stack(folder / "state", options) as stack:
            made = Told(stack, hook, mail, meters)
            with AirflowApi(stack.airflow_url, AIRFLOW_USER, stack.airflow_password) as api:
                drive(made, Driver(api, stack, stack.cluster("west")))
            yield made


def drive(told: Told, west: Driver) -> None:
    """Plan, approve while paused, fail, reset one window, retry the others, report, undo: by the command."""
    said, command, api = told.said, told.command, west.api
    said["paused dag"] = command("plan", "--customer", GOOD, "--start", START, "--end", END)
    api.unpause(west.dag_id)
    plan = ("plan", "--customer", GOOD, "--customer", BROKEN, "--start", START, "--end", END, "--window", "10d")
    said["plan"] = command(*plan)
    west.set_worker_faults({"id": "jf", "kind": "job_fail", "customer": BROKEN})
    west.start(RUN, approve=False, customers=[GOOD, BROKEN], start_date=START, end_date=END, window="10d")
    api.wait_for_approval(west.dag_id, RUN, APPROVAL_SECONDS)
    said["asking"] = command("status", "--cluster", CLUSTER)
    said["pause"] = command("pause", "--reason", "the disk is full", "--hours", "1")
    assert said["pause"].code == 0, said
    api.approve(west.dag_id, RUN, APPROVAL_SECONDS)

    def held() -> bool:
        said["paused"] = command("status", "--cluster", CLUSTER, "--json")
        waits = [w for w in said["paused"].json["windows"] if w["reason"].startswith("paused by admin")]
        return len(waits) == len(said["paused"].json["windows"])

    wait_for(held, LOOK_SECONDS, lambda: f"every window is held back: {said['paused'].out[:500]}", poll_seconds=1)
    said["resume"] = command("resume")
    assert west.finish(RUN) == "failed"
    said["failed"] = command("status", "--cluster", CLUSTER, "--json")
    said["unasked"] = command("reset", BROKEN)
    west.set_worker_faults()
    # While the breaker is open a window that is reset alone is refused again: paused, it waits for the others.
    said["pause again"] = command("pause", "--reason", "until the others are cleared", "--hours", "1")
    said["reset"] = command("reset", BROKEN, START, "--yes")
    said["retry"] = command("retry")
    said["resume again"] = command("resume")
    assert west.finish(RUN) == "success", api.failures(west.dag_id, RUN)
    for kind in ("json", "csv", "markdown"):
        said[f"report {kind}"] = command("report", f"--{kind}")
    said["report"] = command("report")
    told.events = api.request("GET", "/assets/events", params={"source_run_id": RUN, "limit": 100})["asset_events"]
    for stage in ("admit", "verify"):
        place = f"/dags/{west.dag_id}/dagRuns/{RUN}/taskInstances/windows.{stage}/links"
        told.links[stage] = api.request("GET", place, params={"map_index": 0})["extra_links"]
    api.unpause(UNDO_DAG)
    said["undo"] = command("undo", "--run", RUN, "--customer", GOOD, "--yes", "--json")
    undo = said["undo"].json["run_id"]
    told.undo_asked = api.approve(UNDO_DAG, undo, UNDO_SECONDS)
    assert api.wait_for_run(UNDO_DAG, undo, UNDO_SECONDS) == "success", api.failures(UNDO_DAG, undo)


def test_every_command_ends_as_it_says(told: Told) -> None:
    codes = {name: ended.code for name, ended in told.said.items()}
    no = {"paused dag": 1, "failed": 1, "unasked": 2}
    assert codes == dict.fromkeys(told.said, 0) | no, told.said
    assert "is paused in Airflow" in told.said["paused dag"].err
    assert "Dry run: 8 windows of 2 customers were planned, nothing was changed." in told.said["plan"].out
    assert "the plan waits for approval" in told.said["asking"].out.lower()
    assert "Admission is paused until" in told.said["pause"].out
    assert told.said["resume"].out.strip() == "Admission goes on."


def test_an_undo_asks_with_the_totals_of_each_table_and_leaves_alone_what_was_meant_to_go(told: Told) -> None:
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in told.undo_asked["body"].splitlines()[2:]]
    totals = {table: (back, away) for label, table, back, away in rows if label == "all"}
    removed = dict.fromkeys(totals, 0)
    for window in told.said["report json"].json["windows"]:
        if window["customer"] == GOOD:
            for table, numbers in window["tables"].items():
                removed[table] += numbers["removed"]
    assert totals == {table: ("0", f"{count:,}") for table, count in removed.items()}
    assert sum(removed.values()) > 0


def test_a_command_that_gets_no_answer_says_where_it_has_asked(told: Told) -> None:
    nobody = told.command("status", AIRFLOW_API_PASSWORD="wrong-pass-word")
    assert (nobody.code, nobody.out) == (3, "")
    assert f"{told.stack.airflow_url} does not accept the login of {AIRFLOW_USER}" in nobody.err
    assert "wrong-pass-word" not in nobody.err
    lost = told.command("status", "--cluster", "sandbox-wset", "--json")
    assert (lost.code, lost.out) == (2, "")
    assert f"known: {CLUSTER}" in json.loads(lost.err)["error"]
    away = told.command("status", "--url", "http://127.0.0.1:1")
    assert (away.code, away.out) == (3, "")
    assert "http://127.0.0.1:1 cannot be reached" in away.err


def test_a_reset_clears_one_window_and_a_retry_the_others(told: Told) -> None:
    failed = [w for w in told.said["failed"].json["windows"] if w["state"] == "failed"]
    assert {w["customer"] for w in failed} == {BROKEN}
    assert len(failed) == 3, "the breaker opens after three"
    for window in failed:
        assert f"  {window['label']}\n" in told.said["unasked"].err
    assert told.said["reset"].out.startswith(f"1 window of {BROKEN} is done again")
    view = told.said["report json"].json
    assert (view["state"], view["counts"]["verified"]) == ("complete", 8)


def test_one_message_for_each_cause_over_each_channel(told: Told) -> None:
    messages = told.hook.messages
    assert Counter(m["about"] for m in messages) == {"approval": 1, "failed": 1, "breaker": 1, "finished": 2}
    assert {(m["cluster"], m["run_id"]) for m in messages} == {(CLUSTER, RUN)}
    last = [m for m in messages if m["about"] == "finished"]
    assert "NOT complete" in last[0]["subject"]
    assert "complete, 8 of 8 windows verified" in last[1]["subject"]
    removed = told.said["report json"].json["figures"]["removed"]
    for table, rows in removed.items():
        assert f"{table}: " in last[1]["text"]
        assert f"{rows:,} removed" in last[1]["text"]
    assert all(m["link"].startswith(told.stack.airflow_url) for m in messages)
    assert {sent["Authorization"] for sent in told.hook.headers} == {f"Bearer {HOOK_SECRET}"}

    assert {tuple(to) for to, _ in told.mail.mails} == {(TO,)}
    subjects = Counter(" ".join(str(mail["Subject"]).split()) for _, mail in told.mail.mails)
    assert subjects == Counter(" ".join(m["subject"].split()) for m in messages)


def test_the_collector_has_every_metric_with_its_labels(told: Told) -> None:
    seen = told.meters.metrics
    by_name: dict[str, list[dict[str, str]]] = {}
    for name, labels in seen:
        # Airflow's own metrics of a DAG have its id in their names.
        if (ours := name.removeprefix("airflow.")).startswith("scorecard_backfill."):
            by_name.setdefault(ours, []).append(labels)
    assert set(by_name) >= {f"scorecard_backfill.{name}" for name in
                            ("windows", "rows_removed", "stage_seconds", "waiting")}  # fmt: skip
    assert {labels.get("cluster") for listed in by_name.values() for labels in listed} == {CLUSTER}
    assert {labels["table"] for labels in by_name["scorecard_backfill.rows_removed"]} == {"scorecard", "score"}
    stages = {labels["stage"] for labels in by_name["scorecard_backfill.stage_seconds"]}
    assert stages >= {"admit", "wait_mutations", "wait_workflows", "verify"}


def test_each_customer_and_month_that_is_verified_is_one_event(told: Told) -> None:
    months = [(e["extra"]["customer"], e["extra"]["month"], e["extra"]["whole"])
              for e in told.events if "customer" in e["extra"]]  # fmt: skip
    # The run's first end announces the other customer, too, when all its windows came before the breaker.
    assert set(months) == {(BROKEN, "2026-01", True), (GOOD, "2026-01", True)}
    assert Counter(months)[BROKEN, "2026-01", True] == 1


def test_a_stage_that_never_ran_on_a_worker_leads_to_job_workflow_and_mutations(told: Told) -> None:
    first = told.said["report json"].json["windows"][0]
    texts = {link["kind"]: link["text"] for link in first["links"]}
    for stage, links in told.links.items():
        assert links["Backfill"].endswith(f"/runs/{RUN}/plugin/backfill"), stage
        assert links["Job"].endswith(f"/{texts['job']}"), stage
        assert links["Workflow in Temporal"].startswith("https://temporal.example.com/"), stage
        assert f"'backfill:{first['key']}:'" in unquote(links["Mutations"]), stage


def test_no_secret_is_told_or_logged(told: Told) -> None:
    secrets = [HOOK_SECRET, told.stack.airflow_password, told.stack.clickhouse_password]
    told_all = [body for _, body in (*told.hook.bodies, *told.meters.bodies)]
    told_all += [bytes(mail) for _, mail in told.mail.mails]
    logs = [path.read_bytes() for path in (told.stack.state / "airflow" / "logs").rglob("*.log")]
    assert logs
    assert told_all
    for secret in secrets:
        assert not [text for text in (*told_all, *logs) if secret.encode() in text]

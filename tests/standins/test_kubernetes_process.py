"""The server as a process: its command line, what it keeps over a restart, and that nothing survives it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from kubernetes.client.rest import ApiException

from standins.controlplane.build import PROGRAMS
from standins.kubernetes.client import CRONJOB, NAMESPACE, PROJECT, KubernetesAdmin, SandboxError, is_real
from tests.standins.kubernetes_fixtures import (
    IMAGE,
    IMAGES,
    LIMIT_SECONDS,
    ORPHANS,
    SLEEPER,
    STUBBORN,
    Kube,
    conditions,
    group_of,
    kube_in,
    unique,
    wait_for,
)

IDLE_SECONDS = 3.0
IDLE_SHARE = 0.05
"""Most of one core that an idle server may take; 0.01 was measured."""


@pytest.fixture
def kube(tmp_path: Path) -> Iterator[Kube]:
    """A server of this test's own."""
    with kube_in(tmp_path / "kubernetes") as running:
        yield running


def running_group(kube: Kube, image: str, count: int) -> int:
    """Start a Job and give the id of its process group when that has so many processes."""
    name = unique("process")
    kube.make(name, image)
    [pod] = kube.wait_phase(name, "Running")
    if image != SLEEPER:
        wait_for(lambda: "started" in kube.log(pod), "the container's first line")
    key = next(key for key in kube.sandbox.processes() if key.startswith(pod["metadata"]["uid"]))
    group = kube.sandbox.processes()[key]
    wait_for(lambda: len(group_of(group)) >= count, f"{count} processes in the group")
    return group


@pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "SIGKILL"])
def test_no_process_survives_the_server(kube: Kube, kill: bool) -> None:
    groups = [running_group(kube, *wanted) for wanted in ((SLEEPER, 1), (ORPHANS, 3), (STUBBORN, 2))]
    server = psutil.Process(kube.sandbox.pid)
    children = server.children(recursive=True)
    assert len(children) >= 5
    kube.sandbox.stop(kill)
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert len(gone) == len(children)
    assert [process for group in groups for process in group_of(group)] == []


def test_the_guard_alone_ends_all_processes_of_a_killed_server(tmp_path: Path) -> None:
    """Where there is no setpriv, the kernel tells no container of the server's death."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "sleep"):
        (programs / name).symlink_to(str(shutil.which(name)))
    with kube_in(tmp_path / "kubernetes", env={"PATH": str(programs)}) as kube:
        groups = [running_group(kube, *wanted) for wanted in ((ORPHANS, 3), (STUBBORN, 2))]
        # Those of a real control plane's programs, too.
        children = psutil.Process(kube.sandbox.pid).children(recursive=True)
        kube.sandbox.stop(kill=True)
        wait_for(lambda: not [process for group in groups for process in group_of(group)], "no process")
        _, alive = psutil.wait_procs(children, timeout=LIMIT_SECONDS)
        assert not alive


def test_the_next_start_ends_what_is_left(kube: Kube) -> None:
    """Server and guard killed: the kernel ends the containers' first processes, the next start their children."""
    group = running_group(kube, ORPHANS, 3)
    guards = [p for p in psutil.Process(kube.sandbox.pid).children() if "standins.kubernetes.guard" in p.cmdline()]
    assert guards
    for guard in guards:
        guard.kill()
    kube.sandbox.stop(kill=True)
    wait_for(lambda: len(group_of(group)) == 2, "the first process ended, its children alive")
    kube.sandbox.start()
    wait_for(lambda: not group_of(group), "no process")


def test_a_signal_to_the_servers_group_leaves_the_guard_to_do_its_work(kube: Kube) -> None:
    """A supervisor may kill the whole group of the server at once."""
    running_group(kube, ORPHANS, 3)
    server = psutil.Process(kube.sandbox.pid)
    groups = {os.getpgid(child.pid) for child in server.children(recursive=True)}
    # The guard's and the container's; those of a real control plane's programs and of their guard.
    assert len(groups) == 2 + (len(PROGRAMS) + 1 if is_real() else 0)
    assert os.getpgid(server.pid) not in groups


def test_the_next_start_goes_on_where_the_killed_one_was(kube: Kube) -> None:
    done, running = unique("done"), unique("running")
    kube.make(done)
    kube.wait_condition(done, "Complete")
    kube.make(running, SLEEPER)
    kube.wait_phase(running, "Running")
    token, url, before = kube.sandbox.token, kube.sandbox.url, kube.sandbox.requests()
    version = kube.batch.list_namespaced_job(NAMESPACE).metadata.resource_version
    kube.sandbox.restart(kill=True)
    assert (kube.sandbox.token, kube.sandbox.url) == (token, url)
    # The same client with the same token goes on.
    assert "Complete" in conditions(kube.job(done) or {})
    failed = kube.wait_condition(running, "Failed")
    assert (failed["status"]["failed"], len(kube.pods(running))) == (1, 1)
    after = kube.sandbox.requests()
    assert after[: len(before)] == before
    assert [row["id"] for row in after] == list(range(1, len(after) + 1))
    made = {row["name"]: row for row in kube.sandbox.mutations("/jobs")}
    assert set(made) == {done, running}
    assert made[done]["labels"] == {"window": done}
    assert int(kube.batch.list_namespaced_job(NAMESPACE).metadata.resource_version) > int(version)


@pytest.mark.skipif(not is_real(), reason="the stand-in's API server is one process with its node")
def test_pods_live_on_while_the_api_server_alone_is_killed(kube: Kube) -> None:
    ending, running, after = unique("ending"), unique("running"), unique("after")
    kube.make(ending, IMAGE)
    kube.make(running, SLEEPER)
    [pod] = kube.wait_phase(running, "Running")
    before = kube.sandbox.processes()
    kube.sandbox.restart_api_server()
    key = next(key for key in before if key.startswith(pod["metadata"]["uid"]))
    assert kube.sandbox.processes()[key] == before[key]
    assert [one["metadata"]["uid"] for one in kube.wait_phase(running, "Running")] == [pod["metadata"]["uid"]]
    kube.wait_condition(ending, "Complete")
    kube.make(after)
    kube.wait_condition(after, "Complete")


def test_faults_and_denials_are_forgotten_at_a_restart(kube: Kube) -> None:
    kube.sandbox.set_faults({"kind": "error", "match": {"path": "/jobs"}})
    kube.sandbox.deny({"verbs": ["list"]})
    kube.sandbox.restart()
    assert kube.sandbox.faults() == []
    assert kube.batch.list_namespaced_job(NAMESPACE).items == []


def test_every_writing_request_is_recorded_without_secrets(kube: Kube) -> None:
    name = unique("record")
    kube.core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": name}, "stringData": {"who": "swordfish"}})
    kube.make(name, env={"DB_PASSWORD": "swordfish"}, parallelism=0)
    kube.sandbox.deny({"verbs": ["patch"]})
    with pytest.raises(ApiException):
        kube.batch.patch_namespaced_job(name, NAMESPACE, {"spec": {"parallelism": 1}})
    kube.batch.delete_namespaced_job(name, NAMESPACE, propagation_policy="Background")
    rows = kube.sandbox.mutations()
    assert [(row["method"], row["name"], row["status"]) for row in rows] == [
        ("POST", name, 201),
        ("POST", name, 201),
        ("PATCH", name, 403),
        ("DELETE", name, 200),
    ]
    assert [row["labels"] for row in rows[1:]] == [{"window": name}] * 3
    assert rows[2]["body"] == {"spec": {"parallelism": 1}}
    assert rows[3]["query"] == {"propagationPolicy": "Background"}
    for file in (kube.sandbox.folder / "data" / "requests.jsonl", kube.sandbox.folder / "server.log"):
        text = file.read_text(encoding="utf-8")
        assert "swordfish" not in text
        assert kube.sandbox.token not in text


def test_files_with_the_token_are_private(kube: Kube) -> None:
    for file in (kube.sandbox.kubeconfig, kube.sandbox.folder / "data" / "token"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_kubeconfig_names_the_context(kube: Kube) -> None:
    config = yaml.safe_load(kube.sandbox.kubeconfig.read_text(encoding="utf-8"))
    assert [context["name"] for context in config["contexts"]] == [kube.sandbox.context]
    assert config["contexts"][0]["context"]["namespace"] == NAMESPACE


def test_the_admin_client_needs_only_the_address(kube: Kube) -> None:
    admin = KubernetesAdmin(kube.sandbox.url)
    last = admin.last_request_id()
    kube.job("nobody")
    [row] = admin.requests("GET", "/jobs/nobody", last)
    assert row["status"] == 404
    with pytest.raises(SandboxError, match="kubeconfig"):
        admin.patch_cronjob({})


def test_an_idle_server_takes_little(kube: Kube) -> None:
    for _ in range(30):
        kube.make(unique("finished"), ttlSecondsAfterFinished=3600)

    def all_done() -> bool:
        jobs = [kube.plain(job) for job in kube.batch.list_namespaced_job(NAMESPACE).items]
        return all("Complete" in conditions(job) for job in jobs)

    wait_for(all_done, "all Jobs complete")
    share = psutil.Process(kube.sandbox.pid).cpu_percent(IDLE_SECONDS) / 100
    assert share < IDLE_SHARE


def command(folder: Path, manifests: Path | None = None, images: object = IMAGES, port: int = 0) -> list[str]:
    """The command line as the stack starts it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "images.json"
    file.write_text(json.dumps(images), encoding="utf-8")
    argv = [sys.executable, "-m", "standins.kubernetes", "--port", str(port), "--data", str(folder / "data")]
    argv += ["--context", "sandbox-east_dev", "--kubeconfig", str(folder / "kubeconfig.yaml"), "--images", str(file)]
    return argv + (["--manifests", str(manifests)] if manifests is not None else [])


@pytest.mark.parametrize("case", ["images", "manifest", "kind"])
def test_bad_input_ends_the_start_with_its_reason(tmp_path: Path, case: str) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    text = {
        "images": "",
        "manifest": "apiVersion: batch/v1\nkind: Job\nmetadata: {name: Wrong_Name}\nspec: {template: {spec: {}}}\n",
        "kind": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n",
    }[case]
    (manifests / "one.yaml").write_text(text, encoding="utf-8")
    images = {"a": {"argv": []}} if case == "images" else IMAGES
    argv = command(tmp_path / "k", manifests, images)
    result = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    expected = {"images": "at least 1 item", "manifest": "Wrong_Name", "kind": "Deployment"}[case]
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_that_is_taken_ends_the_start(kube: Kube, tmp_path: Path) -> None:
    port = int(kube.sandbox.url.rpartition(":")[2])
    argv = command(tmp_path / "second", port=port)
    result = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "in use" in result.stderr
    assert kube.batch.read_namespaced_cron_job(CRONJOB, NAMESPACE).spec.suspend

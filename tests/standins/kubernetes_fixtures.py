"""Helpers of the Kubernetes tests: a server with small shell programs as images, the real clients, waiting."""

from __future__ import annotations

import copy
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from kubernetes import client as sync_client
from kubernetes import config as sync_config
from kubernetes.client.rest import ApiException

from standins.kubernetes.client import CRONJOB, NAMESPACE, PROJECT, KubernetesSandbox, is_real

Json = dict[str, Any]
Found = TypeVar("Found")

IMAGE = "registry.invalid/cron-batch-reindex-conversations:sandbox"
ORPHANS = "registry.invalid/leaves-children:1"
STUBBORN = "registry.invalid/ignores-term:1"
SLEEPER = "registry.invalid/sleeps:1"
BROKEN = "registry.invalid/exits-3:1"
CONTEXT = "sandbox-east_dev"
LIMIT_SECONDS = 60.0 if is_real() else 20.0
"""A real Job controller waits 10 s after the first failed pod, 20 s after the second."""
POLL_SECONDS = 0.03

HELLO = 'echo "customer=$RUN_ONLY_FOR_CUSTOMER_IDS start=$REINDEX_START_TIME from=$FROM_IMAGE pod=$POD_NAME"; echo bye'
IMAGES: Mapping[str, Any] = {
    IMAGE: {"argv": ["sh", "-c", HELLO], "env": {"FROM_IMAGE": "yes"}},
    ORPHANS: {"argv": ["sh", "-c", "sleep 300 & sleep 300 & echo started; wait"]},
    STUBBORN: {"argv": ["sh", "-c", "trap '' TERM; echo started; while :; do sleep 300; done"]},
    SLEEPER: {"argv": ["sleep", "300"]},
    BROKEN: {"argv": ["sh", "-c", "echo boom >&2; exit 3"]},
}
_numbers = itertools.count(1)


def unique(prefix: str) -> str:
    """A name that no other test of this process uses."""
    return f"{prefix}-{next(_numbers)}"


def wait_for(look: Callable[[], Found | None], what: str, limit: float = LIMIT_SECONDS) -> Found:
    """The first true answer of ``look``; fails with ``what`` when the limit (seconds) is over."""
    end = time.monotonic() + limit
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what}; last seen: {found!r}")
        time.sleep(POLL_SECONDS)


def conditions(job: Json) -> dict[str, str]:
    """The reasons of the conditions that are True, by type."""
    rows = (job.get("status") or {}).get("conditions") or []
    return {row["type"]: row["reason"] for row in rows if row["status"] == "True"}


def status_of(error: ApiException) -> Json:
    """The Status object of a refusal."""
    body: Json = json.loads(error.body)
    return body


@dataclass
class Kube:
    """A running server and the official blocking client; objects are plain dicts as in the API."""

    sandbox: KubernetesSandbox

    def __post_init__(self) -> None:
        self.reconnect()

    def reconnect(self) -> None:
        """Read the kubeconfig again (after a new token)."""
        self.api = sync_config.new_client_from_config(str(self.sandbox.kubeconfig), context=CONTEXT)
        self.batch = sync_client.BatchV1Api(self.api)
        self.core = sync_client.CoreV1Api(self.api)

    def close(self) -> None:
        """Close the client's connections."""
        self.api.rest_client.pool_manager.clear()

    def plain(self, obj: object) -> Json:
        """A model object as JSON."""
        result: Json = self.api.sanitize_for_serialization(obj)
        return result

    def template(self) -> Json:
        """The jobTemplate's spec of the CronJob."""
        spec: Json = self.plain(self.batch.read_namespaced_cron_job(CRONJOB, NAMESPACE))["spec"]["jobTemplate"]["spec"]
        return spec

    def manifest(
        self,
        name: str,
        image: str = IMAGE,
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> Json:
        """A Job made from the CronJob's template, as the package makes it; ``spec`` replaces fields of its spec."""
        job_spec = copy.deepcopy(self.template()) | {"backoffLimit": 0} | spec
        container = job_spec["template"]["spec"]["containers"][0]
        container["image"] = image
        container["env"] += [{"name": key, "value": value} for key, value in (env or {}).items()]
        meta = {"name": name, "labels": dict(labels or {"window": name})}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": job_spec}

    def create(self, manifest: Json) -> Json:
        """Store a Job."""
        return self.plain(self.batch.create_namespaced_job(NAMESPACE, manifest))

    def make(self, name: str, image: str = IMAGE, **more: Any) -> Json:
        """``create`` of a ``manifest``."""
        return self.create(self.manifest(name, image, **more))

    def job(self, name: str) -> Json | None:
        """The Job, or None."""
        try:
            return self.plain(self.batch.read_namespaced_job(name, NAMESPACE))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def pods(self, name: str) -> list[Json]:
        """The pods of a Job by their label."""
        found = self.core.list_namespaced_pod(NAMESPACE, label_selector=f"job-name={name}")
        return [self.plain(pod) for pod in found.items]

    def log(self, pod: Json, **query: Any) -> str:
        """A pod's log. (The client's own conversion to a text gives ``b'...'`` in version 36.)"""
        answer = self.core.read_namespaced_pod_log(pod["metadata"]["name"], NAMESPACE, _preload_content=False, **query)
        text: str = answer.data.decode()
        return text

    def wait_condition(self, name: str, kind: str) -> Json:
        """The Job when it has this condition."""

        def look() -> Json | None:
            job = self.job(name)
            return job if job is not None and kind in conditions(job) else None

        return wait_for(look, f"condition {kind} of Job {name}")

    def wait_phase(self, name: str, phase: str, count: int = 1) -> list[Json]:
        """The pods of a Job in this phase when there are ``count``."""

        def look() -> list[Json] | None:
            found = [pod for pod in self.pods(name) if pod["status"]["phase"] == phase]
            return found if len(found) == count else None

        return wait_for(look, f"{count} pods of Job {name} in phase {phase}")

    def wait_gone(self, name: str) -> None:
        """Wait until neither the Job nor a pod of it exists."""
        wait_for(lambda: self.job(name) is None and not self.pods(name), f"Job {name} and its pods gone")


@contextmanager
def kube_in(folder: Path, images: Mapping[str, Any] = IMAGES, **settings: Any) -> Iterator[Kube]:
    """A server of its own in a folder, ended with the block in any case."""
    sandbox = KubernetesSandbox(folder, images, CONTEXT, **settings)
    sandbox.start()
    try:
        kube = Kube(sandbox)
        try:
            yield kube
        finally:
            kube.close()
    finally:
        sandbox.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """One server for the tests of a module; a test takes names of its own."""
    with kube_in(tmp_path_factory.mktemp("kubernetes")) as running:
        yield running


@pytest.fixture
def kube(server: Kube) -> Iterator[Kube]:
    """The same, without fault and deny rules after the test."""
    yield server
    server.sandbox.clear_faults()
    server.sandbox.deny()


def group_of(pid: int) -> list[psutil.Process]:
    """All processes of a group that are not zombies."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def connection(kube: Kube) -> str:
    """An Airflow connection to the server, as JSON."""
    extra = {"kube_config_path": str(kube.sandbox.kubeconfig), "cluster_context": CONTEXT}
    return json.dumps({"conn_type": "kubernetes", "extra": extra})


def run_airflow(kube: Kube, home: Path, script: str, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a script with Airflow and a connection ``kube`` to the server; its home is new."""
    env = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    env |= {
        "HOME": str(home),
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__LAZY_LOAD_PLUGINS": "True",
        "AIRFLOW_CONN_KUBE": connection(kube),
        "PYTHONPATH": str(PROJECT),
        **extra,
    }
    argv = [sys.executable, "-c", script, *arguments]
    return subprocess.run(argv, cwd=home, env=env, capture_output=True, text=True, timeout=100, check=False)

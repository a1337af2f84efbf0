"""The compose files cannot be started here; what can be read from them is checked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
AIRFLOW = ("init", "api-server", "scheduler", "scheduler-2", "dag-processor", "triggerer", "triggerer-2", "worker")
WITH_CONNECTIONS = {"scheduler", "scheduler-2", "triggerer", "triggerer-2", "worker"}
STACK_TEXT = (ROOT / "docker-compose.stack.yaml").read_text()
STACK: dict[str, Any] = yaml.safe_load(STACK_TEXT)
ADDED: dict[str, dict[str, Any]] = {k: v for k, v in STACK["services"].items() if k not in SERVICES}
ONE_SHOT = {"seed", "kubeconfig"}
REFERENCE = re.compile(r"(?<!\$)\$\{([A-Z_]+)([^}]*)\}")
SECRET = re.compile(r"PASSWORD|SECRET|KEY|TOKEN")


def environment_file() -> dict[str, str]:
    """Return the variables of .env.example that are not commented out."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_services_are_there() -> None:
    assert set(SERVICES) == {"postgres", "redis", *AIRFLOW}
    assert {name for name, one in SERVICES.items() if one.get("profiles")} == {
        "redis", "worker", "scheduler-2", "triggerer-2"
    }  # fmt: skip


def test_every_secret_is_required_and_has_no_default() -> None:
    references = REFERENCE.findall(TEXT + STACK_TEXT)
    secrets = {name: rest for name, rest in references if SECRET.search(name)}
    assert secrets
    assert {name: rest for name, rest in secrets.items() if rest != ":?set it in .env"} == {}


def test_env_example_names_every_required_variable_and_holds_no_value() -> None:
    required = {name for name, rest in REFERENCE.findall(TEXT) if rest.startswith(":?")}
    assert set(environment_file()) == required
    assert set(environment_file().values()) == {""}
    of_the_stack = {name for name, rest in REFERENCE.findall(STACK_TEXT) if rest.startswith(":?")}
    assert of_the_stack
    assert all(f"# {name}=\n" in (ROOT / ".env.example").read_text() for name in of_the_stack)


def test_no_secret_is_written_in_the_file() -> None:
    for service in (*SERVICES.values(), *STACK["services"].values()):
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name) and not name.endswith("_FILE"):
                assert REFERENCE.fullmatch(value), name


def test_env_is_ignored_by_git() -> None:
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", [name for name in AIRFLOW if name != "init"])
def test_our_folders_are_mounted_read_only_where_they_are_imported_from(name: str) -> None:
    service = SERVICES[name]
    mounts = [volume.split(":") for volume in service["volumes"]]
    ours = {source: (target, mode) for source, target, *mode in mounts if source.startswith("./")}
    assert ours == {f"./{folder}": (f"/opt/airflow/{folder}", ["ro"]) for folder in ("dags", "plugins", "include")}
    assert service["environment"]["PYTHONPATH"] == "/opt/airflow"
    for source in ours:
        assert (ROOT / source).is_dir()


def test_only_what_talks_to_clusters_has_the_connections() -> None:
    assert {name for name in SERVICES if "env_file" in SERVICES[name]} == WITH_CONNECTIONS


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "init"])
def test_every_lasting_service_has_a_health_check(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert set(check) == {"test", "interval", "timeout", "retries", "start_period"}
    assert check["test"][0] in ("CMD", "CMD-SHELL")


def test_everything_waits_for_the_database_schema() -> None:
    for name in AIRFLOW:
        assert SERVICES[name]["depends_on"]["postgres"] == {"condition": "service_healthy"}
        if name != "init":
            assert SERVICES[name]["depends_on"]["init"] == {"condition": "service_completed_successfully"}


def test_ports_are_open_on_this_machine_only() -> None:
    ports = [port for service in (*SERVICES.values(), *ADDED.values()) for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_image_has_the_pinned_version_of_airflow() -> None:
    pin = re.search(r"^apache-airflow==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pin
    assert f"FROM apache/airflow:{pin[1]}-python3.11\n" in (ROOT / "Dockerfile").read_text()
    assert {SERVICES[name]["image"] for name in AIRFLOW} == {f"scorecard-backfill-airflow:{pin[1]}"}


# docker-compose.stack.yaml


def mounts(service: dict[str, Any]) -> list[list[str]]:
    return [volume.split(":") for volume in service.get("volumes", [])]


@pytest.mark.parametrize("name", sorted(ADDED))
def test_every_service_of_the_stack_is_pinned_and_checked(name: str) -> None:
    service = ADDED[name]
    assert re.search(r":v?\d+(\.\d+)*[\w.-]*$", service["image"]), service["image"]
    if name in ONE_SHOT:
        assert "restart" not in service
    else:
        assert set(service["healthcheck"]) == {"test", "interval", "timeout", "retries", "start_period"}


@pytest.mark.parametrize("name", sorted(STACK["services"]))
def test_every_path_of_the_stack_is_there_and_every_volume_declared(name: str) -> None:
    for source, *_ in mounts(STACK["services"][name]):
        if source.startswith("./.sandbox/"):
            assert f"{source.removeprefix('./').split('/')[0]}/" in (ROOT / ".gitignore").read_text()
        elif source.startswith("./"):
            assert (ROOT / source).exists(), source
        else:
            assert source in {**COMPOSE["volumes"], **STACK["volumes"]}, source


def test_every_dependency_is_a_service_that_can_be_waited_for() -> None:
    for name, service in STACK["services"].items():
        for other, wish in service.get("depends_on", {}).items():
            there = ADDED.get(other) or SERVICES[other]
            if wish["condition"] == "service_healthy":
                assert "healthcheck" in there, (name, other)
            else:
                assert other in ONE_SHOT, (name, other)


def test_build_files_are_there_and_what_they_copy_is_sent() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for service in (*SERVICES.values(), *ADDED.values()):
        build = service.get("build")
        if build is None:
            continue
        file = ROOT / (build["dockerfile"] if isinstance(build, dict) else "Dockerfile")
        for line in re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", file.read_text(), re.MULTILINE):
            for source in line.split():
                assert (ROOT / source).exists(), source
                assert f"!{source.rstrip('/')}" in ignored, source


def test_the_three_shards_and_keeper_are_the_services() -> None:
    cluster = (ROOT / "deploy/compose/clickhouse/cluster.xml").read_text()
    hosts = re.findall(r"<host>(clickhouse-\d)</host>", cluster)
    assert hosts == sorted(name for name in ADDED if name.startswith("clickhouse-"))
    assert "<host>keeper</host><port>9181</port>" in cluster
    assert "<conversations>" in cluster
    assert [ADDED[host]["environment"]["SHARD"] for host in hosts] == ["1", "2", "3"]
    assert ElementTree.fromstring(cluster).tag == "clickhouse"
    assert ElementTree.parse(ROOT / "deploy/compose/clickhouse/keeper.xml").getroot().tag == "clickhouse"


def test_connections_and_cluster_file_of_the_stack_fit_each_other() -> None:
    from include.scorecard_backfill.config.load import load_clusters

    (cluster,) = load_clusters(ROOT / "deploy/compose/clusters")
    environment = STACK["services"]["triggerer"]["environment"]
    made = {name.removeprefix("AIRFLOW_CONN_").lower(): json.loads(value) for name, value in environment.items()
            if name.startswith("AIRFLOW_CONN_")}  # fmt: skip
    assert set(made) == {cluster.clickhouse.conn_id, cluster.kubernetes.conn_id, cluster.temporal.conn_id}  # type: ignore[union-attr]
    assert made["kubernetes_sandbox_east"]["extra"]["cluster_context"] == cluster.kubernetes.context  # type: ignore[union-attr]
    address = ADDED["temporal"]["networks"]["default"]["ipv4_address"]
    cronjob = (ROOT / "deploy/compose/k3s/cronjob.yaml").read_text()
    assert f"value: {address}:7233" in cronjob
    assert ADDED["seed"]["image"] in cronjob
    assert {STACK["services"][name]["environment"]["SCORECARD_BACKFILL_CLUSTERS"] for name in WITH_CONNECTIONS} == {
        "/opt/airflow/clusters"
    }


def test_the_cronjob_of_the_stack_is_what_kubernetes_takes() -> None:
    documents = list(yaml.safe_load_all((ROOT / "deploy/compose/k3s/cronjob.yaml").read_text()))
    for document in [*documents, *yaml.safe_load_all((ROOT / "deploy/kubernetes/role.yaml").read_text())]:
        kubernetes_validate.validate(document, "1.34", strict=True)
    (cronjob,) = [document for document in documents if document["kind"] == "CronJob"]
    names = {one["name"] for one in cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert not names & {"REINDEX_START_TIME", "REINDEX_END_TIME", "RUN_ONLY_FOR_CUSTOMER_IDS"}

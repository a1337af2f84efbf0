"""Files under deploy/: what Kubernetes and the connections' names say about them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import CLUSTERS_FOLDER, load_clusters

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
VALUES: dict[str, Any] = yaml.safe_load((DEPLOY / "helm" / "values.yaml").read_text())
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
AIRFLOW = re.search(r"^apache-airflow==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))


@pytest.mark.parametrize("name", sorted(path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")))
def test_manifests_are_what_kubernetes_takes(name: str) -> None:
    assert documents(name)
    for document in documents(name):
        kubernetes_validate.validate(document, "1.34", strict=True)


def test_the_role_is_bound_to_the_service_accounts_of_worker_and_triggerer() -> None:
    (binding,) = [one for one in documents("role.yaml") if one["kind"] == "RoleBinding"]
    bound = {subject["name"] for subject in binding["subjects"]}
    assert bound == {VALUES[part]["serviceAccount"]["name"] for part in ("workers", "triggerer")}
    (role,) = [one for one in documents("role.yaml") if one["kind"] == "Role"]
    config = ClusterConfig(name="demo").kubernetes
    assert role["metadata"]["namespace"] == config.namespace
    assert role["rules"][0]["resourceNames"] == [config.cronjob]
    assert not any("*" in rule["verbs"] + rule["resources"] for rule in role["rules"])


def test_a_pod_waits_long_enough_for_its_imports() -> None:
    (pod,) = documents("pod-template.yaml")
    (container,) = pod["spec"]["containers"]
    assert container["name"] == "base"
    assert {one["name"]: one["value"] for one in container["env"]} == {
        one["name"]: one["value"] for one in VALUES["env"]
    }
    assert container["resources"] == VALUES["workers"]["resources"]
    assert pod["spec"]["serviceAccountName"] == VALUES["workers"]["serviceAccount"]["name"]
    assert container["envFrom"] == yaml.safe_load(VALUES["extraEnvFrom"])


def test_compose_and_chart_set_what_the_page_of_settings_says() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["x-airflow"]["environment"]
    chart = {one["name"]: one["value"] for one in VALUES["env"]}
    page = (ROOT / "docs" / "deploy" / "settings.md").read_text()
    here = {cells[1].strip(): cells[3].strip() for line in page.splitlines() if len(cells := line.split("|")) > 5}
    assert compose["MALLOC_ARENA_MAX"] == chart["MALLOC_ARENA_MAX"] == here["`MALLOC_ARENA_MAX` (environment, glibc)"]
    for section, key in (
        ("triggerer", "capacity"),
        ("triggerer", "max_trigger_to_select_per_loop"),
        ("scheduler", "scheduler_idle_sleep_time"),
        ("dag_processor", "min_file_process_interval"),
    ):
        said = here[f"`[{section}] {key}`"]
        assert compose[f"AIRFLOW__{section}__{key}".upper()] == str(VALUES["config"][section][key]) == said


def test_versions_are_those_of_the_project() -> None:
    assert AIRFLOW
    assert VALUES["airflowVersion"] == VALUES["defaultAirflowTag"] == AIRFLOW[1]
    assert VALUES["images"]["airflow"]["tag"] == VERSION
    dockerfile = (DEPLOY / "helm" / "Dockerfile").read_text()
    assert f"FROM apache/airflow:{AIRFLOW[1]}-" in dockerfile
    assert set(re.findall(r"scorecard_backfill-([\d.]+)-py3", dockerfile)) == {VERSION}
    minor = AIRFLOW[1].rpartition(".")[0]
    assert f"runtime:{minor}-" in (DEPLOY / "astro" / "Dockerfile").read_text()


def test_astros_connections_are_those_of_a_cluster_file_and_hold_no_password() -> None:
    settings = yaml.safe_load((DEPLOY / "astro" / "airflow_settings.yaml").read_text())["airflow"]
    assert set(settings) == {"connections", "pools", "variables"}
    (cluster,) = [one for one in load_clusters(CLUSTERS_FOLDER) if one.name == "us-west-2-prod"]
    assert isinstance(cluster, ClusterConfig)
    made = {one["conn_id"]: one for one in settings["connections"]}
    assert set(made) == {cluster.clickhouse.conn_id, cluster.kubernetes.conn_id, cluster.temporal.conn_id}
    assert made[cluster.kubernetes.conn_id]["conn_extra"]["cluster_context"] == cluster.kubernetes.context
    assert not any("conn_password" in one for one in settings["connections"])

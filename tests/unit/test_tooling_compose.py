"""docker-compose.yaml cannot be started here; what can be read from it is checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
AIRFLOW = ("init", "api-server", "scheduler", "dag-processor", "triggerer")
REFERENCE = re.compile(r"(?<!\$)\$\{([A-Z_]+)([^}]*)\}")
SECRET = re.compile(r"PASSWORD|SECRET|KEY|TOKEN")


def environment_file() -> dict[str, str]:
    """Return the variables of .env.example that are not commented out."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_services_are_there() -> None:
    assert set(SERVICES) == {"postgres", *AIRFLOW}


def test_every_secret_is_required_and_has_no_default() -> None:
    references = REFERENCE.findall(TEXT)
    secrets = {name: rest for name, rest in references if SECRET.search(name)}
    assert secrets
    assert {name: rest for name, rest in secrets.items() if rest != ":?set it in .env"} == {}


def test_env_example_names_every_required_variable_and_holds_no_value() -> None:
    required = {name for name, rest in REFERENCE.findall(TEXT) if rest.startswith(":?")}
    assert set(environment_file()) == required
    assert set(environment_file().values()) == {""}


def test_no_secret_is_written_in_the_file() -> None:
    for service in SERVICES.values():
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
    assert {name for name in SERVICES if "env_file" in SERVICES[name]} == {"scheduler", "triggerer"}


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
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_image_has_the_pinned_version_of_airflow() -> None:
    pin = re.search(r"^apache-airflow==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pin
    assert f"FROM apache/airflow:{pin[1]}-python3.11\n" in (ROOT / "Dockerfile").read_text()
    assert {SERVICES[name]["image"] for name in AIRFLOW} == {f"scorecard-backfill-airflow:{pin[1]}"}

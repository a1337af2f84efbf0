"""Airflow of the sandbox: its environment and the command of each of its four components.

The components are those of `airflow standalone`, but as parts of their own: standalone does not start a
component again that was killed, and the killing tests need exactly that.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from sandbox.stack_model import AIRFLOW_USER, CLICKHOUSE_USER, TEMPORAL_NAMESPACE, Cluster

ROOT = Path(__file__).resolve().parent.parent
CLUSTER_FILES = ROOT / "sandbox" / "clusters"
COMPONENTS: dict[str, tuple[str, ...]] = {
    # Without --skip-serve-logs scheduler and triggerer would offer the logs on all interfaces; the API server
    # reads them from the same folder anyway.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "api-server": ("api-server",),
}
# A second one, not started by default: take-over of triggers is tried with it.
SPARE_COMPONENTS: dict[str, tuple[str, ...]] = {"triggerer-2": ("triggerer", "--skip-serve-logs")}


def airflow_command(*arguments: str) -> tuple[str, ...]:
    """Return the argument list of an `airflow` command with this interpreter."""
    return (sys.executable, "-m", "airflow", *arguments)


def database_path(home: Path) -> Path:
    """Return the path of the SQLite metadata database."""
    return home / "airflow.db"


def airflow_env(home: Path, port: int) -> dict[str, str]:
    """Return Airflow's settings as environment variables; secrets in it are new at each call.

    Times are short because the sandbox's work is short: with the defaults a run would mostly wait for the
    next look.
    """
    url = f"http://127.0.0.1:{port}"
    return {
        "AIRFLOW_HOME": str(home),
        # Each thread's own heap keeps what its largest message has taken (docs/deploy/settings.md).
        "MALLOC_ARENA_MAX": "2",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{AIRFLOW_USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        # sqlite3 gives up after 5 s by default. Another process may hold the lock for longer on a busy machine, and
        # what cannot write then ends: the scheduler, the DAG processor, a request of the API.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{database_path(home)}?timeout=60",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        # A supervisor whose task has ended stays until its next heartbeat, by default 5 s: a trigger that fires within
        # them may meet a scheduler that has not yet handled the deferral (ADR 4).
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
        "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "64",
        # What a killed worker or scheduler leaves is found within half a minute.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
        # More lines than are read meanwhile stop a triggerer (docs/deploy/settings.md).
        "AIRFLOW__TRIGGERER__MAX_TRIGGER_TO_SELECT_PER_LOOP": "8",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    }


def connection_env(clusters: Sequence[Cluster], temporal_address: str, password: str) -> dict[str, str]:
    """Return AIRFLOW_CONN_* for every cluster; the ClickHouse password is nowhere but in these variables."""
    env: dict[str, str] = {}
    host, port = temporal_address.split(":")
    for cluster in clusters:
        suffix = cluster.name.replace("-", "_").upper()
        records: dict[str, dict[str, object]] = {
            "CLICKHOUSE": {
                "conn_type": "clickhouse",
                "host": "127.0.0.1",
                "port": cluster.nodes[0].port,
                "login": CLICKHOUSE_USER,
                "password": password,
                "schema": "default",
                "extra": {"secure": False},
            },
            "KUBERNETES": {
                "conn_type": "kubernetes",
                "extra": {
                    "kube_config_path": str(cluster.kubeconfig),
                    "cluster_context": cluster.kube_context,
                },
            },
            "TEMPORAL": {
                "conn_type": "temporal",
                "host": host,
                "port": int(port),
                "extra": {"namespace": TEMPORAL_NAMESPACE},
            },
        }
        env |= {f"AIRFLOW_CONN_{kind}_{suffix}": json.dumps(record) for kind, record in records.items()}
    return env

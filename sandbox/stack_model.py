"""Records of a running sandbox: what tests, the demo and the benchmarks get to know about it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CLICKHOUSE_CLUSTER = "conversations"
CLICKHOUSE_USER = "admin"
TEMPORAL_NAMESPACE = "ingestion"
AIRFLOW_USER = "admin"
# One environment variable marks every process that belongs to a stack, whatever its parent or process group.
TOKEN_VARIABLE = "SANDBOX_STACK_TOKEN"

# name -> (shard, replica) of each node, in the order of their ports.
TOPOLOGIES: dict[str, tuple[tuple[int, int], ...]] = {
    "sandbox-east": ((1, 1), (1, 2), (2, 1), (2, 2)),
    "sandbox-west": ((1, 1), (2, 1), (3, 1)),
}


@dataclass(frozen=True)
class Node:
    """One ClickHouse node; shard and replica count from 1."""

    name: str
    shard: int
    replica: int
    port: int

    @property
    def url(self) -> str:
        """HTTP address of the node."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Cluster:
    """One sandbox cluster and where its parts are. `faults` is the faults file of reindex worker and Job."""

    name: str
    nodes: tuple[Node, ...]
    kubernetes_port: int
    kubeconfig: Path
    source: Path
    truth: Path
    faults: Path

    @property
    def short(self) -> str:
        """The name without `sandbox-`, as the command line takes it."""
        return self.name.removeprefix("sandbox-")

    @property
    def dag_id(self) -> str:
        """Id of the DAG that drives this cluster."""
        return f"scorecard_backfill__{self.name}"

    @property
    def kube_context(self) -> str:
        """Context in the kubeconfig, named as in production: `<cluster>_dev`."""
        return f"{self.name}_dev"

    @property
    def kubernetes_url(self) -> str:
        """Address of the Kubernetes API server."""
        return f"http://127.0.0.1:{self.kubernetes_port}"

    @property
    def clickhouse_url(self) -> str:
        """Address of the first node; every node answers for the whole cluster."""
        return self.nodes[0].url


@dataclass(frozen=True)
class Stack:
    """A running sandbox. `control` is the supervisor's endpoint, `credentials` a file of mode 0600.

    airflow_url is empty in a stack without Airflow.
    """

    state: Path
    pid: int
    airflow_url: str
    temporal_address: str
    clusters: tuple[Cluster, ...]
    control: str
    credentials: Path
    airflow_password: str = field(repr=False)
    clickhouse_password: str = field(repr=False)

    @property
    def logs(self) -> Path:
        """Folder with one log per part."""
        return self.state / "logs"

    def cluster(self, name: str) -> Cluster:
        """Return a cluster by full or short name; raises KeyError that lists the known ones."""
        for cluster in self.clusters:
            if name in (cluster.name, cluster.short):
                return cluster
        raise KeyError(f"no cluster {name!r} in this stack; it has {[c.name for c in self.clusters]}")

    def save(self) -> Path:
        """Write stack.json (mode 0600, no passwords) and the credentials file; return the path of the first."""
        secret = {
            "airflow": {"username": AIRFLOW_USER, "password": self.airflow_password},
            "clickhouse": {"username": CLICKHOUSE_USER, "password": self.clickhouse_password},
        }
        write_private(self.credentials, json.dumps(secret, indent=2))
        public: dict[str, Any] = asdict(self)
        del public["airflow_password"], public["clickhouse_password"]
        path = self.state / "stack.json"
        write_private(path, json.dumps(public, indent=2, default=str))
        return path

    @classmethod
    def load(cls, state: Path) -> Stack:
        """Read what `save` wrote; raises FileNotFoundError when no stack runs over this folder."""
        path = state / "stack.json"
        if not path.exists():
            raise FileNotFoundError(f"{path}: no sandbox runs over this state folder; start one with `make up`")
        raw = json.loads(path.read_text())
        secret = json.loads(Path(raw["credentials"]).read_text())
        return cls(
            state=Path(raw["state"]),
            pid=raw["pid"],
            airflow_url=raw["airflow_url"],
            temporal_address=raw["temporal_address"],
            clusters=tuple(_cluster(item) for item in raw["clusters"]),
            control=raw["control"],
            credentials=Path(raw["credentials"]),
            airflow_password=secret["airflow"]["password"],
            clickhouse_password=secret["clickhouse"]["password"],
        )


def _cluster(raw: dict[str, Any]) -> Cluster:
    return Cluster(
        name=raw["name"],
        nodes=tuple(Node(**node) for node in raw["nodes"]),
        kubernetes_port=raw["kubernetes_port"],
        kubeconfig=Path(raw["kubeconfig"]),
        source=Path(raw["source"]),
        truth=Path(raw["truth"]),
        faults=Path(raw["faults"]),
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read (mode 0600 from its first byte on)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)

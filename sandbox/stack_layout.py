"""Lay out a sandbox below its state folder: ports, files, and the list of parts with their commands."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.stack_airflow import (
    CLUSTER_FILES,
    COMPONENTS,
    ROOT,
    SPARE_COMPONENTS,
    airflow_command,
    airflow_env,
    connection_env,
)
from sandbox.stack_model import (
    AIRFLOW_USER,
    CLICKHOUSE_CLUSTER,
    TEMPORAL_NAMESPACE,
    TOKEN_VARIABLE,
    TOPOLOGIES,
    Cluster,
    Node,
    write_private,
)
from sandbox.stack_supervisor import Part
from sandbox.stack_variants import (
    DOUBLED,
    WORKER_ENV,
    WORKERS,
    Services,
    Variant,
    kubernetes_module,
    worker_commands,
)
from sandbox.stack_wait import ports_from
from standins.ports import free_ports

# From the caller's environment only what a program needs to start; an AIRFLOW__ or AIRFLOW_CONN_ variable of
# the user's shell must not change what is tried here.
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "USER",
    "VIRTUAL_ENV",
    "KUBEBUILDER_ASSETS",
    "CONTROLPLANE_CACHE",
)
JOB_IMAGE = "registry.invalid/cron-batch-reindex-conversations:sandbox"


@dataclass(frozen=True)
class Options:
    """What may be chosen for a stack.

    clusters: full names. port_base: first port, None = any free ones. seed and data_arguments go to the data
    generator, by cluster; worker_env to the Temporal workers (their limits, see sandbox/reindexer/worker.py).
    airflow False leaves Airflow out, for tests that only need the stand-ins. variant: real parts in their place.
    dag_ids: what must be loaded before Airflow counts as ready, None = the DAG of each cluster.
    """

    clusters: tuple[str, ...] = tuple(TOPOLOGIES)
    port_base: int | None = None
    seed: int = 1
    data_arguments: Mapping[str, tuple[str, ...]] | None = None
    worker_env: Mapping[str, str] | None = None
    extra_env: Mapping[str, str] | None = None
    airflow: bool = True
    dag_ids: tuple[str, ...] | None = None
    variant: Variant = field(default_factory=Variant)

    def __post_init__(self) -> None:
        for name in self.clusters:
            if name not in TOPOLOGIES:
                raise ValueError(f"unknown sandbox cluster {name!r}; known: {', '.join(TOPOLOGIES)}")
        if not self.clusters or len(set(self.clusters)) != len(self.clusters):
            raise ValueError(f"clusters {list(self.clusters)} must name at least one, and each once")


def cluster_names(text: str) -> tuple[str, ...]:
    """Turn `east,west` (or full names) into full names; unknown ones are refused by Options."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    return tuple(word if word.startswith("sandbox-") else f"sandbox-{word}" for word in words)


@dataclass(frozen=True)
class Layout:
    """Everything about a stack that is known before its first process starts."""

    state: Path
    options: Options
    token: str
    airflow_port: int
    temporal_port: int
    clusters: tuple[Cluster, ...]
    airflow_password: str
    clickhouse_password: str
    services: Services

    @property
    def logs(self) -> Path:
        """Folder with one log per part."""
        return self.state / "logs"

    @property
    def airflow_home(self) -> Path:
        """AIRFLOW_HOME."""
        return self.state / "airflow"

    @property
    def airflow_url(self) -> str:
        """Address of UI and REST API."""
        return f"http://127.0.0.1:{self.airflow_port}"

    @property
    def temporal_address(self) -> str:
        """host:port of the Temporal frontend."""
        return f"127.0.0.1:{self.temporal_port}"

    def base_env(self) -> dict[str, str]:
        """Environment of every process of the stack."""
        env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return env | {
            TOKEN_VARIABLE: self.token,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            # Airflow's workers rename themselves; setproctitle would write the name over the environment in
            # /proc, and the sweep (stack_lock) could not see the token there.
            "SPT_NOENV": "1",
            "SANDBOX_CLICKHOUSE_PASSWORD": self.clickhouse_password,
            # Everything is on this machine; a proxy of the caller's network must not see it.
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            **(self.options.extra_env or {}),
        }


def make_layout(state: Path, options: Options, token: str) -> Layout:
    """Choose ports and names; raises OSError when a port of `port_base` is taken."""
    state = state.resolve()
    count = 4 + sum(len(TOPOLOGIES[name]) + 1 for name in options.clusters)
    ports = free_ports(count) if options.port_base is None else ports_from(options.port_base, count)
    supply = iter(ports)
    airflow_port, temporal_port = next(supply), next(supply)
    return Layout(
        state=state,
        options=options,
        token=token,
        airflow_port=airflow_port,
        temporal_port=temporal_port,
        clusters=tuple(_cluster(name, state, supply) for name in options.clusters),
        airflow_password=secrets.token_urlsafe(12),
        clickhouse_password=secrets.token_urlsafe(12),
        services=Services(state, next(supply), next(supply)),
    )


def _cluster(name: str, state: Path, ports: Iterator[int]) -> Cluster:
    short = name.removeprefix("sandbox-")
    nodes = tuple(
        Node(f"ch-{short}-{shard - 1}-{replica - 1}", shard, replica, next(ports))
        for shard, replica in TOPOLOGIES[name]
    )
    return Cluster(
        name=name,
        nodes=nodes,
        kubernetes_port=next(ports),
        kubeconfig=state / "kubernetes" / name / "kubeconfig.yaml",
        source=state / "source" / f"{name}.sqlite",
        truth=state / "truth" / f"{name}.json",
        faults=state / "faults" / f"{name}.json",
    )


def write_files(layout: Layout) -> None:
    """Write topologies, images files and Airflow's password file, and make the folders."""
    for folder in (layout.logs, layout.airflow_home, layout.state / "source", layout.state / "faults"):
        folder.mkdir(parents=True, exist_ok=True)
    passwords = json.dumps({AIRFLOW_USER: layout.airflow_password})
    write_private(layout.airflow_home / "passwords.json", passwords)
    for cluster in layout.clusters:
        topology = {
            "cluster": CLICKHOUSE_CLUSTER,
            "nodes": [
                {"name": n.name, "shard": n.shard, "replica": n.replica, "host": "127.0.0.1", "port": n.port}
                for n in cluster.nodes
            ],
        }
        write_private(_topology_file(layout, cluster), json.dumps(topology, indent=2))
        write_private(_images_file(layout, cluster), json.dumps(_images(layout, cluster), indent=2))


def _topology_file(layout: Layout, cluster: Cluster) -> Path:
    return layout.state / "clickhouse" / f"{cluster.name}.json"


def _images_file(layout: Layout, cluster: Cluster) -> Path:
    return layout.state / "kubernetes" / cluster.name / "images.json"


def _images(layout: Layout, cluster: Cluster) -> dict[str, object]:
    env = {
        TOKEN_VARIABLE: layout.token,
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1,localhost",
        "TEMPORAL_ADDRESS": layout.temporal_address,
        "TEMPORAL_NAMESPACE": TEMPORAL_NAMESPACE,
        "SANDBOX_CLUSTER": cluster.name,
        "SANDBOX_SOURCE": str(cluster.source),
        "SANDBOX_TEMPORAL_FAULTS": str(cluster.faults),
    }
    return {JOB_IMAGE: {"argv": [sys.executable, "-m", "sandbox.reindex_job"], "env": env, "cwd": str(ROOT)}}


def airflow_process_env(layout: Layout) -> dict[str, str]:
    """Environment of Airflow's processes: base, settings, connections and our cluster files."""
    return {
        **layout.base_env(),
        **airflow_env(layout.airflow_home, layout.airflow_port),
        **connection_env(layout.clusters, layout.temporal_address, layout.clickhouse_password),
        "SCORECARD_BACKFILL_CLUSTERS": str(CLUSTER_FILES),
        **layout.services.environment(layout.options.variant),
        **(layout.options.extra_env or {}),
    }


def parts(layout: Layout, airflow: Mapping[str, str]) -> list[Part]:
    """Return every part that can be started, including the spare triggerer.

    `airflow` is Airflow's environment.
    """
    base = layout.base_env()
    listed = [_part(layout, "temporal", _python("standins.temporal.server", *_temporal_arguments(layout)), base)]
    for cluster in layout.clusters:
        listed += _cluster_parts(layout, cluster, base)
    if layout.options.airflow:
        for name, arguments in (components(layout) | SPARE_COMPONENTS).items():
            env = {**airflow, **WORKER_ENV} if name in WORKERS else airflow
            listed.append(_part(layout, name, airflow_command(*arguments), env))
    return listed


def service_parts(layout: Layout) -> list[Part]:
    """Return the parts that Airflow's components need: none, PostgreSQL, or PostgreSQL and Redis."""
    variant, services, listed = layout.options.variant, layout.services, []
    if layout.options.airflow and variant.database == "postgres":
        listed.append(_part(layout, "postgres", services.database_command(), layout.base_env()))
    if layout.options.airflow and variant.executor == "celery":
        listed.append(_part(layout, "redis", services.broker_command(), layout.base_env()))
    return listed


def components(layout: Layout) -> dict[str, tuple[str, ...]]:
    """Return the Airflow components that are started, with their arguments."""
    if not layout.options.variant.doubled:
        return COMPONENTS
    return {**COMPONENTS, **DOUBLED, **worker_commands(layout.airflow_home)}


def _cluster_parts(layout: Layout, cluster: Cluster, base: Mapping[str, str]) -> list[Part]:
    listed = [
        _part(layout, node.name, _python("standins.clickhouse", *_node_arguments(layout, cluster, node)), base)
        for node in cluster.nodes
    ]
    listed.append(
        _part(
            layout,
            kubernetes_part(cluster),
            _python(kubernetes_module(layout.options.variant), *_kubernetes_arguments(layout, cluster)),
            base,
        )
    )
    worker_env = {**base, **(layout.options.worker_env or {})}
    listed.append(
        _part(
            layout,
            worker_part(cluster),
            _python("sandbox.reindexer.worker", *_worker_arguments(layout, cluster)),
            worker_env,
        )
    )
    return listed


def kubernetes_part(cluster: Cluster) -> str:
    """Name of the part that is the cluster's Kubernetes API server."""
    return f"kubernetes-{cluster.short}"


def worker_part(cluster: Cluster) -> str:
    """Name of the part that is the cluster's reindex worker."""
    return f"worker-{cluster.short}"


def data_command(layout: Layout, cluster: Cluster) -> tuple[str, ...]:
    """Return the command that generates and loads a cluster's data."""
    own = (layout.options.data_arguments or {}).get(cluster.name, ())
    arguments = (
        "--cluster",
        cluster.name,
        "--state",
        layout.state,
        "--clickhouse-url",
        cluster.clickhouse_url,
    )
    return _python("sandbox.data", *arguments, "--seed", layout.options.seed, *own)


def _python(module: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *(str(argument) for argument in arguments))


def _part(layout: Layout, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Part:
    return Part(name, tuple(argv), env, layout.logs / f"{name}.log", ROOT)


def _temporal_arguments(layout: Layout) -> tuple[object, ...]:
    return (
        "--port",
        layout.temporal_port,
        "--data",
        layout.state / "temporal",
        "--namespace",
        TEMPORAL_NAMESPACE,
    )


def _node_arguments(layout: Layout, cluster: Cluster, node: Node) -> tuple[object, ...]:
    data = layout.state / "clickhouse" / node.name
    return ("--topology", _topology_file(layout, cluster), "--node", node.name, "--data", data)


def _kubernetes_arguments(layout: Layout, cluster: Cluster) -> tuple[object, ...]:
    return (
        *("--port", cluster.kubernetes_port),
        *("--data", layout.state / "kubernetes" / cluster.name / "data"),
        *("--context", cluster.kube_context),
        *("--kubeconfig", cluster.kubeconfig),
        *("--manifests", ROOT / "standins" / "kubernetes" / "manifests"),
        *("--images", _images_file(layout, cluster)),
    )


def _worker_arguments(layout: Layout, cluster: Cluster) -> tuple[object, ...]:
    return (
        *("--address", layout.temporal_address),
        *("--namespace", TEMPORAL_NAMESPACE),
        *("--cluster", cluster.name),
        *("--source", cluster.source),
        *("--clickhouse-url", cluster.clickhouse_url),
        *("--faults", cluster.faults),
    )

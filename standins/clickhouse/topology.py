"""Which nodes make up the embedded cluster: frozen records, loaded from and written to JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


class TopologyError(ValueError):
    """The topology file cannot be used; the text names the file, the field and the value."""


@dataclass(frozen=True)
class NodeAddress:
    """One node: its name (what `hostName()` answers), its place in the cluster and where its HTTP port is."""

    name: str
    shard: int
    """From 1."""
    replica: int
    """From 1 within its shard."""
    host: str
    port: int

    @property
    def url(self) -> str:
        """Base URL of the node's HTTP interface, without a slash at the end."""
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True)
class Topology:
    """A cluster: its ClickHouse name and its nodes, ordered by shard and replica."""

    cluster: str
    nodes: tuple[NodeAddress, ...]

    def node(self, name: str) -> NodeAddress:
        """The node called `name`. Raises TopologyError that lists the known names."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise TopologyError(f"cluster {self.cluster!r} has no node {name!r}; known nodes: {known}")

    def shards(self) -> tuple[tuple[NodeAddress, ...], ...]:
        """Replicas of each shard, shards in ascending order."""
        numbers = sorted({node.shard for node in self.nodes})
        return tuple(tuple(node for node in self.nodes if node.shard == number) for number in numbers)

    def replicas_of(self, name: str) -> tuple[NodeAddress, ...]:
        """All nodes of the shard that `name` belongs to, itself included."""
        shard = self.node(name).shard
        return tuple(node for node in self.nodes if node.shard == shard)


def make_topology(cluster: str, nodes: list[NodeAddress]) -> Topology:
    """Check and order the nodes. Raises TopologyError for no node, or a name, place or address used twice."""
    if not nodes:
        raise TopologyError(f"cluster {cluster!r} has no nodes; list at least one under 'nodes'")
    uses: dict[str, list[object]] = {
        "name": [node.name for node in nodes],
        "shard and replica": [(node.shard, node.replica) for node in nodes],
        "host and port": [(node.host, node.port) for node in nodes],
    }
    for field, values in uses.items():
        for value in values:
            if values.count(value) > 1:
                raise TopologyError(f"cluster {cluster!r}: {field} {value!r} is used by more than one node")
    return Topology(cluster, tuple(sorted(nodes, key=lambda node: (node.shard, node.replica))))


def load_topology(path: Path) -> Topology:
    """Read a topology file. Raises TopologyError naming file and field; OSError when it cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        nodes = [
            NodeAddress(
                name=str(entry["name"]),
                shard=int(entry["shard"]),
                replica=int(entry["replica"]),
                host=str(entry["host"]),
                port=int(entry["port"]),
            )
            for entry in data["nodes"]
        ]
        return make_topology(str(data["cluster"]), nodes)
    except KeyError as error:
        raise TopologyError(f"{path}: field {error.args[0]!r} is missing") from error
    except (TypeError, ValueError) as error:
        raise TopologyError(f"{path}: {error}") from error


def write_topology(topology: Topology, path: Path) -> None:
    """Write the file that `load_topology` reads."""
    data = {"cluster": topology.cluster, "nodes": [asdict(node) for node in topology.nodes]}
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")

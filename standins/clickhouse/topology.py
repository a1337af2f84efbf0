"""Which nodes make up the embedded cluster: frozen records, loaded from and written to JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator


class TopologyError(ValueError):
    """The topology file cannot be used; the text names the file, the field and the value."""


class NodeAddress(BaseModel, frozen=True):
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


class Topology(BaseModel, frozen=True):
    """A cluster: its ClickHouse name and its nodes, ordered by shard and replica."""

    cluster: str
    nodes: tuple[NodeAddress, ...] = Field(min_length=1)

    @field_validator("nodes")
    @classmethod
    def _in_order(cls, nodes: tuple[NodeAddress, ...]) -> tuple[NodeAddress, ...]:
        return tuple(sorted(nodes, key=lambda node: (node.shard, node.replica)))

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for field in (("name",), ("shard", "replica"), ("host", "port")):
            values = [tuple(getattr(node, part) for part in field) for node in self.nodes]
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"{' and '.join(field)} {value!r} is used by more than one node")
        return self

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


def load_topology(path: Path) -> Topology:
    """Read a topology file. Raises TopologyError naming file and field; OSError when it cannot be read."""
    try:
        return Topology.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise TopologyError(f"{path}: {error}") from error

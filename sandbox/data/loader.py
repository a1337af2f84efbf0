"""Loads a spec into ClickHouse (through clickhouse-connect) and the source store; writes the truth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from sandbox.data.generate import generate
from sandbox.data.source import SourceWriter
from sandbox.data.spec import ClusterSpec, ProfileSpec
from sandbox.data.tables import Block, columns_of, create_statements, drop_statement, load_blocks
from sandbox.data.truth import ProfileTruth, profile_truth, write_truth

PASSWORD_VARIABLE = "SANDBOX_CLICKHOUSE_PASSWORD"
"""Environment variable with the password of user `admin`; unset means no password."""

MAX_ROWS = 50_000
"""Rows of one insert: large enough to be quick, small enough for a 20 MB request."""


class Target(Protocol):
    """Where rows go; the real one is ClickHouseTarget."""

    def command(self, statement: str) -> None:
        """Run one statement without a result."""

    def insert(self, database: str, block: Block) -> None:
        """Insert a block into the distributed twin of its table."""


class ClickHouseTarget:
    """A Target on one ClickHouse node. Use it from one thread at a time and close it."""

    def __init__(self, url: str) -> None:
        """url like http://127.0.0.1:8123; raises ValueError without host or port."""
        self._client = connect(url)

    def command(self, statement: str) -> None:
        """Run one statement; clickhouse-connect's errors pass through."""
        self._client.command(statement)

    def insert(self, database: str, block: Block) -> None:
        """Insert and wait until every shard has the rows."""
        if not block.rows:
            return
        kinds = columns_of(block.table)
        self._client.insert(
            f"{block.table}_d",
            block.columns,
            column_names=list(kinds),
            column_type_names=list(kinds.values()),
            database=database,
            column_oriented=True,
            settings={"distributed_foreground_insert": 1},
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


@dataclass(frozen=True, slots=True)
class Paths:
    """Files of one cluster below the sandbox's state folder."""

    state: Path
    cluster: str

    @property
    def source(self) -> Path:
        """The SQLite source store."""
        return self.state / "source" / f"{self.cluster}.sqlite"

    @property
    def truth(self) -> Path:
        """The right counts as JSON."""
        return self.state / "truth" / f"{self.cluster}.json"


def connect(url: str) -> Client:
    """A clickhouse-connect client of its own (no session id: two requests may overlap)."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.port:
        raise ValueError(f"ClickHouse URL {url!r} must look like http://127.0.0.1:8123")
    return clickhouse_connect.get_client(
        host=parts.hostname,
        port=parts.port,
        interface=parts.scheme,
        username="admin",
        password=os.environ.get(PASSWORD_VARIABLE, ""),
        autogenerate_session_id=False,
        dedicated_pool=True,
        send_receive_timeout=120,
    )


def load(
    spec: ClusterSpec, paths: Paths, target: Target | None, *, replicated: bool = False
) -> tuple[ProfileTruth, ...]:
    """Write source store, ClickHouse (unless target is None) and truth; a second load gives the same state.

    The databases of the spec are dropped and made again; databases that are not in the spec stay.
    """
    writer = SourceWriter(paths.source)
    try:
        if target is not None:
            for profile in spec.profiles:
                target.command(drop_statement(profile))
        truths = tuple(_load_profile(spec, profile, writer, target, replicated) for profile in spec.profiles)
        writer.commit()
    finally:
        writer.close()
    write_truth(paths.truth, spec, truths)
    return truths


def _load_profile(
    spec: ClusterSpec, profile: ProfileSpec, writer: SourceWriter, target: Target | None, replicated: bool
) -> ProfileTruth:
    conversations = list(generate(spec, profile))
    writer.add(profile, conversations)
    if target is not None:
        for statement in create_statements(profile, replicated):
            target.command(statement)
        for block in load_blocks(profile, conversations, MAX_ROWS):
            target.insert(profile.database, block)
    return profile_truth(profile, conversations)

"""The engine of one node: chDB in this process, one short session per request.

chDB lets several sessions of one process share a data folder; each has its own settings, current database and temporary
tables. A session costs about 1 ms (measured on chDB 4.4), so every request gets a fresh one and nothing leaks.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from chdb._exceptions import ChdbError
from chdb.session import Session

from standins.clickhouse.errors import from_text
from standins.clickhouse.sqltext import quote_name, quote_string
from standins.clickhouse.topology import Topology


@dataclass(frozen=True)
class Result:
    """Bytes of an answer in the asked format, with the engine's counters (rows, bytes, seconds)."""

    body: bytes
    rows_read: int = 0
    bytes_read: int = 0
    seconds: float = 0.0


class EngineSession:
    """One open session. Not for use by two threads at once."""

    def __init__(self, session: Session, params: Mapping[str, str]) -> None:
        self._session = session
        self._params = dict(params)

    def run(self, sql: str, fmt: str = "TabSeparated") -> Result:
        """Run one statement. Raises ClickHouseError with the engine's code and text."""
        try:
            answer = self._session.query(sql, fmt, params=self._params or None)
        except (ChdbError, RuntimeError) as error:
            raise from_text(str(error)) from error
        return Result(bytes(answer.bytes()), int(answer.rows_read()), int(answer.bytes_read()), float(answer.elapsed()))

    def rows(self, sql: str) -> list[list[str]]:
        """Rows of a small answer as text cells; cells must not hold tabs or line breaks."""
        text = self.run(sql, "TabSeparatedRaw").body.decode()
        return [line.split("\t") for line in text.splitlines()]


class Engine:
    """The data folder of one node. Close it to let go of the folder."""

    def __init__(self, data: Path, topology: Topology) -> None:
        self.tmp = data / "exchange"
        shutil.rmtree(self.tmp, ignore_errors=True)
        self.tmp.mkdir(parents=True)
        config = data / "server.xml"
        config.write_text(_server_config(topology), encoding="utf-8")
        self._target = f"{data / 'engine'}?config-file={config}"
        # As long as this one is open, the others open in a millisecond.
        self._anchor = Session(self._target)

    @contextmanager
    def session(
        self,
        settings: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        database: str = "",
    ) -> Iterator[EngineSession]:
        """Open a session. Raises ClickHouseError 115 for an unknown setting, 81 for an unknown database."""
        raw = Session(self._target)
        try:
            plain = EngineSession(raw, {})
            wanted = {**_own_settings(settings or {}), **(settings or {})}
            if database and database != "default":
                plain.run(f"USE {quote_name(database)}")
            # One statement for all of them: a client of ours pins some forty, and each statement costs a call.
            plain.run(
                "SET " + ", ".join(f"{quote_name(name)} = {quote_string(value)}" for name, value in wanted.items())
            )
            yield EngineSession(raw, params or {})
        finally:
            raw.close()

    def close(self) -> None:
        """Let go of the data folder."""
        self._anchor.close()


def _own_settings(asked: Mapping[str, str]) -> dict[str, str]:
    """Settings of every session that does not ask for others.

    chDB allows an implicit SELECT, a server does not: `foo bar` must stay a syntax error. A few hundred rows are read
    soonest by one thread; but with one nothing is cut off where reading breaks off between blocks.
    """
    own = {"implicit_select": "0"}
    return own if asked.get("read_overflow_mode") == "break" else {**own, "max_threads": "1"}


def _server_config(topology: Topology) -> str:
    """The part of a server's config.xml that chDB reads: it makes Distributed tables and system.clusters real."""
    shards = []
    for replicas in topology.shards():
        inner = "".join(
            f"<replica><host>{escape(node.host)}</host><port>{node.port}</port></replica>" for node in replicas
        )
        shards.append(f"<shard><internal_replication>true</internal_replication>{inner}</shard>")
    name = topology.cluster
    return f"<clickhouse><remote_servers><{name}>{''.join(shards)}</{name}></remote_servers></clickhouse>\n"

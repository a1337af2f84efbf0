"""Runs a query on this node alone, with the sandbox's names and system tables in place of the engine's own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from standins.clickhouse.engine import Engine, Result
from standins.clickhouse.lexer import Token, quote_name, quote_string
from standins.clickhouse.query import HOST_FUNCTIONS, Select, replace_calls, replace_source, rewrite_queries, sources

_USER_FUNCTIONS = frozenset({"currentuser", "user", "current_user"})


@dataclass(frozen=True)
class Context:
    """What a client's request says about how to run its statement."""

    database: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)

    def setting(self, name: str, default: str) -> str:
        """Value of a setting, or the default."""
        return self.settings.get(name, default)

    def with_settings(self, extra: Mapping[str, str]) -> Context:
        """The same with more settings, which win."""
        return replace(self, settings={**self.settings, **extra})


class Files:
    """Temporary files of one request."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[Path] = []

    def write(self, data: bytes) -> Path:
        """Store data in a new file."""
        path = self._folder / uuid.uuid4().hex
        path.write_bytes(data)
        self._made.append(path)
        return path

    def remove(self) -> None:
        """Delete all of them."""
        for path in self._made:
            path.unlink(missing_ok=True)


class SystemSource(Protocol):
    """Gives SQL that stands for a system table."""

    def source(self, table: str, files: Files) -> str | None:
        """A table expression instead of `system.<table>`; None leaves the engine's own."""


class Local:
    """Queries of this node. `name` is what hostName() answers."""

    def __init__(self, engine: Engine, name: str, user: str, system: SystemSource) -> None:
        self._engine = engine
        self._literals = {
            **dict.fromkeys(HOST_FUNCTIONS, quote_string(name)),
            **dict.fromkeys(_USER_FUNCTIONS, quote_string(user)),
        }
        self._system = system

    @contextmanager
    def files(self) -> Iterator[Files]:
        """Temporary files that are gone at the end."""
        files = Files(self._engine.tmp)
        try:
            yield files
        finally:
            files.remove()

    def text(self, tokens: Sequence[Token], files: Files) -> str:
        """The query as the engine has to run it."""
        return rewrite_queries(tokens, lambda select: self._select(select, files))

    def run(self, context: Context, tokens: Sequence[Token], fmt: str, files: Files) -> Result:
        """Run a query. Raises ClickHouseError."""
        return self.run_text(context, self.text(tokens, files), fmt)

    def run_text(self, context: Context, sql: str, fmt: str) -> Result:
        """Run SQL as it is. Raises ClickHouseError."""
        with self._engine.session(context.settings, context.params, context.database) as session:
            return session.run(sql, fmt)

    def _select(self, select: Select, files: Files) -> str:
        tokens = select.get("FROM")
        for source in reversed(sources(tokens)):
            if source.table is not None and (source.table[0] or "").lower() == "system":
                found = self._system.source(source.table[1], files)
                if found is not None:
                    alias = quote_name(source.alias or source.table[1])
                    tokens = replace_source(tokens, source, f"{found} AS {alias}")
        return replace_calls(select.changed("FROM", tokens), self._literals).sql()


def structure_of(columns: Mapping[str, str]) -> str:
    """Columns as the table functions take them."""
    return ", ".join(f"{quote_name(name)} {kind}" for name, kind in columns.items())

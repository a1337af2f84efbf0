"""Runs a query on this node alone, with the sandbox's names and system tables in place of the engine's own."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from sqlglot import exp

from standins.clickhouse.engine import Engine, Result
from standins.clickhouse.sqltext import HOST_FUNCTIONS, quote_name, quote_string, replace_calls, sql_of, tree_of

_USER_FUNCTIONS = frozenset({"currentuser", "user", "current_user"})
_NAMED = re.compile(rf"\bsystem\b|\b({'|'.join(HOST_FUNCTIONS | _USER_FUNCTIONS)})\b", re.IGNORECASE)
"""What a query must hold to be worth reading: most parts of other nodes' queries do not."""


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


class SystemSource(Protocol):
    """Gives SQL that stands for a system table."""

    def source(self, table: str, files: Path) -> str | None:
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
    def files(self) -> Iterator[Path]:
        """A folder for the files of one request; it is gone at the end."""
        with TemporaryDirectory(dir=self._engine.tmp) as folder:
            yield Path(folder)

    def text(self, sql: str, files: Path) -> str:
        """The query as the engine has to run it."""
        tree = tree_of(sql) if _NAMED.search(sql) else None
        return sql_of(tree) if tree is not None and self.rename(tree, files) else sql

    def rename(self, query: exp.Query, files: Path) -> bool:
        """Put this node's names and system tables into a query; whether it asks for any."""
        renamed = replace_calls(query.walk(), self._literals)
        for table in list(query.find_all(exp.Table)):
            if table.db.lower() != "system" or not isinstance(table.this, exp.Identifier):
                continue
            found = self._system.source(table.name, files)
            if found is not None:
                alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name, quoted=True))
                table.replace(exp.Table(this=exp.Var(this=found), alias=alias))
                renamed = True
        return renamed

    def run(self, context: Context, sql: str, fmt: str, files: Path) -> Result:
        """Run a query. Raises ClickHouseError."""
        return self.run_text(context, self.text(sql, files), fmt)

    def run_text(self, context: Context, sql: str, fmt: str) -> Result:
        """Run SQL as it is. Raises ClickHouseError."""
        with self._engine.session(context.settings, context.params, context.database) as session:
            return session.run(sql, fmt)


def stored(files: Path, data: bytes) -> str:
    """Store data in a new file of the folder; returns its path as SQL."""
    path = files / uuid.uuid4().hex
    path.write_bytes(data)
    return quote_string(str(path))


def structure_of(columns: Mapping[str, str]) -> str:
    """Columns as the table functions take them."""
    return ", ".join(f"{quote_name(name)} {kind}" for name, kind in columns.items())

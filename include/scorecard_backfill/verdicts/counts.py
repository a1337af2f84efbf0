"""Who counts, and in which shape counts come: by table, host and UTC day. What they prove is proof.py's matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

TableName = tuple[str, str]
Days = Mapping[str, int]
"""Rows by ISO day (UTC); a day without rows is not there."""


@dataclass(frozen=True, slots=True)
class Host:
    """One node: its shard, the name by which it answers, and the one by which ``system.clusters`` lists it."""

    name: str
    shard: int
    listed: str = ""

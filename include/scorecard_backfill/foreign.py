"""Names for data whose form others decide: Kubernetes' objects, ClickHouse's answers, what Airflow asks of a plugin.

Our own data are records, models or frozen classes; a test looks that no module has such a name of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ForeignJson = dict[str, Any]
"""An object of another system, as its JSON was read or is sent."""

Manifest = Mapping[str, Any]
"""An object of Kubernetes that is only read."""

Row = Mapping[str, Any]
"""A row of ClickHouse's answer to one of our statements, by column."""

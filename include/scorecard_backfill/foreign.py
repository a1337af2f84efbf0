"""The one name for JSON whose form others decide: Kubernetes' objects, what Airflow asks of a plugin.

Our own data are records, models or frozen classes; a test looks that no module has such a name of its own.
"""

from __future__ import annotations

from typing import Any

ForeignJson = dict[str, Any]
"""An object of another system, as its JSON was read or is sent."""

"""Reading JSON that somebody else may have written: every text that cannot be read is a ValueError."""

from __future__ import annotations

import json
from typing import Any


def from_text(text: str | bytes) -> Any:
    """Return what a JSON text holds.

    Raises:
        ValueError: it is not JSON, or nested too deeply (json raises RecursionError, which no handler expects).
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None

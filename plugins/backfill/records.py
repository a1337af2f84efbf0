"""Records that stages exchange as XComs, read the same whoever wrote them."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]


def parse(value: Any) -> Any:
    """Return a value that may have come as JSON text; '' and 'None' (of an empty template) are None.

    What a trigger pushes when it ends its task is stored as JSON text, what a worker pushes is not; rendered into a
    trigger's argument the first one has been encoded twice.
    """
    while isinstance(value, str):
        if value in ("", "None"):
            return None
        value = json.loads(value)
    return value


def settled(key: str, verified: Any, cut: Any) -> str:
    """Return why a window needs nothing more in this run: ``verified``, ``cut`` (its parts do its work), or ''.

    ``verified`` is what verify returned, ``cut`` the keys of the windows that replan has cut.
    """
    record = parse_record(verified)
    if record.get("status") == "verified" and record.get("key") == key:
        return "verified"
    return "cut" if key in (parse(cut) or []) else ""


def parse_record(value: Any) -> Json:
    """Return a value that must be a record; {} when there is none."""
    found = parse(value)
    return found if isinstance(found, dict) else {}

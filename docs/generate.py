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

from include.scorecard_backfill import graph, life  # noqa: E402
from include.scorecard_backfill.records import Order, Stage  # noqa: E402
from include.scorecard_backfill.verdicts import causes  # noqa: E402

ORDERS: tuple[Order, ...] = ("delete_first", "reindex_first")
AFTER_CLEAR = ("resend", "make")
"""Deeds that need a person's clear in every stage but the reindex's own."""


def causes_table() -> str:
    """Every cause: what it means, what a clear of the failed task does, what a person does."""
    lines = ["| cause | stage | what it means | a clear | what to do |", "|---|---|---|---|---|"]
    for cause in causes.CAUSES.values():
        stages = ", ".join(cause.stages)
        lines.append(f"| `{cause.name}` | {stages} | {cause.means} | {causes.CLEARS[cause.repeat]} | {cause.do} |")
    return "\n".join(lines)


def states_table() -> str:
    """Every line of the life of a window."""
    lines = ["| stage | when | next | why | cause |", "|---|---|---|---|---|"]
    for line in life.lines():
        cause = f"`{line.cause}`" if line.cause else ""
        lines.append(f"| {line.stage} | {line.when} | **{line.action}** | {line.why} | {cause} |")
    return "\n".join(lines)


def ways() -> str:
    """Both orders as pictures: stages, how they end, and what a clear may lead to."""
    return "\n\n".join(_way(order) for order in ORDERS)


def _way(order: Order) -> str:
    stages = graph.stages_of(order)
    lines = [f"`{order}`:", "", "```mermaid", "flowchart LR"]
    for stage, behind in zip(stages, [*stages[1:], "verified"], strict=True):
        lines.append(f"    {stage} -->|{' or '.join(_ends(stage))}| {behind}")
        if fails := _causes(stage, order):
            lines.append(f"    {stage} -->|fail| {stage}_failed[{', '.join(fails)}]")
        if again := [action for action in AFTER_CLEAR if stage != "reindex" and action in _actions(stage, order)]:
            lines.append(f"    {stage}_failed -.->|clear: {', '.join(again)}| {stage}")
    return "\n".join([*lines, "```"])


def _rows(stage: Stage, order: Order) -> list[life.Row]:
    return [row for row in life.TABLE if stage in row.stages and order in row.when.get("order", (order,))]


def _actions(stage: Stage, order: Order) -> list[str]:
    return list(dict.fromkeys(row.action for row in _rows(stage, order)))


def _ends(stage: Stage) -> list[str]:
    """How a stage ends well: admission and a Job that ended are decided elsewhere."""
    ends = [row.action for row in life.TABLE if row.stages != life.STAGES and stage in row.stages]
    return [action for action in ("done", "nothing") if action in ends] or ["done"]


def _causes(stage: Stage, order: Order) -> list[str]:
    return sorted({row.cause for row in _rows(stage, order) if row.cause})


BLOCKS: Mapping[tuple[str, str], Callable[[], str]] = {
    ("runbook.md", "causes"): causes_table,
    ("states.md", "ways"): ways,
    ("states.md", "states"): states_table,
}
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

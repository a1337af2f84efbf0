"""What a person reads in a terminal: the page's words as lines. Nothing here knows the server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from include.scorecard_backfill.overview.history import ClusterLine
from include.scorecard_backfill.overview.model import NOTHING_DONE, Attention, Overview, PlanRow, WindowRow

WORDS = {
    "verified": "verified",
    "working": "in work",
    "waiting": "waiting",
    "cut": "cut smaller",
    "failed": "failed",
    "not_started": "not started",
}
"""State -> the page's word."""

SHOWN_WINDOWS = 30
"""Windows that `status` shows without --all: failed ones first."""

ORDER = ("failed", "working", "cut", "waiting", "not_started", "verified")


def clean(text: str) -> str:
    """Return a text without what a terminal would take for a command: ids and reasons come from elsewhere."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """Return lines with columns of equal width, two blanks apart."""
    rows = [list(head), *([clean(cell).replace("\n", " ") for cell in row] for row in body)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def cluster_lines(clusters: Sequence[ClusterLine]) -> list[str]:
    """Return one line for each cluster, then the slots that were missed."""
    body = [
        [c.cluster, c.state or "no run yet", "paused" if c.paused else "", moment(c.started), c.headline]
        for c in clusters
    ]
    missed = [f"missed: {c.cluster}: {c.missed.what}" for c in clusters if c.missed]
    return [*table(["cluster", "state", "DAG", "started (UTC)", "newest run"], body), *map(clean, missed)]


def run_lines(view: Overview, *, everything: bool) -> list[str]:
    """Return how far a run is: headline, figures, what needs a person, windows."""
    lines = [f"{view.cluster}  {view.run_id}  {view.state}", view.headline]
    lines += [*_figures(view), *_who(view), *attention_lines(view.attention)]
    rows = sorted(view.windows, key=lambda r: ORDER.index(r.state))
    shown = rows if everything else [r for r in rows if r.state != "verified"][:SHOWN_WINDOWS]
    if shown:
        lines += ["", *table(["window", "state", "stage", "since (UTC)", "why, and what to do"], map(_window, shown))]
    rest = [row for row in rows if row.state != "verified"][len(shown) :]
    if rest and not everything:
        lines.append(f"... and {len(rest)} more; --all shows every window")
    return [clean(line) for line in lines]


def _figures(view: Overview) -> list[str]:
    figures = view.figures
    if not view.counts.planned:
        return []
    removed = ", ".join(f"{name} {count:,}" for name, count in sorted(figures.removed.items())) or "none yet"
    lines = [f"{figures.percent} % verified; rows removed: {removed}"]
    if figures.left:
        low, high = figures.left.low_minutes, figures.left.high_minutes
        ends = f"{moment(figures.left.from_moment)} to {moment(figures.left.to_moment)} UTC"
        lines.append(f"time left: {low} to {high} minutes, ends {ends}")
    elif figures.left_note:
        lines.append(f"time left: {figures.left_note}")
    return lines


def _who(view: Overview) -> list[str]:
    asked = f"asked by {view.who.asked_by}" if view.who.asked_by else ""
    words = {"approved": "approved", "rejected": "rejected"}
    answer = words.get(view.who.approval, "")
    by = f"{answer} by {view.who.answered_by}" if answer else ""
    return [", ".join(part for part in (asked, by) if part)] if asked or by else []


def attention_lines(attention: Sequence[Attention]) -> list[str]:
    """Return what needs a person, most urgent first, each with what to do."""
    marks = {"act": "!!", "look": "! ", "note": "- "}
    return [f"{marks[a.level]} {a.what}{f' {a.todo}' if a.todo else ''}" for a in attention]


def _window(row: WindowRow) -> list[str]:
    why = " ".join(part for part in (row.reason, row.todo) if part)
    if row.percent is not None and row.state == "working":
        why = f"{row.percent} % {why}".rstrip()
    return [row.label, WORDS[row.state], row.stage, moment(row.since), why]


def report_lines(view: Overview) -> list[str]:
    """Return what a run did: rows of each customer and table, with the total; its plan where it has done nothing."""
    head = [view.headline, *attention_lines(view.attention)]
    if view.state in NOTHING_DONE:
        return [*head, "", *plan_lines(view)]
    body = []
    for row in (*view.report.rows, view.report.total):
        counted = f"{row.verified}/{row.windows}"
        for name, n in row.tables.items():
            body.append([row.customer, counted, name, _number(n.before), _number(n.after), _number(n.removed)])
        if not row.tables:
            body.append([row.customer, counted, "", "", "", ""])
    return [*head, "", *table(["customer", "verified", "table", "before", "after", "removed"], body)]


def plan_lines(view: Overview) -> list[str]:
    """Return what a run would do."""
    plan = view.plan
    head = ["customer", "windows", "from", "to (exclusive)", "conversations", *(f"rows: {t}" for t in plan.tables)]
    body = [_planned(row, plan.tables) for row in plan.rows]
    if plan.rows:
        body.append(_planned(plan.total, plan.tables))
    return [*table(head, body), *(f"- {clean(note)}" for note in plan.notes)]


def _planned(row: PlanRow, tables: Sequence[str]) -> list[str]:
    rows: Mapping[str, int] = row.rows
    return [row.customer, f"{row.windows:,}", row.start, row.end, f"{row.conversations:,}",
            *(f"{rows.get(name, 0):,}" for name in tables)]  # fmt: skip


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def moment(value: datetime | None) -> str:
    """Return a moment as people read it, '' for none."""
    return f"{value:%Y-%m-%d %H:%M}" if value else ""

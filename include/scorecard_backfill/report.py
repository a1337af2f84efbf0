"""What a run did: results joined by window key, totals per customer, Markdown and JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from include.scorecard_backfill.names import LABEL_WINDOW
from include.scorecard_backfill.planning.plan import CONVERSATIONS_PER_MINUTE
from include.scorecard_backfill.verdicts.jobs import job_outcome

Json = dict[str, Any]

VERIFIED = "verified"
DELETED_NOT_REINDEXED = "deleted, not yet reindexed"


def build_report(
    windows: Sequence[Mapping[str, Any]],
    parts: Sequence[Mapping[str, Any]],
    verified: Iterable[Mapping[str, Any]],
    deleted: Iterable[Mapping[str, Any]],
    failures: Mapping[str, str],
) -> Json:
    """Return the report record.

    ``windows`` and ``parts`` are plan records (parts carry ``part_of``); ``verified`` are results of verify and
    ``deleted`` results of delete, joined by their key and never by position; ``failures`` maps a window key to the
    sentence of its last failure. A window that was cut is verified when every one of its parts is; a part may have been
    cut, too.
    """
    verified_list = list(verified)
    done = {r["key"]: r for r in verified_list if r.get("status") == VERIFIED}
    removed = {r["key"]: r for r in deleted}
    parts_of: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for part in parts:
        parts_of[part["part_of"]].append(part)
    rows = [_window_row(w, _smallest(w["key"], parts_of, done), done, removed, failures) for w in windows]
    customers = _by_customer(rows)
    count = sum(row["status"] == VERIFIED for row in rows)
    return {
        "planned": len(rows),
        "verified": count,
        "complete": count == len(rows),
        "windows": rows,
        "customers": customers,
        "total": _sum_tables(c["tables"] for c in customers),
        "missing": _missing(windows, parts, verified_list),
    }


def unwatched(
    windows: Iterable[Mapping[str, Any]], jobs: Iterable[Mapping[str, Any]], verified: Iterable[str]
) -> list[Json]:
    """Return live Jobs (``label``, ``job``) of windows that have not been verified, when no task waits any more.

    Airflow tells nobody when a deferred task is ended while no triggerer runs its trigger, so that its Job lives on.
    ``windows`` are plan records with their parts, ``jobs`` Kubernetes Jobs, ``verified`` keys of windows.
    """
    labels = {w["key"]: w["label"] for w in windows}
    done = set(verified)
    found = []
    for job in jobs:
        key = (job["metadata"].get("labels") or {}).get(LABEL_WINDOW)
        if key in labels and key not in done and not job_outcome(job).final:
            found.append({"label": labels[key], "job": job["metadata"]["name"]})
    return sorted(found, key=lambda row: row["job"])


def _missing(
    windows: Sequence[Mapping[str, Any]], parts: Sequence[Mapping[str, Any]], results: Iterable[Mapping[str, Any]]
) -> list[Json]:
    """Return for each window with a snapshot and table how many rows did not come back, with some ids."""
    labels = {w["key"]: w["label"] for w in (*windows, *parts)}
    return [
        {"key": r["key"], "label": labels.get(r["key"], r["key"]), "table": table, **found}
        for r in results
        for table, found in sorted((r.get("missing") or {}).items())
    ]


def _smallest(
    key: str, parts_of: Mapping[str, Sequence[Mapping[str, Any]]], done: Container[str]
) -> list[Mapping[str, Any]]:
    """Return the parts of a window that decide about it: those that were not cut again, or were verified anyway."""
    found: list[Mapping[str, Any]] = []
    for part in parts_of.get(key, ()):
        smaller = [] if part["key"] in done else _smallest(part["key"], parts_of, done)
        found += smaller or [part]
    return found


def _window_row(
    window: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any]],
    done: Mapping[str, Mapping[str, Any]],
    removed: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, str],
) -> Json:
    key = window["key"]
    row: Json = {k: window[k] for k in ("key", "customer_id", "start", "end", "label")}
    if key in done:
        return row | {"status": VERIFIED, "tables": done[key]["tables"], "note": ""}
    if parts:
        return row | _cut_row(parts, done, removed.get(key), failures)
    return row | _open_row(removed.get(key), failures.get(key, ""))


def _cut_row(
    parts: Sequence[Mapping[str, Any]],
    done: Mapping[str, Mapping[str, Any]],
    deleted: Mapping[str, Any] | None,
    failures: Mapping[str, str],
) -> Json:
    finished = [done[p["key"]] for p in parts if p["key"] in done]
    note = f"cut into {len(parts)}"
    if len(finished) == len(parts):
        return {"status": VERIFIED, "tables": _sum_tables(p["tables"] for p in finished), "note": note}
    broken = [p for p in parts if p["key"] not in done]
    why = "; ".join(f"{p['label']}: {failures.get(p['key'], 'not finished')}" for p in broken[:5])
    status = DELETED_NOT_REINDEXED if deleted and deleted.get("statements") else "failed"
    return {"status": status, "tables": {}, "note": f"{note}, {len(broken)} of them not verified: {why}"}


def _open_row(deleted: Mapping[str, Any] | None, failure: str) -> Json:
    if deleted and deleted.get("statements"):
        before = {t: {"before": n, "after": None, "removed": None} for t, n in deleted.get("rows_before", {}).items()}
        return {"status": DELETED_NOT_REINDEXED, "tables": before, "note": failure}
    return {"status": "failed" if failure else "not started", "tables": {}, "note": failure}


def _by_customer(rows: Iterable[Json]) -> list[Json]:
    grouped: dict[str, list[Json]] = defaultdict(list)
    for row in rows:
        grouped[row["customer_id"]].append(row)
    return [
        {
            "customer_id": customer,
            "windows": len(listed),
            "verified": sum(r["status"] == VERIFIED for r in listed),
            "tables": _sum_tables(r["tables"] for r in listed if r["status"] == VERIFIED),
        }
        for customer, listed in sorted(grouped.items())
    ]


def _sum_tables(items: Iterable[Mapping[str, Mapping[str, int]]]) -> Json:
    total: dict[str, dict[str, int]] = defaultdict(lambda: {"before": 0, "after": 0, "removed": 0})
    for tables in items:
        for table, numbers in tables.items():
            for name in total[table]:
                total[table][name] += numbers[name]
    return dict(sorted(total.items()))


def report_markdown(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown: customers, totals, and every window that is not verified with its reason."""
    lines = [
        f"**{report['verified']} of {report['planned']} windows verified**",
        "",
        "| customer | windows | table | before | after | removed |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for customer in report["customers"]:
        head = f"{_cell(customer['customer_id'])} | {customer['verified']}/{customer['windows']}"
        if not customer["tables"]:
            lines.append(f"| {head} | - | - | - | - |")
        for table, n in customer["tables"].items():
            lines.append(f"| {head} | {table} | {n['before']:,} | {n['after']:,} | {n['removed']:,} |")
    for table, n in report["total"].items():
        lines.append(f"| **all** | | {table} | {n['before']:,} | {n['after']:,} | {n['removed']:,} |")
    if report.get("missing"):
        lines += ["", "**Rows of the snapshots that did not come back** (appeal requests are meant to go):", ""]
        lines += [
            f"- {m['label']}: {m['table']}: {m['count']:,}{', such as ' + ', '.join(m['ids'][:5]) if m['ids'] else ''}"
            for m in report["missing"]
        ]
    if report.get("running"):
        lines += ["", "**Jobs that still run, and that no task waits for** (a clear of reindex adopts them):", ""]
        lines += [f"- {r['label']}: `{r['job']}`" for r in report["running"]]
    if report.get("running_unknown"):
        lines += ["", f"Whether Jobs still run is not known: {report['running_unknown']}"]
    open_rows = [r for r in report["windows"] if r["status"] != VERIFIED]
    if open_rows:
        lines += ["", "**Not verified:**", ""]
        lines += [f"- {r['label']}: {r['status']}{': ' + r['note'] if r['note'] else ''}" for r in open_rows]
    return "\n".join(lines)


def plan_markdown(
    windows: Sequence[Mapping[str, Any]],
    *,
    plan_hash: str,
    mode: str,
    max_parallel: int,
    statements: Sequence[str],
    notes: Sequence[str] = (),
) -> str:
    """Return the plan as a person approves it: per customer windows, days, conversations and rows, hash, statements."""
    grouped: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for window in windows:
        grouped[window["customer_id"]].append(window)
    tables = sorted({t for w in windows for t in w["rows"]})
    word = "rows to delete" if mode == "cleanup" else "rows there now"
    lines = [
        f"{mode}: **{len(windows)} windows** of {len(grouped)} customers, {hours_text(windows, max_parallel)}",
        "",
        "| customer | databases | windows | from | to (exclusive) | conversations |"
        + "".join(f" {word}: {t} |" for t in tables),
        "|---|---|---:|---|---|---:|" + "---:|" * len(tables),
    ]
    for customer, listed in grouped.items():
        cells = [
            _cell(customer),
            _cell(", ".join(d["name"] for d in listed[0]["databases"])),
            str(len(listed)),
            min(w["start"] for w in listed),
            max(w["end"] for w in listed),
            f"{sum(w['conversations'] for w in listed):,}",
            *(f"{sum(w['rows'].get(t, 0) for w in listed):,}" for t in tables),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    lines += ["", "Row figures are estimates (before FINAL).", "", f"Plan hash: `{plan_hash}`"]
    if statements:
        lines += ["", "Statements, with the values of the first window:", "", "```sql", *statements, "```"]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Return a text that stays in its cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|")


def hours_text(windows: Sequence[Mapping[str, Any]], max_parallel: int) -> str:
    """Return the estimated duration as a range: all windows spread evenly, and the longest customer's chain.

    Based on the measured throughput of one workflow (conversations per minute); deletes are not in it.
    """
    chains: dict[str, int] = defaultdict(int)
    for window in windows:
        chains[window["customer_id"]] += window["conversations"]
    longest = max(chains.values(), default=0)
    spread = sum(chains.values()) / max(1, max_parallel)
    low = max(longest, spread) / CONVERSATIONS_PER_MINUTE / 60
    high = (longest + spread) / CONVERSATIONS_PER_MINUTE / 60
    if high < 1:
        return f"less than an hour of reindexing at {max_parallel} windows at once"
    return f"about {low:.1f} to {high:.1f} hours of reindexing at {max_parallel} windows at once"

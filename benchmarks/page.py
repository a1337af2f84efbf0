"""docs/benchmarks.md out of results.json. Pure: records in, text out; nothing here measures or reads a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.reasons import GOALS, Goal, judged

Json = Mapping[str, Any]

NAMES = {
    "ours": "our DAG",
    "preload": "stock DAG, with the preload",
    "stock": "stock DAG as from the docs",
    "old": "the old scripts' algorithm",
}
HEAD = """# Benchmarks

Made by `make bench` out of `benchmarks/results.json` (`python -m benchmarks --page` writes this file anew). All figures
are of one machine; look at the ratios, not at the seconds. Nothing here decides a test: what must not grow is guarded
by counts in `tests/airflow/test_costs.py`.
"""


def page(results: Json) -> str:
    """Return the document. A part that was not measured is said to be missing."""
    parts: Json = results.get("parts", {})
    sections: dict[str, Callable[[Json], list[str]]] = {
        "replay": _replay,
        "waiting": _waiting,
        "triggers": _triggers,
        "scheduling": _scheduling,
        "parsing": _parsing,
        "deleting": _deleting,
        "failover": _failover,
    }
    lines = [HEAD, *_machine(results.get("machine", {})), *_goals(parts)]
    for name, section in sections.items():
        lines += ["", f"## {TITLES[name]}", "", TEXTS[name], ""]
        part = parts.get(name)
        lines += [*section(part["found"]), "", _when(part)] if part else ["Not measured."]
    return "\n".join(lines) + "\n"


def _when(part: Json) -> str:
    load = part.get("load")
    return f"Measured {part['at']}{'' if load is None else f', load average of the machine {load}'}."


TITLES = {
    "replay": "A month in small",
    "waiting": "Windows that wait",
    "triggers": "A trigger that waits",
    "scheduling": "The scheduler's look",
    "parsing": "DAG files",
    "deleting": "Deleting and planning",
    "failover": "After a kill",
}
TEXTS = {
    "replay": (
        "The same windows, each with a workflow that takes a fixed time (scaled from real durations), done by four"
        " contenders, each in a sandbox of its own with nothing else in it. The bound is the longest chain of one"
        " customer's windows, or all work by windows at once: nothing can be faster. CPU is that of all of Airflow's"
        " processes, workers included. Ours looks each second at first and each three seconds at long work, a stock"
        " DAG's sensors poke each three seconds; production's intervals are 10 to 30 s. The scheduler pauses for 1 s"
        " and files are parsed each 60 s, for all alike. The old scripts run without Airflow: their CPU is not"
        " comparable, and nobody had to start the next batch for them here. A workflow that runs is described at"
        " each fourth look of its window, so that the calls to Temporal grow with the windows in flight. Nobody"
        " reaches the bound: it knows the long windows beforehand. And `max_active_tasks` of a stock DAG limits"
        " tasks, not windows: with the preload 14 workflows were seen open at once where 10 may be."
    ),
    "waiting": (
        "A run of many single days of which one goes at a time; the others of the first batch wait for their turn in"
        " the triggerer, further batches behind one task each. Nothing is asked of ClickHouse, Kubernetes or Temporal"
        " for a window that waits: what is counted there is one look at the cluster for all of them."
    ),
    "triggers": (
        "The triggers of waiting windows alone, in one process, made as the triggerer makes them, with Airflow's API"
        " answered from memory: what they add to a triggerer. Beside them the same triggers as Airflow leaves them,"
        " each with a copy of the DAG and a context full of it. A look each second, as in the sandbox."
    ),
    "scheduling": (
        "CPU seconds and statements of one look of Airflow's scheduler at a run whose windows all wait (SQLite, the"
        " scheduler's own code in a process of its own). It evaluates every instance that has not started: five behind"
        " each waiting window, four statements each."
    ),
    "parsing": (
        "CPU seconds in a process forked after the plugin was loaded: all clusters and their serialization (the DAG"
        " processor), one cluster (a worker), and a plain file with as many DAGs of as many empty tasks."
    ),
    "deleting": (
        "ClickHouse's own engine (chDB), one monthly partition, rows of 31 days: all of it or one day by a mutation,"
        " all of it by DROP PARTITION. Planning: the inventory of a month over two shards."
    ),
    "failover": "Seconds from the start of the killed part until a stage of any window has ended; killed with SIGKILL.",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return a Markdown table; a column of numbers is aligned to the right."""
    listed = [[_cell(cell) for cell in row] for row in rows]
    numbers = [all(_is_number(row[column]) for row in listed) for column in range(len(head))]
    rule = ["---:" if number else "---" for number in numbers]
    return [f"| {' | '.join(line)} |" for line in (list(head), rule, *listed)]


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text == "-"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def ratio(value: float | None, base: float | None) -> str:
    """Return how many times ``base`` a value is, '-' when one of them is missing or the base is 0."""
    return "-" if value is None or not base else f"{value / base:.2f}x"


def _machine(machine: Json) -> list[str]:
    return [", ".join(f"{name} {value}" for name, value in machine.items()) + "."] if machine else []


def _goals(parts: Json) -> list[str]:
    lines = ["", "## What was asked for", ""]
    rows = []
    for goal in GOALS:
        value = judged(goal, parts)
        rows.append((goal.text, _cell(value), _verdict(goal, value), goal.reason if _missed(goal, value) else ""))
    return [*lines, *table(("figure", "measured", "", "why not"), rows)]


def _missed(goal: Goal, value: float | None) -> bool:
    return value is not None and value > goal.limit


def _verdict(goal: Goal, value: float | None) -> str:
    if value is None:
        return "not measured"
    return "missed" if _missed(goal, value) else "met"


def _replay(found: Json) -> list[str]:
    size, bound = found["size"], found["bound_seconds"]
    lines = [
        f"{found['windows']} windows: {size['giants']} giants of {size['days']} single days,"
        f" {size['others']} other customers; {size['at_once']} at once; a day of the biggest takes"
        f" {size['giant_seconds']:g} s. Lower bound {bound:g} s; in the plan's order, within the limit and without any"
        f" overhead {found['in_order_seconds']:g} s.",
        "",
    ]
    ours = found.get("ours") or {}
    rows = []
    for name, label in NAMES.items():
        one = found.get(name)
        if one is None:
            continue
        cpu, span = one.get("cpu_per_window"), one["makespan_seconds"]
        rows.append(
            (
                label,
                one.get("windows_done", found["windows"] - one.get("failures", 0)),
                ratio(span, bound) + ("" if one["finished"] else ", not finished"),
                ratio(span, found["in_order_seconds"]),
                cpu,
                ratio(cpu, ours.get("cpu_per_window")) if cpu else None,
                one["worker_starts_per_window"] if "cpu_seconds" in one else None,
                one.get("tried_again", one.get("failures")),
                len(one.get("wrong_customers", [])),
            )
        )
    head = ("", "windows done", "makespan by the bound", "by the order's", "CPU s a window", "by ours",
            "worker starts a window", "tried again", "customers with wrong rows")  # fmt: skip
    lines += table(head, rows)
    calls = [(label, *_calls(found[name])) for name, label in NAMES.items() if name in found]
    lines += ["", "Statements and calls that the servers saw, a window (and a minute):", ""]
    return [*lines, *table(("", "ClickHouse", "Kubernetes", "Temporal", "metadata database"), calls),
            "", "![makespan and CPU](img/bench-replay.svg)"]  # fmt: skip


def _calls(one: Json) -> list[str]:
    window, minute = one["calls_per_window"], one["calls_per_minute"]
    return [f"{_cell(window[n])} ({_cell(minute[n])})" for n in ("clickhouse", "kubernetes", "temporal", "database")]


def _waiting(found: Json) -> list[str]:
    rows = [
        (
            one["windows"],
            one["open"],
            one["triggerer_mb"],
            one["triggerer_mb"] - found["windows"][0]["triggerer_mb"],
            one["cpu_per_minute"]["triggerer"],
            one["cpu_per_minute"]["scheduler"],
            one["calls_per_minute"]["clickhouse"],
            one["calls_per_minute"]["temporal"],
            one["calls_per_minute"]["kubernetes"],
            one["calls_per_minute"]["database"],
            sum(one["database"]["rows"].values()),
            one["database"]["megabytes"],
            one["page_seconds"],
        )
        for one in found["windows"]
    ]
    head = ("windows", "of them open", "triggerer MB", "more than with the first", "its CPU s a minute",
            "scheduler CPU s a minute", "ClickHouse a minute", "Temporal a minute", "Kubernetes a minute",
            "statements to the database a minute", "rows in it", "MB", "page's route s")  # fmt: skip
    return [*table(head, rows), "", "![waiting](img/bench-waiting.svg)"]


def _triggers(found: Json) -> list[str]:
    rows = [
        (
            f"{one['windows']:,}",
            one["grown_mb"],
            round(one["grown_mb"] * 1_000 / one["windows"], 1),
            one["as_airflow_mb"],
            ratio(one["as_airflow_mb"], one["grown_mb"]),
            one["start_ms"],
            one["cpu_per_minute"],
            round(one["looks_at_states"] * 60 / one["seconds"], 1),
        )
        for one in found["windows"]
    ]
    head = ("windows", "MB", "kB a window", "MB as Airflow leaves them", "by ours", "ms to start one",
            "CPU s a minute", "looks at the states a minute")  # fmt: skip
    return table(head, rows)


def _scheduling(found: Json) -> list[str]:
    first = found["looks"][0]["cpu_seconds"] / found["looks"][0]["windows"]
    looks = [
        (f"{one['windows']:,}", one["instances"], one["cpu_seconds"], one["statements"],
         round(one["cpu_seconds"] * 1000 / one["windows"], 2), ratio(one["cpu_seconds"] / one["windows"], first))
        for one in found["looks"]
    ]  # fmt: skip
    base = next(o for o in found["looks"] if o["windows"] == found["fewer_stages"][0]["windows"])
    fewer = [
        (f"{one['stages']} stages", one["cpu_seconds"], ratio(one["cpu_seconds"], base["cpu_seconds"]))
        for one in found["fewer_stages"]
    ]
    if batches := found.get("batches"):
        closed = f"the rest in {batches['batches'] - 1} closed batches"
        label = f"{batches['stages']} stages, {batches['windows']} windows open, {closed}"
        fewer.append((label, batches["cpu_seconds"], ratio(batches["cpu_seconds"], base["cpu_seconds"])))
    shares = [
        (f"{one['windows']:,}", *(f"{one[pause]:.0%}" for pause in one if pause != "windows"))
        for one in found["share_of_a_core"]
    ]
    pauses = [f"{pause} s" for pause in found["share_of_a_core"][0] if pause != "windows"]
    return [
        *table(("windows waiting", "instances", "CPU s a look", "statements", "ms a window", "by the first"), looks),
        "",
        f"With fewer stages in a window, or in batches ({base['windows']} windows):",
        "",
        *table(("", "CPU s a look", "by six"), fewer),
        "",
        "Share of one core that the looks take while nothing happens, by `scheduler_idle_sleep_time`:",
        "",
        *table(("windows waiting", *pauses), shares),
        "",
        "![look](img/bench-scheduling.svg)",
    ]


def _parsing(found: Json) -> list[str]:
    rows = [
        (f"{one['clusters']:,}", one["processor"], ratio(one["processor"], one["plain"]), one["worker"], one["plain"])
        for one in found["clusters"]
    ]
    return table(("clusters", "DAG processor s", "by the plain file", "a worker s", "plain file s"), rows)


def _deleting(found: Json) -> list[str]:
    ways = [
        (f"{one['rows']:,}", one["mutation_month"], one["mutation_day"], one["drop_partition"],
         ratio(one["mutation_month"], one["drop_partition"]))
        for one in found["ways"]
    ]  # fmt: skip
    planning = [(f"{one['databases']:,}", one["seconds"], one["statements"]) for one in found["planning"]]
    return [
        *table(("rows", "mutation, month s", "mutation, a day s", "DROP PARTITION s", "month by drop"), ways),
        "",
        *table(("databases", "inventory s", "statements"), planning),
    ]


def _failover(found: Json) -> list[str]:
    return table(("killed", "seconds to the next step"), [(name, float(value)) for name, value in found.items()])

"""`make bench`: what orchestration costs, beside what people use instead. Nothing here decides a test.

    python -m benchmarks                          every part, in the sizes of docs/benchmarks.md (an hour)
    python -m benchmarks --quick                  small sizes, under five minutes, into .sandbox/bench
    python -m benchmarks --parts replay --days 31 --giants 2 --others 28        the long form of one part
    python -m benchmarks --page                   only the document, out of the results that are there

Parts that were measured replace their last result; the others stay. Times are of one machine: read the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.page import page
from sandbox.stack import signals_as_exit
from sandbox.stack_airflow import ROOT

RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "benchmarks.md"
IMAGES = ROOT / "docs" / "img"
QUICK = ROOT / ".sandbox" / "bench"

Json = dict[str, Any]

QUICK_SIZES: Json = {
    "giants": 1,
    "days": 2,
    "others": 2,
    "giant_seconds": 5.0,
    "contenders": ["ours", "old"],
    "windows": [10],
    "waiting_seconds": 10.0,
    "looks": [10, 50],
    "clusters": [8],
    "rows": [100_000],
    "databases": [10],
}
QUICK_PARTS = ["scheduling", "triggers", "parsing", "deleting", "replay"]


def measure(name: str, args: argparse.Namespace, state: Path, say: Callable[[str], None]) -> Json:
    """Measure one part. What it needs is imported here: some parts need Airflow's environment, the document none."""
    if name == "scheduling":
        from benchmarks.scheduling import scheduling

        return scheduling(args.looks, state)
    if name == "parsing":
        from benchmarks.parsing import parsing

        return parsing(args.clusters, state)
    if name == "deleting":
        from benchmarks.deleting import deleting

        return deleting(args.rows, args.databases)
    if name == "waiting":
        from benchmarks.waiting import waiting

        return waiting(args.windows, args.waiting_seconds, state, say)
    if name == "triggers":
        from benchmarks.triggers import triggers

        return triggers(args.windows, args.waiting_seconds, state)
    if name == "failover":
        from benchmarks.failover import failover

        return failover(state, say)
    from benchmarks.replay import replay
    from benchmarks.workload import Size

    size = Size(args.giants, args.days, args.others, args.giant_seconds, args.at_once)
    return replay(size, state, say, args.contenders)


PARTS = ("scheduling", "triggers", "parsing", "deleting", "replay", "waiting", "failover")


def machine() -> Json:
    """Return what the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "Airflow": version("apache-airflow"),
        "executor": "LocalExecutor",
        "database": "SQLite",
    }


def kept(path: Path) -> Json:
    """Return the results so far."""
    found: Json = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"parts": {}}
    return found


def merged(name: str, before: Json, found: Json) -> Json:
    """Return a part's result; contenders of a replay of the same size that were not measured again stay."""
    same = name == "replay" and before.get("size") == found["size"]
    return {**before, **found} if same else found


def write(results: Json, path: Path) -> None:
    """Write the results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def document(results: Json, path: Path, images: Path) -> None:
    """Write the document and its pictures."""
    from benchmarks.plots import plots

    path.write_text(page(results), encoding="utf-8")
    plots(results, images)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, under five minutes, results not kept")
    parser.add_argument("--page", action="store_true", help="write the document only")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--state", type=Path, default=QUICK / "state", help="folder for the stacks")
    parser.add_argument("--out", type=Path, help="folder for results and document, instead of those that are kept")
    replaying = parser.add_argument_group("replay")
    replaying.add_argument("--giants", type=int, default=2)
    replaying.add_argument("--days", type=int, default=3, help="single days of each giant, 1 to 31")
    replaying.add_argument("--others", type=int, default=8, help="customers of one window")
    replaying.add_argument("--giant-seconds", type=float, default=100.0, help="what a day of the biggest takes")
    replaying.add_argument("--at-once", type=int, default=10)
    replaying.add_argument("--contenders", nargs="+", default=["ours", "old", "preload", "stock"])
    parser.add_argument("--windows", type=int, nargs="+", default=[10, 100, 1_000, 3_000], help="that wait")
    parser.add_argument("--waiting-seconds", type=float, default=60.0)
    parser.add_argument("--looks", type=int, nargs="+", default=[50, 250, 1_000, 3_000], help="windows of a look")
    parser.add_argument("--clusters", type=int, nargs="+", default=[8, 50, 200])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--databases", type=int, nargs="+", default=[10, 100, 1_000])
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 1 when a part could not be measured."""
    args = _parser().parse_args(argv)
    results_path, page_path, images = RESULTS, PAGE, IMAGES
    if args.quick:
        vars(args).update(QUICK_SIZES, parts=QUICK_PARTS)
        shutil.rmtree(QUICK, ignore_errors=True)
        args.out = args.out or QUICK
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        results_path, page_path, images = args.out / "results.json", args.out / "benchmarks.md", args.out / "img"
    started, failed = time.monotonic(), []

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:6.1f} s] {text}", flush=True)

    for name in () if args.page else args.parts:
        say(name)
        try:
            with signals_as_exit():
                found = measure(name, args, args.state, say)
        except Exception as error:
            # One part that cannot be measured must not lose the others.
            failed.append(name)
            say(f"{name} could not be measured: {type(error).__name__}: {error}")
            continue
        results = kept(results_path)
        results["machine"] = machine()
        before = results["parts"].get(name, {}).get("found", {})
        results["parts"][name] = {
            "at": f"{datetime.now(UTC):%Y-%m-%d}",
            # Of the whole machine, ours included: what else ran on it while it was measured.
            "load": round(os.getloadavg()[2], 1),
            "found": merged(name, before, found),
        }
        write(results, results_path)
    document(kept(results_path), page_path, images)
    say(f"written: {results_path}, {page_path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

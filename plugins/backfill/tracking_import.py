"""Import the old scripts' JSON files: `python -m backfill.tracking_import FILE... [options]`.

Reads the files, says what they hold and what is refused, and keeps a history per cluster: in a file that
`airflow variables import` takes (`--out`), or at once in Airflow's Variables (`--set`). Without either it only says
what it would do. If anything is refused, nothing is written, unless `--skip-refused` is given.

Exit code: 0 = all was read (and written, if asked for), 1 = something was refused, 2 = the command cannot be used so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backfill.settings import HISTORY_VARIABLE, load_all
from include.scorecard_backfill.config.load import ClusterError
from include.scorecard_backfill.planning.windows import WindowError, parse_day
from include.scorecard_backfill.tracking.history import Entry, History, HistoryError
from include.scorecard_backfill.tracking.read import Known, mapping_of, read_tracking

Airflow = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
"""Runs Airflow's command line with these arguments; its output is text."""

MISSING = "does not exist"
"""What `airflow variables get` says of a Variable that there is not (3.3.2)."""


class UsageError(Exception):
    """The command cannot be used so; the text says why."""


def main(argv: Sequence[str] | None = None, airflow: Airflow | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(argv)
    try:
        return _run(options, airflow or _airflow)
    except (UsageError, WindowError, HistoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backfill.tracking_import",
        description="Import the old scripts' JSON files as a history per cluster.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="tracking/<cluster>.json and the like")
    parser.add_argument("--cluster", default="", help="cluster of files that name none")
    parser.add_argument("--start", help="first UTC day of entries without days, YYYY-MM-DD")
    parser.add_argument("--end", help="UTC day after their last one (exclusive)")
    parser.add_argument(
        "--skip-refused", action="store_true", help="write what was read although something was refused"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write a file for `airflow variables import`")
    parser.add_argument("--set", action="store_true", help="write Airflow's Variables, by its command line")
    return parser


def _run(options: argparse.Namespace, airflow: Airflow) -> int:
    clusters = tuple(item.name for item in load_all() if not isinstance(item, ClusterError))
    found, problems = _read_all(options, clusters)
    known = _known(options, found, airflow)
    histories = [
        known.get(cluster, History(cluster=cluster)).merged(entries) for cluster, entries in sorted(found.items())
    ]
    for history in histories:
        print("\n".join(history.lines()))
    for problem in problems:
        print(f"refused: {problem}", file=sys.stderr)
    if problems and not options.skip_refused:
        print("Nothing was written: see above, or use --skip-refused.", file=sys.stderr)
        return 1
    _write(options, histories, airflow)
    return 1 if problems else 0


def _read_all(options: argparse.Namespace, clusters: Sequence[str]) -> tuple[dict[str, list[Entry]], list[str]]:
    """Return entries by cluster and what was refused, of all files; their database mappings hold for all of them."""
    if options.cluster and options.cluster not in clusters:
        raise UsageError(f"--cluster: {options.cluster!r} is not known; known: {', '.join(sorted(clusters))}")
    documents = {path: _document(path) for path in options.files}
    databases: dict[str, tuple[str, str]] = {}
    for document in documents.values():
        databases |= mapping_of(document)
    given = Known(
        cluster=options.cluster,
        start=parse_day(options.start, "--start") if options.start else None,
        end=parse_day(options.end, "--end") if options.end else None,
    )
    entries: dict[str, list[Entry]] = {}
    problems: list[str] = []
    for path, document in documents.items():
        read = read_tracking(document, str(path), clusters=clusters, given=given, databases=databases)
        problems += read.problems
        for cluster, entry in read.entries:
            entries.setdefault(cluster, []).append(entry)
        unused = f"; not used: {', '.join(read.unused)}" if read.unused else ""
        print(f"{path}: {len(read.entries)} entries, {len(read.problems)} refused{unused}")
    return entries, problems


def _document(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: is not JSON ({error})") from None


def _known(options: argparse.Namespace, clusters: Mapping[str, object], airflow: Airflow) -> dict[str, History]:
    """Return the histories that there are already, from where the new ones will be written."""
    if options.set:
        return {cluster: history for cluster in clusters if (history := _variable(cluster, airflow)) is not None}
    if options.out is None or not options.out.exists():
        return {}
    known = (History.from_json(json.dumps(value)) for value in _document(options.out).values())
    return {history.cluster: history for history in known}


def _variable(cluster: str, airflow: Airflow) -> History | None:
    key = HISTORY_VARIABLE.format(cluster=cluster)
    done = airflow(["variables", "get", key])
    if done.returncode == 0:
        return History.from_json(done.stdout)
    if MISSING in done.stdout + done.stderr:
        return None
    raise UsageError(f"Variable {key} cannot be read: {_last_line(done)}")


def _write(options: argparse.Namespace, histories: Sequence[History], airflow: Airflow) -> None:
    values = {HISTORY_VARIABLE.format(cluster=history.cluster): history.to_dict() for history in histories}
    text = json.dumps(values, indent=1) + "\n"
    if options.out is not None:
        others = _document(options.out) if options.out.exists() else {}
        options.out.write_text(json.dumps({**others, **values}, indent=1) + "\n", encoding="utf-8")
        print(f"Written: {options.out}. Next: airflow variables import {options.out}")
    if options.set:
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            done = airflow(["variables", "import", file.name])
        if done.returncode:
            raise UsageError(f"Variables were not written: {_last_line(done)}")
        print(f"Set in Airflow: {', '.join(values)}")
    if options.out is None and not options.set:
        print("Nothing was written: use --out FILE or --set.")


def _airflow(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "airflow", *arguments], capture_output=True, text=True, check=False)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


if __name__ == "__main__":
    sys.exit(main())

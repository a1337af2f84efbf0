"""Start the sandbox, clean up one month of one cluster for all customers, and compare with the truth.

    python -m sandbox.demo --state .sandbox [--cluster east] [--order delete_first] [--keep | --no-keep] [--seed 1]

A sandbox that runs over the state folder already (`make up`) is used, and goes on running.

Does over Airflow's REST API what a person does in the UI: unpauses the DAG, triggers a run, reads the plan,
approves it and waits for the report. Exit code 0 only if every window of the plan is verified and the rows
before, after and removed of each customer and table are those of the generator.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import httpx

from sandbox.airflow_api import FINISHED_RUN, AirflowApi, ApiError, wait_for
from sandbox.data.truth import by_customer, read_truth
from sandbox.demo_table import compare, problems, progress_line, table_lines
from sandbox.stack import hold, login_lines, running_stack, signals_as_exit
from sandbox.stack_layout import Options, cluster_names
from sandbox.stack_lock import StateInUseError, holder_pid
from sandbox.stack_model import AIRFLOW_USER, TOPOLOGIES, Cluster, Stack
from sandbox.stack_supervisor import PartError
from sandbox.stack_variants import Variant, add_arguments, variant_of
from sandbox.stack_wait import DeadlineExceededError

# The month in the middle of the generated data (sandbox/data/spec.py); the end is exclusive.
MONTH = (date(2026, 1, 1), date(2026, 2, 1))
CLUSTERS = {"delete_first": "east", "reindex_first": "west"}
"""Where each order is shown: east's file allows the first one only, west's both."""
PLAN_DEADLINE_SECONDS = 180
RUN_DEADLINE_SECONDS = 900
LOOK_SECONDS = 1.0
REQUEST_SECONDS = 150.0
"""Of one call of Airflow's REST API: minutes on a machine that is busy with other things."""
# After so long without a change a line says so; a window takes about 20 s in each stage at most.
QUIET_SECONDS = 60.0

Say = Callable[[str], None]


class DemoError(RuntimeError):
    """The run did not come to a report; the text has what failed and the ends of the logs."""


FAILURES = (DemoError, ApiError, httpx.TransportError, PartError, DeadlineExceededError, StateInUseError)


def run_parameters(order: str) -> dict[str, Any]:
    """Return the parameters of the run, as the trigger form sends them."""
    start, end = MONTH
    return {
        "all_customers": True,
        "start_date": start.isoformat(),
        "end_date": end.isoformat(),
        "mode": "cleanup",
        "order": order,
    }


def clean_month(api: AirflowApi, dag_id: str, order: str, say: Say) -> dict[str, Any]:
    """Trigger a run, approve its plan, wait for its end, and return the report, also that of a red run.

    Raises DemoError when there is no report, DeadlineExceededError when a step takes too long.
    """
    api.unpause(dag_id)
    parameters = run_parameters(order)
    run_id = api.trigger(dag_id, parameters)
    say(f"run {run_id} triggered: {parameters}")
    try:
        asked = api.wait_for_approval(dag_id, run_id, PLAN_DEADLINE_SECONDS)
        say(f"the plan waits for approval: {asked['subject']}\n\n{asked['body']}\n")
        api.approve(dag_id, run_id, PLAN_DEADLINE_SECONDS)
    except RuntimeError as error:
        raise DemoError(f"the plan was not shown, or the run ended before it was approved: {error}") from error
    say("approved")
    state = _wait_for_run(api, dag_id, run_id, say)
    say(f"run ended: {state}")
    if state != "success":
        say(api.failures(dag_id, run_id))
    return _report(api, dag_id, run_id)


def _wait_for_run(api: AirflowApi, dag_id: str, run_id: str, say: Say) -> str:
    shown, changed, quiet = "", time.monotonic(), QUIET_SECONDS

    def finished() -> str | None:
        nonlocal shown, changed, quiet
        # The state first: what is listed after a run has ended is its last state.
        state = api.run_state(dag_id, run_id)
        line = progress_line(api.tasks(dag_id, run_id))
        if line != shown:
            say(line)
            shown, changed, quiet = line, time.monotonic(), QUIET_SECONDS
        elif time.monotonic() - changed >= quiet:
            say(f"no window has moved for {quiet:g} s; the tasks' logs say what they wait for")
            quiet *= 2
        return state if state in FINISHED_RUN else None

    def missing() -> str:
        return f"run {run_id} ends; {api.summary(dag_id, run_id)}"

    return wait_for(finished, RUN_DEADLINE_SECONDS, missing, poll_seconds=LOOK_SECONDS)


def _report(api: AirflowApi, dag_id: str, run_id: str) -> dict[str, Any]:
    try:
        report = api.xcom(dag_id, run_id, "report")
    except ApiError as error:
        raise DemoError(f"run {run_id} left no report ({error}): {api.summary(dag_id, run_id)}") from error
    if not isinstance(report, dict):
        raise DemoError(f"run {run_id}: the report is a {type(report).__name__}, not a record")
    return report


def show_result(report: dict[str, Any], truth_file: Path, say: Say) -> list[str]:
    """Print the table of rows per customer and return what is wrong, [] when nothing is."""
    totals = by_customer(profile.total(*MONTH) for profile in read_truth(truth_file))
    rows = compare(report, totals)
    say("rows of {} to {} (exclusive), expected = removed by the generator's truth".format(*MONTH))
    print("\n".join(["", *table_lines(rows), ""]), flush=True)
    return problems(report, rows)


def demonstrate(stack: Stack, cluster: Cluster, order: str, say: Say) -> list[str]:
    """Clean up the month on one cluster of a running sandbox and return what is wrong, [] when nothing is."""
    with AirflowApi(stack.airflow_url, AIRFLOW_USER, stack.airflow_password, REQUEST_SECONDS) as api:
        report = clean_month(api, cluster.dag_id, order, say)
    return show_result(report, cluster.truth, say)


def login_text(stack: Stack) -> str:
    """Return addresses and login. The password is this sandbox's own and ends with it."""
    return "\n".join([*login_lines(stack), f"Login:   {AIRFLOW_USER} / {stack.airflow_password}"])


def keeps_by_default() -> bool:
    """Stay up only for a person: with a terminal on both sides, and not in continuous integration."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("CI", "").lower() not in ("1", "true")


def clock(started: float) -> Say:
    """Return a printer that puts the seconds since `started` (monotonic clock) before each text."""

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)

    return say


def _run(args: argparse.Namespace) -> int:
    options = Options(seed=args.seed, variant=variant_of(args))
    if holder_pid(args.state) is not None:
        if options.variant != Variant():
            raise StateInUseError(f"a sandbox of unknown parts runs over {args.state}; end it, or name another --state")
        return _verdict(args, Stack.load(args.state))
    with signals_as_exit(), running_stack(args.state, options, lambda text: print(text, flush=True)) as stack:
        print(login_text(stack), flush=True)
        code = _verdict(args, stack)
        if args.keep:
            _stay(stack)
    return code


def _verdict(args: argparse.Namespace, stack: Stack) -> int:
    """Clean up the month and say whether all of it is right: 0, or 1."""
    (name,) = cluster_names(args.cluster or CLUSTERS[args.order])
    say = clock(time.monotonic())
    wrong = demonstrate(stack, stack.cluster(name), args.order, say)
    say("\n".join(["NOT RIGHT:", *wrong]) if wrong else "every window is verified, every count equals the truth")
    return 1 if wrong else 0


def _stay(stack: Stack) -> None:
    print(f"\nThe sandbox stays up; Ctrl-C ends it.\n{login_text(stack)}", flush=True)
    try:
        hold(stack)
    except KeyboardInterrupt:
        print("ending", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--state", type=Path, default=Path(".sandbox"), help="folder of everything that is written")
    clusters = [name for full in TOPOLOGIES for name in (full.removeprefix("sandbox-"), full)]
    parser.add_argument("--cluster", choices=clusters, help="default: east, and west for reindex_first")
    parser.add_argument("--order", default="delete_first", choices=sorted(CLUSTERS), help="default: delete_first")
    add_arguments(parser)
    parser.add_argument("--seed", type=int, default=1, help="seed of the data generator")
    parser.add_argument(
        "--keep",
        action=argparse.BooleanOptionalAction,
        default=keeps_by_default(),
        help="stay up afterwards until Ctrl-C; default: only in a terminal and without CI=true",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 = everything right, 1 = not, 130 = Ctrl-C before the end."""
    args = _parser().parse_args(argv)
    try:
        return _run(args)
    except KeyboardInterrupt:
        return 130
    except (*FAILURES, OSError, ValueError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())

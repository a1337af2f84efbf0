"""The acceptance test of any deployment: one real cleanup through the REST API, compared with the truth.

    AIRFLOW_ADMIN_PASSWORD=... python -m sandbox.accept --url http://127.0.0.1:8080 \
        --dag scorecard_backfill__sandbox-east --truth FILE

It is what `make demo` does on the sandbox, for an Airflow that runs already. Exit code 0 only if every window of the
plan is verified and the rows before, after and removed of each customer and table are those of the generator.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sandbox.airflow_api import AirflowApi
from sandbox.demo import CLUSTERS, FAILURES, clean_month, clock, show_result

PASSWORD_VARIABLE = "AIRFLOW_ADMIN_PASSWORD"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the test; 0 = everything right, 1 = not, 2 = called wrongly."""
    args = _parser().parse_args(argv)
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password:
        print(f"accept: {PASSWORD_VARIABLE} is not set; it is the password of {args.user}", file=sys.stderr)
        return 2
    say = clock(time.monotonic())
    try:
        with AirflowApi(args.url, args.user, password) as api:
            report = clean_month(api, args.dag, args.order, say)
        wrong = show_result(report, args.truth, say)
    except (*FAILURES, OSError, ValueError) as error:
        print(f"accept: {error}", file=sys.stderr)
        return 1
    say("\n".join(["NOT RIGHT:", *wrong]) if wrong else "every window is verified, every count equals the truth")
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.accept", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="Airflow, for example http://127.0.0.1:8080")
    parser.add_argument("--dag", required=True, help="DAG of the cluster")
    parser.add_argument("--truth", required=True, type=Path, help="what python -m sandbox.data wrote")
    parser.add_argument("--order", default="delete_first", choices=sorted(CLUSTERS))
    parser.add_argument("--user", default="admin")
    return parser


if __name__ == "__main__":
    sys.exit(main())

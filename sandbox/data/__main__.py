"""`python -m sandbox.data`: make the data of one sandbox cluster and load it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from sandbox.data.loader import ClickHouseTarget, Paths, load
from sandbox.data.spec import END_DAY, FIRST_DAY, ClusterSpec, SpecError, preset_spec, rates_spec
from sandbox.data.truth import ProfileTruth


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; exit code 0 when loaded, 2 for bad arguments."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        spec = _spec(args)
    except (SpecError, ValueError) as error:
        parser.error(str(error))
    paths = Paths(args.state, args.cluster)
    started = time.monotonic()
    target = ClickHouseTarget(args.clickhouse_url) if args.clickhouse_url else None
    try:
        truths = load(spec, paths, target, replicated=args.replicated)
    finally:
        if target is not None:
            target.close()
    print(_summary(spec, truths, paths, time.monotonic() - started))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox.data", description=__doc__)
    parser.add_argument("--cluster", required=True, help="sandbox-east, sandbox-west or a name with --customer")
    parser.add_argument("--state", required=True, type=Path, help="state folder of the sandbox")
    parser.add_argument("--clickhouse-url", help="http://host:port of one node; without it only the files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the conversations of a preset")
    parser.add_argument("--replicated", action="store_true", help="tables that need a Keeper, as in production")
    parser.add_argument("--stragglers", type=int, default=0, help="late scorecards per profile and month")
    parser.add_argument(
        "--customer",
        action="append",
        metavar="CUSTOMER[/PROFILE]=N",
        help="own data instead of the preset: N conversations a month; may be repeated",
    )
    parser.add_argument("--first-day", type=date.fromisoformat, default=FIRST_DAY, help="with --customer")
    parser.add_argument("--end-day", type=date.fromisoformat, default=END_DAY, help="exclusive, with --customer")
    return parser


def _spec(args: argparse.Namespace) -> ClusterSpec:
    if not args.customer:
        return preset_spec(args.cluster, args.seed, args.scale, args.stragglers)
    rates = {}
    for text in args.customer:
        name, separator, number = text.rpartition("=")
        if not separator or not name or not number.isdigit():
            raise SpecError(f"--customer {text!r} must look like acme=120 or acme/chat=80")
        rates[name] = round(int(number) * args.scale)
    return rates_spec(
        args.cluster,
        rates,
        seed=args.seed,
        first_day=args.first_day,
        end_day=args.end_day,
        stragglers=args.stragglers,
    )


def _summary(spec: ClusterSpec, truths: Sequence[ProfileTruth], paths: Paths, seconds: float) -> str:
    totals = [truth.total(date.min, date.max) for truth in truths]
    return (
        f"{spec.name}: {len(totals)} databases, {sum(t.conversations for t in totals)} conversations,"
        f" {sum(t.scorecard.before for t in totals)} scorecards,"
        f" {sum(t.score.before for t in totals)} scores,"
        f" seed {spec.seed}, {seconds:.1f} s; source {paths.source}, truth {paths.truth}"
    )


if __name__ == "__main__":
    sys.exit(main())

"""A call of the command `python -m backfill` against an Airflow in memory, and invented runs for it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from backfill.cli.main import main
from backfill.cli.output import Output
from include.scorecard_backfill.overview import Overview, overview
from include.scorecard_backfill.overview.facts import WindowFacts
from include.scorecard_backfill.overview.history import ClusterLine, Clusters
from tests.kit.fake_airflow import PAGE, FakeAirflow
from tests.unit.overview_fixtures import at, planned, run, window

DAG, RUN = "scorecard_backfill__east", "manual__1"
TOKEN = {"AIRFLOW_API_URL": "https://airflow.test", "AIRFLOW_API_TOKEN": "the-token"}


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def view(*windows: WindowFacts, **fields: Any) -> Overview:
    return overview(run(windows, **fields), at(60))


VERIFIED = view(window(planned("acme"), done=6), state="success")
FAILED = view(window(planned("acme"), done=4, now="failed"), window(planned("globex"), done=6, index=1), state="failed")


def line(look: Overview, **fields: Any) -> ClusterLine:
    about = {"dag_id": DAG, "cluster": "east", "paused": False, "next_run": None, "run_id": RUN, "state": look.state,
             "headline": look.headline, "counts": look.counts, "attention": look.attention}  # fmt: skip
    return ClusterLine(**{**about, **fields})


def airflow(look: Overview = VERIFIED, *more: ClusterLine, **fields: Any) -> FakeAirflow:
    clusters = Clusters(made_at=at(60), clusters=(line(look, **fields), *more))
    return FakeAirflow(
        answers={
            ("GET", f"{PAGE}/clusters"): json.loads(clusters.model_dump_json()),
            ("GET", f"{PAGE}/run"): json.loads(look.model_dump_json()),
        }
    )


def call(
    server: Callable[[httpx.Request], httpx.Response],
    *argv: str,
    env: dict[str, str] | None = None,
    answers: Sequence[str] | None = None,
) -> Ended:
    """Run the command. ``answers``: what a person types; None: nobody can be asked."""
    out, err = io.StringIO(), io.StringIO()
    left = list(answers or ())
    ask = None if answers is None else lambda _: left.pop(0)
    output = Output("--json" in argv, out, err, ask)
    code = main(argv, env=TOKEN if env is None else env, transport=httpx.MockTransport(server), output=output,
                sleep=lambda _: None)  # fmt: skip
    assert not left, "the command has asked less often than the test expects"
    return Ended(code, out.getvalue(), err.getvalue())

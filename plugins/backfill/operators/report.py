"""The report: what the run did, printed and pushed before anything else; red unless every window is verified."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator

from backfill import metrics
from backfill.hooks.kubernetes import KubernetesJobs, brief
from backfill.kit import xcoms
from backfill.kit.announce import announce
from backfill.kit.debts import INDEX, DebtBook, DebtIndexError
from backfill.kit.refusal import Refusal
from backfill.kit.results import planned, results_of
from backfill.notify.tell import run_of, tell
from backfill.settings import cluster_config
from backfill.slots import Place
from include.scorecard_backfill.graph import tasks_of
from include.scorecard_backfill.job import cluster_selector
from include.scorecard_backfill.markdown import not_verified_in_short, report_markdown
from include.scorecard_backfill.notices import finished_notice, rejection
from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.records import Deleted, Failure, Record, Verified, Window
from include.scorecard_backfill.records.report import Report
from include.scorecard_backfill.report import VERIFIED, Outcome, build_report, unwatched
from include.scorecard_backfill.spoiled import OpenDebts, Spoiled


class ReportOperator(BaseOperator):
    """Joins everything by window key, prints it, and is red unless every window of the plan is verified."""

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Any) -> dict[str, Any]:
        """Return the report. Raises Refusal when a window is not verified, with the report in the log."""
        ti = context["ti"]
        passes = planned(context)
        records = self._records(context, passes)
        windows = [place.window for place in passes[0]]
        parts = [place.window for listed in passes[1:] for place in listed]
        debts = self._debts([*windows, *parts])
        outcome = Outcome(
            windows=windows,
            parts=parts,
            verified=[r for r in records if isinstance(r, Verified)],
            deleted=[r for r in records if isinstance(r, Deleted)],
            failures=[r for r in records if isinstance(r, Failure)],
            debts=debts.readable,
            spoiled=debts.spoiled,
        )
        run = xcoms.chosen(ti)
        changes: dict[str, Any] = {"cluster": self.cluster, "run_id": context["dag_run"].run_id}
        changes |= {"mode": run.mode if run else None, "refused": self._refused(ti, run)}
        if run and run.dry_run:
            changes |= {"dry_run": xcoms.text(ti, "plan", xcoms.MARKDOWN), "complete": True}
        report = build_report(outcome).model_copy(update=changes)
        if not report.refused and not report.complete:
            done = {r.key for r in outcome.verified if r.status == VERIFIED}
            report = report.model_copy(update=self._running([*windows, *parts], done))
        self._push(ti, report)
        self._tell(ti, report)
        self._raise_unless_done(report)
        if not report.dry_run:
            announce(context, self.cluster, report.to_json(), self.log)
        return report.to_json()

    def _push(self, ti: Any, report: Report) -> None:
        markdown = report_markdown(report)
        self.log.info("report\n%s", markdown)
        ti.xcom_push(key=xcoms.MARKDOWN, value=markdown)
        ti.xcom_push(key=xcoms.SUMMARY, value=report.summary())
        ti.xcom_push(key=xcoms.RESULT, value=report.to_json())

    def _tell(self, ti: Any, report: Report) -> None:
        """Tell people and metrics how the run has ended. Never raises: what is told changes no verdict."""
        try:
            config = cluster_config(self.cluster)
            others = {"waiting": 0, "running": 0}
            done, planned = report.verified, report.planned
            if not report.dry_run:
                metrics.windows_by_state(self.cluster, {**others, "verified": done, "failed": planned - done})
            tell(config, finished_notice(run_of(ti, self.cluster), report.to_json()))
        except Exception:
            self.log.warning("the end of the run could not be told", exc_info=True)

    def _raise_unless_done(self, report: Report) -> None:
        if report.refused:
            raise Refusal(report.refused)
        if not report.complete:
            raise Refusal(not_verified_in_short(report))

    def _refused(self, ti: Any, run: Chosen | None) -> str:
        """Return why nothing was done at all: input that was refused, a plan that a person rejected; '' otherwise."""
        if rejected := rejection(xcoms.pull(ti, "approve", xcoms.REJECTED)):
            return rejected
        for task_id in ("preflight", "plan"):
            if sentence := xcoms.text(ti, task_id, xcoms.REFUSED):
                return sentence
        return "" if run else "There is no plan: preflight or plan failed (see their logs); nothing was deleted."

    def _debts(self, windows: Sequence[Window]) -> OpenDebts:
        """Return the cluster's open debts; what was paid leaves the index, what the run owes is in it."""
        try:
            return DebtBook(self.cluster).prune(w.key for w in windows if w.destructive)
        except DebtIndexError as error:
            # What this run did is known without it, and is reported first of all.
            return OpenDebts(spoiled=(Spoiled(INDEX, str(error)),))

    def _running(self, windows: Sequence[Window], verified: set[str]) -> dict[str, Any]:
        """Return the report's fields of the run's live Jobs, or why they are not known; it is red in either case."""
        try:
            client = KubernetesJobs.for_worker(cluster_config(self.cluster))
            jobs = asyncio.run(client.jobs(cluster_selector(self.cluster)))
        except Exception as error:
            self.log.exception("the Jobs cannot be listed")
            return {"running_unknown": brief(error)}
        return {"running": tuple(unwatched(windows, jobs, verified))}

    def _records(self, context: Any, passes: Sequence[Sequence[Place]]) -> list[Record]:
        return [
            record
            for listed in passes
            for task in tasks_of(cluster_config(self.cluster).orders)
            if task != "admit"
            for record in results_of(context, listed, task)
        ]

"""Tidy: what the next plan should know, and copies whose days are over; after the report, so that it spoils nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from airflow.sdk import BaseOperator, Variable
from airflow.sdk.exceptions import AirflowException

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit import xcoms
from backfill.kit.announce import announce
from backfill.kit.results import planned, results_of
from backfill.settings import LEARNED_VARIABLE, cluster_config
from backfill.snapshots import Snapshots
from include.scorecard_backfill.months import is_complete
from include.scorecard_backfill.planning import learned
from include.scorecard_backfill.records import Failure, Record, Window, WorkflowsClosed


class TidyError(AirflowException):
    """Something that the next run would like to have is not done; nothing of this run depends on it."""


class TidyOperator(BaseOperator):
    """Keeps what the windows say about sizes and speed, and drops the snapshots of any run whose days are over."""

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Any) -> None:
        """Do all of it, whatever becomes of one part.

        Raises:
            TidyError: parts have failed; the others are done.
        """
        passes = planned(context)
        waited = [record for listed in passes for record in results_of(context, listed, "wait_workflows")]
        windows = [place.window for listed in passes for place in listed]
        failed: list[str] = []
        for what, part in (
            ("sizes and speeds are not kept", lambda: self._learn(windows, waited)),
            ("expired snapshots are not removed", self._remove_snapshots),
            ("verified months are not announced", lambda: self._announce(context)),
        ):
            try:
                part()
            except Exception as error:
                # The parts have nothing to do with one another: each is tried, and all that failed is said at the end.
                self.log.exception("%s", what)
                failed.append(f"{what}: {type(error).__name__}: {error}")
        if failed:
            raise TidyError("; ".join(failed) + ". The report is not touched by it; correct it and clear this task")

    def _announce(self, context: Any) -> None:
        """Leave an asset event for each customer and month that an incomplete run has verified all the same."""
        report = xcoms.pull(context["ti"], "report", xcoms.RESULT) or {}
        if not is_complete(report):
            announce(context, self.cluster, report, self.log)

    def _learn(self, windows: Sequence[Window], waited: Iterable[Record]) -> None:
        by_key = {w.key: w for w in windows}
        outcomes = [
            learned.Outcome(
                by_key[key].customer_id,
                by_key[key].conversations,
                record.minutes if isinstance(record, WorkflowsClosed) else 0.0,
                record.cause if isinstance(record, Failure) else "",
            )
            for record in waited
            if isinstance(record, (WorkflowsClosed, Failure)) and (key := record.key) in by_key
            if isinstance(record, Failure) or record.status == "completed"
        ]
        if not outcomes:
            return
        name = LEARNED_VARIABLE.format(cluster=self.cluster)
        try:
            known = learned.parse_learned(Variable.get(name, default=None))
        except ValueError as error:
            raise TidyError(f"the Airflow Variable {name} cannot be read ({error}); mend or delete it") from None
        Variable.set(name, learned.dump_learned(learned.learn(known, outcomes)))

    def _remove_snapshots(self) -> None:
        config = cluster_config(self.cluster)
        if not config.snapshot.enabled:
            return
        hook = BackfillClickHouse(config)
        if removed := Snapshots(hook, hook.topology()).remove_expired():
            self.log.info("expired snapshots removed: %s", ", ".join(removed))

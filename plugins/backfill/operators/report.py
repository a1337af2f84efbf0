"""Replan and report: what must be cut smaller, and what the run did."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow.sdk import BaseOperator, Variable
from airflow.sdk.exceptions import AirflowFailException

from backfill.groups import GROUPS, PASSES, pass_of
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.hooks.kubernetes import KubernetesJobs, brief
from backfill.operators.common import RunStore, planned, windows_of
from backfill.records import parse_record
from backfill.settings import LEARNED_VARIABLE, cluster_config
from backfill.snapshots import Snapshots
from include.scorecard_backfill.job import cluster_selector
from include.scorecard_backfill.planning import learned, replan
from include.scorecard_backfill.report import VERIFIED, build_report, report_markdown, unwatched

Json = dict[str, Any]

WAITS = ("wait_mutations", "wait_workflows", "verify")
READ = ("delete", *WAITS)
"""Stages whose results the report is made of; each is asked for once."""


def results(context: Mapping[str, Any], group: str, stage: str, count: int) -> list[Json]:
    """Return what the instances of a stage returned; each record carries its key, positions mean nothing.

    All come by one call to the API server; with indexes named, Airflow makes one call for each.
    """
    if not count:
        return []
    found = context["ti"].xcom_pull(task_ids=f"{group}.{stage}")
    listed = found if isinstance(found, list) else [found]
    return [record for item in listed if (record := parse_record(item))]


class ReplanOperator(BaseOperator):
    """Cuts the windows of a pass that failed because they were too big; returns the smaller ones, [] for none."""

    def __init__(self, *, cluster: str, group: str, max_windows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.group = group
        self.max_windows = max_windows

    def execute(self, context: Any) -> list[Json]:
        """Return the smaller windows; frozen once made, like the plan."""
        store = RunStore(context)
        frozen = store.get("parts")
        windows = windows_of(context, pass_of(self.group))
        failures = results(context, self.group, "wait_workflows", len(windows))
        parts: list[Json] = list(frozen or [])
        known = {p["part_of"] for p in parts}
        fresh = [w for w in replan.too_big(windows, failures) if w["key"] not in known]
        # Only the planned window was counted before anything was deleted: its days are those of every part, too.
        deleted = {d["key"]: d for d in results(context, PASSES[0].group, "delete", len(fresh))}
        for window in fresh:
            counted = deleted.get(window["part_of"] or window["key"], {})
            smaller = replan.cut(window, counted, context["dag_run"].run_id)
            self.log.info("%s is cut into %d", window["label"], len(smaller))
            parts += smaller
        if len(parts) > self.max_windows:
            raise AirflowFailException(f"{len(parts)} smaller windows > {self.max_windows} ([core] max_map_length)")
        store.set("parts", parts)
        context["ti"].xcom_push(key="customers", value=[p["customer_id"] for p in parts])
        context["ti"].xcom_push(key="cut", value=sorted({p["part_of"] for p in parts}))
        return parts


class ReportOperator(BaseOperator):
    """Joins everything by window key, prints it, and is red unless every window of the plan is verified."""

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Any) -> Json:
        """Return the report. Raises AirflowFailException when a window is not verified, with the report in the log."""
        ti = context["ti"]
        passes = planned(context)
        windows, parts = passes[0], [part for listed in passes[1:] for part in listed]
        records = {stage: self._all(context, stage, passes) for stage in READ}
        plan_made = ti.xcom_pull(task_ids="plan", key="hash") is not None
        run = ti.xcom_pull(task_ids="plan", key="run") or {}
        report = build_report(
            windows,
            parts,
            records["verify"],
            records["delete"],
            self._failures(records),
        )
        report |= {"cluster": self.cluster, "run_id": context["dag_run"].run_id, "mode": run.get("mode")}
        if plan_made and not report["complete"]:
            verified = [r["key"] for r in records["verify"] if r.get("status") == VERIFIED]
            report |= self._running([*windows, *parts], verified)
        self._learn([*windows, *parts], records["wait_workflows"])
        self._remove_snapshots()
        markdown = report_markdown(report)
        self.log.info("report\n%s", markdown)
        ti.xcom_push(key="markdown", value=markdown)
        ti.xcom_push(key="return_value", value=report)
        if not plan_made:
            raise AirflowFailException(
                "there is no plan: preflight or plan failed (see their logs); nothing was deleted"
            )
        if run.get("dry_run"):
            self.log.info("dry run: nothing was changed")
        elif not windows:
            self.log.info("no windows: nothing was to be done")
        elif not report["complete"]:
            raise AirflowFailException(
                f"{report['planned'] - report['verified']} of {report['planned']} windows are not verified:\n"
                + "\n".join(
                    f"- {r['label']}: {r['status']} {r['note']}" for r in report["windows"] if r["status"] != "verified"
                )
            )
        return report

    def _running(self, windows: Sequence[Json], verified: Sequence[str]) -> Json:
        """Return the run's live Jobs for the report, or why they are not known; the report is red in either case."""
        try:
            client = KubernetesJobs.for_worker(cluster_config(self.cluster))
            jobs = asyncio.run(client.jobs(cluster_selector(self.cluster)))
        except Exception as error:
            self.log.exception("the Jobs cannot be listed")
            return {"running_unknown": brief(error)}
        return {"running": unwatched(windows, jobs, verified)}

    def _remove_snapshots(self) -> None:
        """Drop the snapshots of any run whose days are over."""
        config = cluster_config(self.cluster)
        if not config.snapshot.enabled:
            return
        hook = BackfillClickHouse(config)
        if removed := Snapshots(hook, hook.topology()).remove_expired():
            self.log.info("expired snapshots removed: %s", ", ".join(removed))

    def _learn(self, windows: Sequence[Json], waited: Iterable[Json]) -> None:
        """Keep what the windows say about sizes and speed for the next plan; one run at a time writes it."""
        by_key = {w["key"]: w for w in windows}
        outcomes = [
            learned.Outcome(
                by_key[r["key"]]["customer_id"],
                by_key[r["key"]]["conversations"],
                float(r.get("minutes") or 0),
                str(r.get("cause") or ""),
            )
            for r in waited
            if r.get("key") in by_key and r.get("status") in ("completed", "failed")
        ]
        if not outcomes:
            return
        name = LEARNED_VARIABLE.format(cluster=self.cluster)
        known = learned.parse_learned(Variable.get(name, default=None))
        Variable.set(name, learned.dump_learned(learned.learn(known, outcomes)))

    def _all(self, context: Any, stage: str, passes: Sequence[Sequence[Json]]) -> list[Json]:
        found = [results(context, group, stage, len(listed)) for group, listed in zip(GROUPS, passes, strict=True)]
        return [record for records in found for record in records]

    def _failures(self, records: Mapping[str, Iterable[Json]]) -> dict[str, str]:
        found: dict[str, str] = {}
        for stage in WAITS:
            for record in self._failed(records[stage]):
                found[record["key"]] = f"{stage}: {record.get('cause')}: {record.get('reason')}"
        return found

    def _failed(self, records: Iterable[Json]) -> Iterable[Json]:
        return (r for r in records if r.get("status") == "failed" and r.get("key"))

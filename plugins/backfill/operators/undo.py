"""Undo: put back the rows of a run's snapshots that are not there any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from backfill.groups import PASSES
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.settings import DAG_ID_PREFIX, cluster_config
from backfill.snapshots import Snapshots
from include.scorecard_backfill.records import plain as parse

Json = dict[str, Any]


def refuse_beside_a_run(ti: Any, dag_id: str) -> None:
    """Raise AirflowFailException while a run of the cluster's DAG may delete what would be put back here."""
    if running := ti.get_dr_count(dag_id=dag_id, states=["running", "queued"]):
        raise AirflowFailException(
            f"{running} runs of {dag_id} are not finished; nothing was changed. Clear this task when they have ended"
        )


class UndoPlanOperator(BaseOperator):
    """Looks for the snapshots of a run's windows and says what is missing of each; changes nothing."""

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Any) -> list[Json]:
        """Return the windows with missing rows. Raises AirflowFailException when there is no such run or snapshot."""
        params: Mapping[str, Any] = context["params"]
        ti = context["ti"]
        dag_id, run_id = f"{DAG_ID_PREFIX}{self.cluster}", str(params["run_id"] or "").strip()
        refuse_beside_a_run(ti, dag_id)
        windows: list[Json] = []
        for one in PASSES:
            windows += parse(ti.xcom_pull(dag_id=dag_id, run_id=run_id, task_ids=one.source, key="return_value")) or []
        if not windows:
            raise AirflowFailException(f"run_id: {run_id!r} of {dag_id} has no plan; nothing was changed")
        chosen = [w for w in windows if params["all_customers"] or w["customer_id"] in (params["customers"] or [])]
        if not chosen:
            known = ", ".join(sorted({w["customer_id"] for w in windows}))
            raise AirflowFailException(
                f"customers: {params['customers']} and all_customers false choose no window of {run_id}; it has {known}"
            )
        hook = BackfillClickHouse(cluster_config(self.cluster))
        snapshots = Snapshots(hook, hook.topology())
        existing = snapshots.existing()
        found: list[Json] = []
        lines = ["| window | table | rows to put back |", "|---|---|---:|"]
        for window in chosen:
            missing = snapshots.missing(window, existing)
            lines += [f"| {window['label']} | {table} | {item['count']:,} |" for table, item in missing.items()]
            if any(item["count"] for item in missing.values()):
                found.append(window)
        if len(lines) == 2:
            raise AirflowFailException(f"no window of {run_id} has a snapshot (not enabled, or expired)")
        ti.xcom_push(key="markdown", value="\n".join(lines))
        self.log.info("to put back\n%s", "\n".join(lines))
        return found


class UndoOperator(BaseOperator):
    """Puts the missing rows back and counts again."""

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Any) -> Json:
        """Return the number of windows. Raises AirflowFailException while rows are still missing."""
        refuse_beside_a_run(context["ti"], f"{DAG_ID_PREFIX}{self.cluster}")
        windows = parse(context["ti"].xcom_pull(task_ids="look", key="return_value")) or []
        hook = BackfillClickHouse(cluster_config(self.cluster))
        snapshots = Snapshots(hook, hook.topology())
        existing = snapshots.existing()
        left: list[str] = []
        for window in windows:
            snapshots.restore(window, existing)
            missing = snapshots.missing(window, existing)
            left += [f"{window['label']}: {t}: {item['count']}" for t, item in missing.items() if item["count"]]
            self.log.info("%s: put back", window["label"])
        if left:
            raise AirflowFailException("rows are still missing: " + "; ".join(left))
        return {"windows": len(windows)}

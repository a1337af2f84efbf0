"""Undo: put back the rows of a run's snapshots that are not there any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator

from backfill.groups import PASSES
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit import xcoms
from backfill.kit.putback import remember_put_back
from backfill.kit.refusal import Refusal
from backfill.operators.question import Question
from backfill.settings import DAG_ID_PREFIX, cluster_config
from backfill.snapshots import Snapshots
from include.scorecard_backfill.names import digest
from include.scorecard_backfill.params.undo import UndoParams
from include.scorecard_backfill.putback import PutBackError
from include.scorecard_backfill.records import MissingRows, Window, plain


def refuse_beside_a_run(ti: Any, dag_id: str) -> None:
    """Raise Refusal while a run of the cluster's DAG may delete what would be put back here."""
    if running := ti.get_dr_count(dag_id=dag_id, states=["running", "queued"]):
        raise Refusal(
            f"{running} runs of {dag_id} are not finished; nothing was changed. Clear this task when they have ended"
        )


class UndoPlanOperator(BaseOperator):
    """Looks for the snapshots of a run's windows and says what is missing of each; changes nothing."""

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Any) -> list[dict[str, Any]]:
        """Return the windows with missing rows.

        Raises:
            Refusal: there is no such run or snapshot, or rows cannot be put back as they were (columns have changed).
        """
        params = UndoParams.read(context["params"])
        chosen = self._chosen(context["ti"], params)
        hook = BackfillClickHouse(cluster_config(self.cluster))
        snapshots = Snapshots(hook, hook.topology())
        existing = snapshots.existing()
        if refused := list(dict.fromkeys(s for window in chosen for s in snapshots.refusals(window, existing))):
            raise Refusal("nothing was put back, because columns have changed: " + "; ".join(refused))
        looked = [(window, snapshots.missing(window, existing)) for window in chosen]
        if not any(missing for _, missing in looked):
            raise Refusal(f"no window of {params.run_id} has a snapshot (not enabled, or expired)")
        text = _table(looked, meant=params.meant)
        context["ti"].xcom_push(key=xcoms.MARKDOWN, value=text)
        self.log.info("to put back\n%s", text)
        return [w.to_json() for w, missing in looked if any(_to_put_back(m, params.meant) for m in missing)]

    def _chosen(self, ti: Any, params: UndoParams) -> list[Window]:
        dag_id, run_id = f"{DAG_ID_PREFIX}{self.cluster}", params.run_id.strip()
        refuse_beside_a_run(ti, dag_id)

        def left(source: str, key: str) -> Any:
            return plain(ti.xcom_pull(dag_id=dag_id, run_id=run_id, task_ids=source, key=key))

        # The result of a plan in batches is its first one; without batches it is all, or nothing of a dry run.
        sources = dict.fromkeys((groups[0].source for groups in PASSES), xcoms.RESULT)
        sources |= {"plan": xcoms.PLANNED} if left("plan", xcoms.BATCHES) else {}
        windows = [Window.from_json(item) for source, key in sources.items() for item in left(source, key) or []]
        if not windows:
            raise Refusal(f"run_id: {run_id!r} of {dag_id} has no plan; nothing was changed")
        chosen = [w for w in windows if params.chooses(w.customer_id)]
        if not chosen:
            known = ", ".join(sorted({w.customer_id for w in windows}))
            raise Refusal(
                f"customers: {params.customers} and all_customers false choose no window of {run_id}; it has {known}"
            )
        return chosen


def _to_put_back(missing: MissingRows, meant: bool) -> int:
    return missing.count + (missing.meant if meant else 0)


def _table(looked: Sequence[tuple[Window, Sequence[MissingRows]]], *, meant: bool) -> str:
    """Return what would be put back as Markdown; rows that were meant to go stay away unless somebody asks for them."""
    lines = ["| window | table | rows to put back | meant to go, stay away |", "|---|---|---:|---:|"]
    for window, missing in looked:
        for m in missing:
            away = 0 if meant else m.meant
            lines.append(f"| {window.label} | {m.database}.{m.table} | {_to_put_back(m, meant):,} | {away:,} |")
    every = [m for _, missing in looked for m in missing]
    for table in sorted({m.table for m in every}):
        rows = sum(_to_put_back(m, meant) for m in every if m.table == table)
        away = 0 if meant else sum(m.meant for m in every if m.table == table)
        lines.append(f"| **all** | {table} | **{rows:,}** | **{away:,}** |")
    return "\n".join(lines)


class UndoApproval(Question):
    """Asks a person who sees what would be put back."""

    def about(self, context: Any) -> str:
        """Return the digest of the text that a person is shown."""
        return digest(str(self.body))

    def another(self, about: str, shown: str) -> str:
        """Return what to do when other rows are missing than a person was shown."""
        return (
            f"other rows are missing (digest {about}) than a person was shown ({shown}), and Airflow shows a task's"
            " first question for as long as its run lives; nothing was put back. Start a new run"
        )

    def rejection(self, context: Any, who: str) -> str:
        """Return who has rejected it."""
        return f"the undo was rejected by {who}; nothing was put back"


class UndoOperator(BaseOperator):
    """Puts the missing rows back and counts again."""

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Any) -> dict[str, int]:
        """Return the number of windows. Raises Refusal while rows are still missing."""
        refuse_beside_a_run(context["ti"], f"{DAG_ID_PREFIX}{self.cluster}")
        meant = UndoParams.read(context["params"]).meant
        found = plain(context["ti"].xcom_pull(task_ids="look", key=xcoms.RESULT)) or []
        hook = BackfillClickHouse(cluster_config(self.cluster))
        snapshots = Snapshots(hook, hook.topology())
        existing = snapshots.existing()
        left: list[str] = []
        windows = [Window.from_json(item) for item in found]
        remember_put_back(self.cluster, windows)
        for window in windows:
            try:
                snapshots.restore(window, existing, meant=meant)
            except PutBackError as error:
                raise Refusal(f"{window.label} is not put back: {error}") from None
            left += [
                f"{window.label}: {m.database}.{m.table}: {rows}"
                for m in snapshots.missing(window, existing)
                if (rows := _to_put_back(m, meant))
            ]
            self.log.info("%s: put back", window.label)
        if left:
            raise Refusal("rows are still missing: " + "; ".join(left))
        return {"windows": len(found)}

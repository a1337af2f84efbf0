"""Stages that start in the triggerer and never occupy a worker, unless a clear asks for an action."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import StartTriggerArgs

from backfill.groups import pass_of
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.operators.common import RunStore, already, sibling
from backfill.operators.delete import SendsDeletes
from backfill.operators.deleter import show_how_to_kill
from backfill.operators.reindex import ReindexOperator
from backfill.settings import cluster_config
from backfill.triggers.base import DEADLINE_MARGIN_SECONDS
from backfill.triggers.chunk import event_failed
from backfill.triggers.mutations import MutationsTrigger
from backfill.triggers.verify import VerifyTrigger
from backfill.triggers.workflows import WorkflowsTrigger

Json = dict[str, Any]


def pulled(task_id: str, key: str = "return_value", *, mapped: bool = True) -> str:
    """Return the template that renders another task's XCom as JSON, of the same map index when ``mapped``.

    The index is always named: without it Airflow asks for the XComs of all indexes, a question that a triggerer never
    answers, so that the trigger would hang for ever.
    """
    index = f", map_indexes={'ti.map_index' if mapped else '-1'}"
    return f"{{{{ ti.xcom_pull(task_ids='{task_id}', key='{key}'{index}) | tojson }}}}"


def cut_windows(group: str) -> str:
    """Return the template of the keys of the group's windows that were cut: their stages have nothing more to do."""
    cut_by = pass_of(group).cut_by
    return pulled(cut_by, "cut", mapped=False) if cut_by else "null"


def limit(seconds: float) -> timedelta:
    """Return Airflow's own time-out for a wait that ends itself after ``seconds``."""
    return timedelta(seconds=seconds + DEADLINE_MARGIN_SECONDS)


def fail(context: Any, event: Json | None) -> AirflowFailException:
    """Keep the record of a trigger's failure for the retry and the report, and return the exception to raise.

    A worker does it and not the trigger, so that Airflow's retries, which are for killed workers, do not repeat it.
    """
    if not event or event.get("action") != "fail":
        return AirflowFailException(f"unexpected event {json.dumps(event, default=str)[:500]}")
    record: Json = event["record"]
    context["ti"].xcom_push(key="return_value", value=record)
    return AirflowFailException(f"{record['cause']}: {record['reason']}. Clear this task for a new try")


class TriggeredWait(BaseOperator):
    """A task that starts in the triggerer; its trigger ends it. Subclasses set ``template_fields`` to their kwargs."""

    start_from_trigger = True
    trigger_path: str

    def __init__(self, *, cluster: str, trigger_kwargs: Json, timeout: timedelta | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        for name in self.template_fields:
            setattr(self, name, trigger_kwargs[name])
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=self.trigger_path,
            trigger_kwargs={"cluster": cluster, **trigger_kwargs},
            next_method="resume",
            next_kwargs={},
            timeout=timeout,
        )

    def execute(self, context: Any) -> Any:
        """Never called in a scheduler; a run without a triggerer has no business here."""
        raise AirflowFailException(f"{self.task_id} runs in the triggerer only; start one")

    def resume(self, context: Any, event: Json | None = None) -> Any:
        """Act on the trigger's event: end the task as failed, or an action that a subclass knows."""
        raise fail(context, event)


class AdmitOperator(TriggeredWait):
    """Waits for a free slot."""

    trigger_path = "backfill.triggers.admit.AdmitTrigger"
    template_fields = ("run_id", "map_index", "customers", "run_record", "verified")

    def __init__(self, *, cluster: str, group: str, dag_id: str, **kwargs: Any) -> None:
        super().__init__(
            cluster=cluster,
            trigger_kwargs={
                "dag_id": dag_id,
                "run_id": "{{ run_id }}",
                "group": group,
                "map_index": "{{ ti.map_index }}",
                "customers": pulled(pass_of(group).source, "customers", mapped=False),
                "run_record": pulled("plan", "run", mapped=False),
                "verified": pulled(f"{group}.verify"),
            },
            **kwargs,
        )


class WaitMutationsOperator(TriggeredWait, SendsDeletes):
    """Waits for the window's mutations; cleared after one was killed or is missing, it has the DELETE sent again."""

    trigger_path = "backfill.triggers.mutations.MutationsTrigger"
    template_fields = ("deleted", "previous", "verified", "cut", "overlap")

    def __init__(self, *, cluster: str, group: str, **kwargs: Any) -> None:
        super().__init__(
            cluster=cluster,
            trigger_kwargs={
                "deleted": pulled(f"{group}.delete"),
                "previous": pulled(f"{group}.wait_mutations"),
                "verified": pulled(f"{group}.verify"),
                "cut": cut_windows(group),
                "overlap": "{{ params.overlap }}",
            },
            timeout=limit(cluster_config(cluster).clickhouse.mutation_deadline_seconds),
            **kwargs,
        )

    def resume(self, context: Any, event: Json | None = None) -> Any:
        """Send the DELETE again under the next generation and wait for that one."""
        if not event or event.get("action") != "resend":
            self._show_how_to_kill(context, event)
            raise fail(context, event)
        store = RunStore(context)
        store.set("resend", event["deleted"])
        return self._resend(context, event["deleted"])

    def step_may_go(self, context: Any, event: Json) -> Any:
        """Go on with the next step of sending again."""
        deleted: Json = RunStore(context).get("resend")
        if event_failed(event):
            # The clear after this must send the generation after the one that has failed now.
            event["record"]["deleted"] = {**deleted, "generation": int(deleted["generation"]) + 1}
            self._show_how_to_kill(context, event)
            raise fail(context, event)
        return self._resend(context, deleted)

    def _show_how_to_kill(self, context: Any, event: Json | None) -> None:
        record: Json = (event or {}).get("record") or {}
        if deleted := record.get("deleted"):
            hook = BackfillClickHouse(cluster_config(self.cluster))
            show_how_to_kill(hook, context, self.log, record, int(deleted["generation"]))

    def _resend(self, context: Any, deleted: Json) -> Any:
        window: Json = deleted["window"]
        if done := already(context, window):
            return {"key": deleted["key"], "status": done}
        generation = int(deleted["generation"]) + 1
        sent = self.send_all(context, window, deleted["before"], generation, drop=False)
        return self._wait_for({**deleted, "sent": sent, "generation": generation}, context)

    def _wait_for(self, deleted: Json, context: Any) -> Any:
        config = cluster_config(self.cluster)
        self.defer(
            trigger=MutationsTrigger(
                cluster=self.cluster,
                key=deleted["key"],
                not_before=time.time() + config.kubernetes.first_poll_after_seconds,
                deleted=deleted,
                overlap=str(context["params"].get("overlap")),
            ),
            method_name="resume",
            timeout=limit(config.clickhouse.mutation_deadline_seconds),
        )


class WaitWorkflowsOperator(ReindexOperator):
    """Waits for the window's workflows; cleared after they failed, it makes a new reindex by reindex's own code."""

    start_from_trigger = True
    template_fields = ("reindexed", "previous", "verified", "cut")  # type: ignore[assignment]

    def __init__(self, *, cluster: str, group: str, **kwargs: Any) -> None:
        super().__init__(cluster=cluster, **kwargs)
        self.reindexed = pulled(f"{group}.reindex")
        self.previous = pulled(f"{group}.wait_workflows")
        self.verified = pulled(f"{group}.verify")
        self.cut = cut_windows(group)
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=WorkflowsTrigger.path,
            trigger_kwargs={
                "cluster": cluster,
                "reindexed": self.reindexed,
                "previous": self.previous,
                "verified": self.verified,
                "cut": self.cut,
            },
            next_method="resume",
            next_kwargs={},
            timeout=limit(cluster_config(cluster).temporal.deadline_seconds),
        )

    def execute(self, context: Any) -> Any:
        """Never called in a scheduler; see TriggeredWait."""
        raise AirflowFailException(f"{self.task_id} runs in the triggerer only; start one")

    def resume(self, context: Any, event: Json | None = None) -> Any:
        """Make the new reindex that a cleared failure asks for."""
        if not event or event.get("action") != "reindex":
            raise fail(context, event)
        window: Json = event["window"]
        if done := already(context, window):
            return {"key": window["key"], "status": done}
        return self.ensure_job(context, window, failed_attempt=int(event["attempt"]))

    def job_ended(self, context: Any, event: Json, window: Json) -> Any:
        """Wait for the workflows of the new Job."""
        self.window = window
        return self._wait_for_workflows(super().job_ended(context, event, window))

    def _wait_for_workflows(self, record: Json, then: str = "") -> Any:
        config = cluster_config(self.cluster)
        self.defer(
            trigger=WorkflowsTrigger(
                cluster=self.cluster,
                key=record["key"],
                not_before=time.time() + config.kubernetes.first_poll_after_seconds,
                reindexed=record,
                then=then,
            ),
            method_name="resume",
            timeout=limit(config.temporal.deadline_seconds),
        )


class VerifyOperator(WaitWorkflowsOperator):
    """Counts until two looks agree; cleared after rows were missing, it makes a new reindex and counts again."""

    template_fields = ("deleted", "waited", "previous", "cut")

    def __init__(self, *, cluster: str, group: str, **kwargs: Any) -> None:
        super().__init__(cluster=cluster, group=group, **kwargs)
        self.deleted = pulled(f"{group}.delete")
        self.waited = pulled(f"{group}.wait_workflows")
        self.previous = pulled(f"{group}.verify")
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=VerifyTrigger.path,
            trigger_kwargs={
                "cluster": cluster,
                "deleted": self.deleted,
                "waited": self.waited,
                "previous": self.previous,
                "cut": self.cut,
            },
            next_method="resume",
            next_kwargs={},
            timeout=limit(cluster_config(cluster).clickhouse.verify_deadline_seconds),
        )

    def resume(self, context: Any, event: Json | None = None) -> Any:
        """Make a new reindex, or count after one."""
        if event and event.get("action") == "completed":
            return self._count_again(context, int(event["attempt"]))
        return super().resume(context, event)

    def _wait_for_workflows(self, record: Json, then: str = "") -> Any:
        return super()._wait_for_workflows(record, then="verify")

    def _count_again(self, context: Any, attempt: int) -> Any:
        config = cluster_config(self.cluster)
        self.defer(
            trigger=VerifyTrigger(
                cluster=self.cluster,
                not_before=time.time() + config.kubernetes.first_poll_after_seconds,
                deleted=sibling(context, "delete"),
                attempt=attempt,
            ),
            method_name="resume",
            timeout=limit(config.clickhouse.verify_deadline_seconds),
        )

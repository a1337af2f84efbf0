"""One DAG for each cluster file: delete old scorecards, reindex them, prove it.

A run plans *windows* (one customer, some UTC days), shows the plan, asks before anything is deleted, and takes every
window through the same six stages:

```text
preflight -> plan -> approve -> windows[ admit -> delete -> wait_mutations -> reindex -> wait_workflows -> verify ]
                             -> open_windows_2 -> windows_2[ the same six ]   a large plan, batch after batch
                             -> replan -> smaller_windows[ the same six ]     what was too big, in parts
                             -> replan_days -> single_days[ the same six ]    what was still too big
                             -> report
```

*windows_more* has the further windows of a plan of more than 50, which come into being as their turn comes near; it is
skipped when the plan does not need it.

**Start a run**: *Trigger*, choose customers and days (the end is exclusive), mode `cleanup` to delete and reindex,
`reindex` to write again without deleting. Look at the plan under *Required Actions* and approve it.

**Something is red**: read the last line of the red task's log; it says what, where and what to do. Then *Clear* the red
task, or *Clear only failed* for the run: every stage is tried again. Windows that are verified are left
alone. The run is green only if every window of the plan is verified; `report` says how many rows were removed.

**Stop**: set the DAG to paused: nothing new starts. Mark a deferred `reindex` as failed: its Job is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.configuration import conf
from airflow.sdk import DAG, Param, TaskGroup, TriggerRule, WeightRule, chain, get_parsing_context, task, task_group
from airflow.sdk.definitions.param import ParamsDict

from backfill.groups import BATCHES
from backfill.kit.debts import cluster_asset, verified_alias
from backfill.kit.refusal import Refusal
from backfill.known import known_customers
from backfill.operators.admit import AdmitOperator
from backfill.operators.approve import PlanApproval
from backfill.operators.delete import DeleteOperator
from backfill.operators.open import OpenOperator
from backfill.operators.plan import PlanOperator
from backfill.operators.preflight import PreflightOperator
from backfill.operators.reindex import ReindexOperator
from backfill.operators.replan import ReplanOperator
from backfill.operators.report import ReportOperator
from backfill.operators.tidy import TidyOperator
from backfill.operators.verify import VerifyOperator
from backfill.operators.wait_mutations import WaitMutationsOperator
from backfill.operators.wait_workflows import WaitWorkflowsOperator
from backfill.settings import BROKEN_DAG_ID_PREFIX, DAG_ID_PREFIX, load_for
from backfill.timetable import ForwardCronTimetable
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import ClusterError
from include.scorecard_backfill.graph import stage_of, tasks_of
from include.scorecard_backfill.params.form import params_schema

# A waiting window keeps a place in the triggerer. With more of them than it has, windows under way would find none.
MAX_WINDOWS = min(conf.getint("core", "max_map_length"), conf.getint("triggerer", "capacity"))

LABEL = "{{ task.window['label'] }}"


def retries(config: ClusterConfig, count: int) -> dict[str, Any]:
    """Return the retries of a task: for killed workers and lost connections; what they cannot mend fails at once."""
    delay = timedelta(seconds=config.retry_delay_seconds)
    # Airflow doubles it with each try, and each clear is one: without an end it would be hours after some clears.
    most = delay * 2**count
    return {"retries": count, "retry_delay": delay, "retry_exponential_backoff": True, "max_retry_delay": most}


def stages(group: str, windows: Any, config: ClusterConfig) -> Any:
    """Map the stages of a window over ``windows``, the output of the pass's source, and return the task group."""
    cluster = config.name
    worker, wait = retries(config, 3), retries(config, 2)

    @task_group(group_id=group)
    def one_window(window: Any) -> None:
        mapped = {"cluster": cluster, "window": window, "map_index_template": LABEL, **worker}
        waiting = {"cluster": cluster, "group": group, **wait}

        def make(task_id: str) -> Any:
            stage = stage_of(task_id)
            if stage == "admit":
                return AdmitOperator(task_id=task_id, cluster=cluster, group=group)
            if stage == "delete":
                return DeleteOperator(task_id=task_id, **mapped)
            if stage == "reindex":
                return ReindexOperator(task_id=task_id, **mapped)
            waits = {"wait_mutations": WaitMutationsOperator, "wait_workflows": WaitWorkflowsOperator}
            return waits.get(stage, VerifyOperator)(task_id=task_id, **waiting)

        chain(*(make(task_id) for task_id in tasks_of(config.orders)))

    return one_window.expand(window=windows)


def later_batches(approve: Any, config: ClusterConfig) -> list[Any]:
    """Return the task groups of the plan's further batches, each behind the task that opens it when its turn is near.

    Airflow evaluates every task that may not start yet at each look: of a closed batch these are six, however many
    windows it has.
    """
    made, before = [], approve
    # One node in the graph; the ids within are those of the tasks alone.
    with TaskGroup("windows_more", prefix_group_id=False, tooltip="Further windows of a plan of more than one batch"):
        for batch in BATCHES[1 : config.windows.batches]:
            # Without weight: Airflow adds up what comes before, so a late batch would go before windows under way.
            how = {"cluster": config.name, "group": batch.group, "priority_weight": 0, **retries(config, 3)}
            opener = OpenOperator(task_id=batch.opened_by, **how)
            before >> opener
            made.append(stages(batch.group, opener.output, config))
            before = opener
    return made


def from_file(config: ClusterConfig) -> dict[str, object]:
    """Return what an empty field of the form stands for."""
    return {
        "order": config.orders[0],
        "window": config.windows.mode,
        "max_parallel": config.admission.max_parallel,
        "max_failures": config.admission.max_failures,
    }


def build_dag(config: ClusterConfig, customers: Sequence[str] = ()) -> DAG:
    """Return the DAG of one cluster. ``customers`` are those that its form offers."""
    when = config.schedule
    with DAG(
        dag_id=f"{DAG_ID_PREFIX}{config.name}",
        description=f"Delete and reindex scorecards of {config.name}, one safe window at a time",
        doc_md=__doc__,
        schedule=ForwardCronTimetable(when.cron, timezone=when.timezone, grace=when.grace) if when.cron else None,
        catchup=False,
        max_active_runs=1,
        # Windows under way before windows that wait, in a triggerer without room for all of them and among workers.
        default_args={"owner": config.owner, "weight_rule": WeightRule.UPSTREAM},
        tags=[*config.tags, config.name],
        is_paused_upon_creation=True,
        render_template_as_native_obj=False,
    ) as dag:
        name, worker = config.name, retries(config, 3)
        preflight = PreflightOperator(task_id="preflight", cluster=name, **worker)
        asset = cluster_asset(name)
        plan = PlanOperator(task_id="plan", cluster=name, max_windows=MAX_WINDOWS, inlets=[asset], **worker)
        approve = PlanApproval(
            task_id="approve",
            cluster=name,
            subject=f"Delete and reindex on {name}?",
            body="{{ ti.xcom_pull(task_ids='plan', key='markdown') }}",
            fail_on_reject=True,
            **worker,
        )
        windows = [stages("windows", plan.output, config), *later_batches(approve, config)]
        whatever: dict[str, Any] = {"trigger_rule": TriggerRule.ALL_DONE, **worker}
        replan = ReplanOperator(task_id="replan", cluster=name, group="windows", max_windows=MAX_WINDOWS, **whatever)
        smaller = stages("smaller_windows", replan.output, config)
        again = ReplanOperator(
            task_id="replan_days", cluster=name, group="smaller_windows", max_windows=MAX_WINDOWS, **whatever
        )
        days = stages("single_days", again.output, config)
        # An asset is known to Airflow as long as a task names it; the debts are kept in its state.
        outlets = [asset, verified_alias(name)]
        report = ReportOperator(task_id="report", cluster=name, inlets=[asset], outlets=outlets, **whatever)
        tidy = TidyOperator(task_id="tidy", cluster=name, outlets=[verified_alias(name)], **worker).as_teardown()
        preflight >> plan >> approve >> windows[0]
        windows >> replan >> smaller >> again >> days >> report >> tidy
        # "Clear only failed" leaves the replans alone: only by these edges the report waits for cleared windows.
        [*windows, smaller] >> report
    # Not before its tasks are made: each of them would get a copy of the whole form, in memory and in the database.
    dag.params = ParamsDict(
        {name: Param(**schema) for name, schema in params_schema(from_file(config), customers).items()}
    )
    return dag


def broken_dag(error: ClusterError) -> DAG:
    """Return a DAG that says what is wrong with a cluster's file.

    The cluster's own DAG is not made then: its runs wait, untouched, until the file is right again. The other clusters
    are not concerned.
    """
    text = f"{error.file}: {error.message}"
    with DAG(
        dag_id=f"{BROKEN_DAG_ID_PREFIX}{error.name}",
        description=text[:500],
        doc_md=f"The cluster file cannot be used, so this cluster has no DAG now:\n\n```\n{text}\n```",
        schedule=None,
        tags=["scorecard-backfill", "broken-configuration"],
    ) as dag:

        @task
        def explain() -> None:
            raise Refusal(text)

        explain()
    return dag


# A task's process needs one DAG only, and one cluster's file; None in the DAG processor, which needs all.
wanted = get_parsing_context().dag_id
# The form is made of what the DAG processor has read; a task's process need not ask for its list.
known = known_customers() if wanted is None else {}

for item in load_for(wanted, DAG_ID_PREFIX, BROKEN_DAG_ID_PREFIX):
    if isinstance(item, ClusterError):
        if wanted in (None, f"{BROKEN_DAG_ID_PREFIX}{item.name}"):
            broken_dag(item)
    elif item.enabled and wanted in (None, f"{DAG_ID_PREFIX}{item.name}"):
        build_dag(item, known.get(item.name, ()))

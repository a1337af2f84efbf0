"""Plan, approval and replan: which windows a run has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperator, Variable
from airflow.sdk.exceptions import AirflowFailException

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.operators.common import RunStore
from backfill.operators.preflight import run_parameters
from backfill.settings import LEARNED_VARIABLE, cluster_config
from backfill.triggers.mutations import slices
from include.scorecard_backfill import sql
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.planning import inventory, learned, plan
from include.scorecard_backfill.planning.windows import DateRange, split_by_volume, split_fixed
from include.scorecard_backfill.report import plan_markdown

Json = dict[str, Any]


class PlanOperator(BaseOperator):
    """Returns the windows of the run in the order of admission; the list is frozen for the run once it was made.

    XComs besides the return value: ``run`` (effective parameters), ``customers`` (customer id by map index), ``hash``,
    ``markdown`` (for the approval) and ``planned`` (the windows also of a dry run, whose return value is empty).
    """

    def __init__(self, *, cluster: str, max_windows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.max_windows = max_windows
        self.notes: list[str] = []

    def execute(self, context: Any) -> list[Json]:
        """Return the windows. Raises AirflowFailException with every reason for which a plan is refused."""
        config = cluster_config(self.cluster)
        run = run_parameters(context, config)
        store = RunStore(context)
        frozen = store.get("plan")
        if frozen:
            self.log.info("this run was planned before: the same %d windows again", len(frozen))
            windows: list[Json] = frozen
        else:
            windows = self._plan(config, run, context["dag_run"].run_id)
            store.set("plan", windows)
            store.set("notes", self.notes)
        markdown = plan_markdown(
            windows,
            plan_hash=plan.plan_hash(windows),
            mode=run.mode,
            max_parallel=run.max_parallel,
            statements=_statements(config, windows) if run.mode == "cleanup" else (),
            notes=store.get("notes") or (),
        )
        self.log.info("plan %s\n%s", plan.plan_hash(windows), markdown)
        self._push(context["ti"], run, windows, markdown)
        if run.dry_run:
            self.log.info("dry run: the plan is shown, nothing is done")
            return []
        return windows

    def _push(self, ti: Any, run: Any, windows: Sequence[Json], markdown: str) -> None:
        # overlap and the limits travel with the run, so that a changed default does not change a run under way
        ti.xcom_push(key="run", value=run.model_dump(mode="json") | {"destructive": run.destructive})
        ti.xcom_push(key="customers", value=[w["customer_id"] for w in windows])
        ti.xcom_push(key="hash", value=plan.plan_hash(windows))
        ti.xcom_push(key="markdown", value=markdown)
        ti.xcom_push(key="planned", value=list(windows))

    def _plan(self, config: ClusterConfig, run: Any, run_id: str) -> list[Json]:
        hook = BackfillClickHouse(config)
        known = learned.parse_learned(Variable.get(LEARNED_VARIABLE.format(cluster=config.name), default=None))
        stock, problems = read_inventory(hook, run.range)
        request = plan.Request(
            cluster=config.name,
            run_id=run_id,
            mode=run.mode,
            range=run.range,
            customers=run.customers,
            all_customers=run.all_customers,
            split=splitter(config, run.window, known, self.notes),
            max_windows=self.max_windows,
            volume_table=config.clickhouse.volume_table,
            required_tables=config.clickhouse.tables[:1],
        )
        try:
            return [w.to_json() for w in plan.build_plan(request, stock, problems).windows]
        except plan.PlanError as error:
            raise AirflowFailException(str(error)) from None


def splitter(config: ClusterConfig, mode: str, known: Mapping[str, learned.Customer], notes: list[str]) -> Any:
    """Return the function that cuts a customer's range into windows for a window mode, by what was learned of it.

    What shrinks a customer's windows is added to ``notes``.
    """
    settings = config.windows

    def split(customer: str, whole: DateRange, per_day: Mapping[date, int]) -> Sequence[DateRange]:
        if mode == "auto":
            target, why = learned.target_of(known.get(customer), settings.target_conversations, settings.window_minutes)
            if why:
                notes.append(f"{customer}: windows of at most {target:,} conversations, because {why}")
            return split_by_volume(whole, per_day, target, cut_at_months=settings.cut_at_months)
        return split_fixed(whole, mode)  # type: ignore[arg-type]

    return split


def read_inventory(hook: BackfillClickHouse, days: DateRange) -> tuple[plan.Inventory, dict[str, list[str]]]:
    """Return what the cluster holds in these days, in three queries, and the problems of tables by database."""
    config = hook.config
    hosts = [h.name for h in hook.topology()]
    tables, problems = inventory.tables_by_database(
        hook.rows(sql.tables_statement(config.cluster, config.tables)), hosts
    )
    databases = sorted(db for db, found in tables.items() if config.volume_table in found)
    if not databases:
        return plan.Inventory({}, {}), problems
    pairs = hook.rows(
        sql.pairs_statement(cluster=config.cluster, databases=databases, table=config.volume_table, names=hook.names)
    )
    volumes = hook.rows(
        sql.volumes_statement(
            cluster=config.cluster,
            databases=databases,
            tables=config.tables,
            names=hook.names,
            start=days.start,
            end=days.end,
        )
    )
    return plan.Inventory(tables, inventory.pairs_by_database(pairs), inventory.volumes(volumes)), problems


def _statements(config: ClusterConfig, windows: Sequence[Json]) -> list[str]:
    if not windows:
        return []
    names = sql.Names(
        config.clickhouse.time_column,
        config.clickhouse.customer_column,
        config.clickhouse.profile_column,
        config.clickhouse.conversation_column,
    )
    drop = ["-- DROP PARTITION instead, where a window covers whole partitions with nothing else in them"]
    return (drop if config.clickhouse.delete.drop_partition else []) + [
        sql.delete_statement(
            cluster=config.clickhouse.cluster, table=table, part=part, names=names, key=windows[0]["key"], generation=1
        )
        + ";"
        for table, part in slices(windows[0])
    ]


class PlanApproval(ApprovalOperator):
    """Waits for a person only when the run deletes rows and asks for approval; goes on by itself otherwise."""

    def execute(self, context: Any) -> Any:
        """Return at once when there is nothing to approve."""
        run = context["ti"].xcom_pull(task_ids="plan", key="run") or {}
        if not run.get("destructive") or not run.get("require_approval"):
            why = "nothing is deleted" if not run.get("destructive") else "the run does not ask for one"
            self.log.info("no approval needed: %s", why)
            return {"chosen_options": ["not needed"], "reason": why}
        if not context["ti"].xcom_pull(task_ids="plan", key="planned"):
            self.log.info("no approval needed: the plan has no window")
            return {"chosen_options": ["not needed"], "reason": "the plan has no window"}
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Return the answer; a rejection is final, Airflow's retries must not ask again."""
        try:
            return super().execute_complete(context, event)
        except HITLRejectException as error:
            raise AirflowFailException(f"the plan was rejected, nothing was deleted: {error}") from None

"""The plan: which windows a run has, frozen once it was made, with the terms under which they are carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from airflow.sdk import BaseOperator, Variable

from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.kit import xcoms
from backfill.kit.debts import DebtBook, DebtIndexError
from backfill.kit.refusal import Refusal
from backfill.kit.stages import kept_refusal
from backfill.kit.store import FROZEN, RunStore
from backfill.known import remember
from backfill.operators.checks.airflow import airflow_notes
from backfill.operators.preflight import run_parameters
from backfill.settings import HISTORY_VARIABLE, LEARNED_VARIABLE, cluster_config
from include.scorecard_backfill import debts as owing
from include.scorecard_backfill import sql
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.rules import names_of
from include.scorecard_backfill.markdown import plan_markdown
from include.scorecard_backfill.names import new_plan_id
from include.scorecard_backfill.params import EffectiveParams
from include.scorecard_backfill.planning import inventory, learned, plan
from include.scorecard_backfill.planning.batches import batch_numbers, in_batches
from include.scorecard_backfill.planning.frozen import FrozenPlan
from include.scorecard_backfill.planning.terms import Terms, differences, digest, terms_of, windows_digest, windows_of
from include.scorecard_backfill.planning.windows import DateRange, split_by_volume, split_fixed
from include.scorecard_backfill.records import Window
from include.scorecard_backfill.spoiled import OpenDebts
from include.scorecard_backfill.tracking.advice import Advice, advice
from include.scorecard_backfill.tracking.history import History, HistoryError


class PlanOperator(BaseOperator):
    """Returns the windows that the run begins with, in the order of admission; those of a usual plan are all of it.

    The list is frozen for the run, with its parameters and terms: what was approved is what runs. Cleared after the
    cluster's file has changed it plans anew, and must be approved anew, as long as nothing was deleted.
    """

    def __init__(self, *, cluster: str, max_windows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.max_windows = max_windows

    def execute(self, context: Any) -> list[dict[str, Any]]:
        """Return the windows of the first batch. Raises Refusal with every reason for which a plan is refused."""
        with kept_refusal(context):
            return self._windows(context)

    def _windows(self, context: Any) -> list[dict[str, Any]]:
        config = cluster_config(self.cluster)
        run = run_parameters(context, config)
        book = DebtBook(self.cluster)
        owed = self._owed(book, run)
        open_debts = owed.readable
        frozen = self._frozen(context, config, run, open_debts)
        if frozen is None:
            frozen = self._plan(context, config, run, owed)
            RunStore(context).set(FROZEN, frozen.to_json())
        windows = frozen.windows
        self._show(context, config, frozen)
        if frozen.chosen.dry_run:
            self.log.info("dry run: the plan is shown, nothing is done")
            return []
        book.announce(w.key for w in windows if w.destructive)
        book.hand_over(owing.hand_over(windows, context["dag_run"].run_id, open_debts))
        if frozen.batches:
            context["ti"].xcom_push(key=xcoms.BATCHES, value=list(frozen.batches))
        return [w.to_json() for number, _, w in in_batches(windows, frozen.batches) if number == 0]

    def _owed(self, book: DebtBook, run: EffectiveParams) -> OpenDebts:
        """Return the debts of the cluster. Raises Refusal for one that this plan may owe and that cannot be read."""
        try:
            found = book.open()
        except DebtIndexError as error:
            raise Refusal(f"the plan is refused, nothing was deleted: {error}") from None
        stop = [s for s in found.spoiled if s.concerns(run.range, run.customers, everybody=run.all_customers)]
        if stop and not run.dry_run:
            said = "\n".join(f"- {spoiled.text}. {spoiled.remedy}" for spoiled in stop)
            raise Refusal(f"the plan is refused, nothing was deleted, because what is owed is not known:\n{said}")
        return found

    def _frozen(
        self, context: Any, config: ClusterConfig, run: EffectiveParams, open_debts: Sequence[owing.Debt]
    ) -> FrozenPlan | None:
        """Return the plan that this run has made before, None when it must be made (again)."""
        kept = RunStore(context).get(FROZEN)
        if not kept:
            return None
        frozen = FrozenPlan.from_json(kept)
        changed = differences(frozen.terms, self._terms(config, run, windows_of(frozen.terms)))
        if not changed:
            self.log.info("this run was planned before: the same %d windows again", len(frozen.windows))
            return frozen
        begun = [] if frozen.chosen.dry_run else [d.label for d in owing.of_windows(frozen.windows, open_debts)]
        text = "; ".join(changed)
        if begun:
            raise Refusal(
                f"approval_changed: {text}\nRows of this run's windows are deleted already ({', '.join(begun[:3])}), so"
                " it is not planned anew. Undo the change in the cluster's file and clear what failed, or start a new"
                " run: its plan takes in what this one owes."
            )
        self.log.warning("planned anew, to be approved anew, because: %s", text)
        return None

    def _terms(self, config: ClusterConfig, run: EffectiveParams, windows: str) -> Terms:
        return terms_of(config, mode=run.mode, order=run.order, windows=windows, max_parallel=run.max_parallel)

    def _plan(self, context: Any, config: ClusterConfig, run: EffectiveParams, owed: OpenDebts) -> FrozenPlan:
        notes: list[str] = []
        open_debts = owed.readable
        known = self._learned(config, notes)
        imported = self._imported(config, run, open_debts, notes)
        stock, problems = read_inventory(BackfillClickHouse(config), run.range)
        remember(config.name, (customer for pairs in stock.pairs.values() for customer, _ in pairs))
        request = plan.Request(
            cluster=config.name,
            run_id=context["dag_run"].run_id,
            mode=run.mode,
            range=run.range,
            customers=run.customers,
            all_customers=run.all_customers,
            split=splitter(config, run.window, known, notes),
            max_windows=self.max_windows,
            volume_table=config.clickhouse.volume_table,
            required_tables=config.clickhouse.tables[:1],
            order=run.order,
            debts=tuple(open_debts),
            left_out=imported.left_out,
            plan_id=new_plan_id(),
        )
        try:
            windows = plan.build_plan(request, stock, problems).windows
        except plan.PlanError as error:
            raise Refusal(str(error)) from None
        notes += plan.size_notes(windows)
        notes += airflow_notes(len(windows))
        if run.overlap and run.mode == "cleanup" and run.order == "delete_first":
            notes += plan.overlap_notes(windows, config.clickhouse.written_columns)
        notes += imported.notes
        notes += [f"owed, taken in: {w.label}" for w in windows if w.before]
        notes += [f"owed, NOT in this plan: {debt.text}" for debt in owing.outside(windows, open_debts)]
        notes += [f"owed, NOT in this plan: {spoiled.text}. {spoiled.remedy}" for spoiled in owed.spoiled]
        notes += owing.unpayable(open_debts, {*stock.tables, *problems})
        return FrozenPlan(
            windows=windows,
            run=run.model_dump(mode="json") | {"destructive": run.destructive},
            terms=self._terms(config, run, windows_digest(windows)),
            notes=notes,
            batches=batch_numbers(
                windows,
                size=config.windows.batch_size,
                most=config.windows.batches,
                max_parallel=run.max_parallel,
                per_customer=config.admission.windows_per_customer,
            ),
        )

    def _imported(
        self, config: ClusterConfig, run: EffectiveParams, open_debts: Sequence[owing.Debt], notes: list[str]
    ) -> Advice:
        """Return what the old scripts' history says of this run.

        Raises Refusal when it cannot be read and the run is for everybody: whom a person had excluded is
        not known then.
        """
        name = HISTORY_VARIABLE.format(cluster=config.name)
        kept = Variable.get(name, default=None)
        if not kept:
            return Advice()
        try:
            history = History.from_json(kept)
        except HistoryError as error:
            text = f"the Airflow Variable {name} cannot be read: {error}"
            if run.all_customers:
                raise Refusal(
                    f"{text}\nWhom it excludes is not known, so there is no plan for all customers. Import it again"
                    " (python -m backfill.tracking_import), delete it, or name the customers."
                ) from None
            notes.append(f"{text}; it is not used")
            return Advice()
        owed = [debt.customer_id for debt in open_debts if debt.range.overlaps(run.range)]
        return advice(history, run.range, named=run.customers, skip_done=run.skip_imported, owed=owed)

    def _learned(self, config: ClusterConfig, notes: list[str]) -> Mapping[str, learned.Customer]:
        """Return what earlier runs say of customers. It only makes windows smaller, so a broken one stops no plan."""
        name = LEARNED_VARIABLE.format(cluster=config.name)
        try:
            return learned.parse_learned(Variable.get(name, default=None))
        except ValueError as error:
            notes.append(f"the Airflow Variable {name} cannot be read and is not used: {error}")
            self.log.warning("%s", notes[-1])
            return {}

    def _show(self, context: Any, config: ClusterConfig, frozen: FrozenPlan) -> None:
        ti, windows, terms, run = context["ti"], frozen.windows, frozen.terms, frozen.chosen
        markdown = plan_markdown(
            windows,
            digest=digest(terms),
            mode=run.mode or "",
            order=run.order,
            asked_by=asked_by(context),
            max_parallel=run.max_parallel or 1,
            statements=_statements(config, windows) if run.mode == "cleanup" else (),
            notes=frozen.notes,
        )
        self.log.info("plan %s\n%s", digest(terms), markdown)
        # overlap and the limits travel with the run, so that a changed default does not change a run under way
        ti.xcom_push(key=xcoms.RUN, value=dict(frozen.run))
        ti.xcom_push(key=xcoms.CUSTOMERS, value=[w.customer_id for w in windows])
        ti.xcom_push(key=xcoms.TERMS, value=dict(terms))
        ti.xcom_push(key=xcoms.NOTES, value=list(frozen.notes))
        ti.xcom_push(key=xcoms.MARKDOWN, value=markdown)
        ti.xcom_push(key=xcoms.PLANNED, value=[w.to_json() for w in windows])


def asked_by(context: Mapping[str, Any]) -> str:
    """Return who triggered the run, '' for a schedule or when Airflow does not say."""
    return str(getattr(context["dag_run"], "triggering_user_name", None) or "")


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
    """Return what the cluster holds in these days, in seven queries, and the problems of tables by database."""
    config = hook.config
    wanted = tuple(dict.fromkeys((*config.tables, config.volume_table)))
    tables, problems, _ = hook.tables(hook.topology())
    databases = sorted(db for db, found in tables.items() if config.volume_table in found)
    if tables and not databases:
        raise Refusal(
            f"the plan is refused, nothing was deleted: no database has the table {config.volume_table!r}"
            f" (clickhouse.volume_table); there are {', '.join(sorted(tables)[:5])} with {', '.join(config.tables)}"
        )
    if not databases:
        return plan.Inventory({}, {}), problems
    pairs = hook.rows(
        sql.pairs_statement(cluster=config.cluster, databases=databases, table=config.volume_table, names=hook.names)
    )
    # Of the others, too: whose rows they hold says whose they are, where the volume table is missing altogether.
    volumes = hook.rows(
        sql.volumes_statement(
            cluster=config.cluster,
            databases=sorted(tables),
            tables=wanted,
            names=hook.names,
            start=days.start,
            end=days.end,
        )
    )
    changed = {db: tuple(t for t in found if t in config.tables) for db, found in tables.items()}
    return plan.Inventory(changed, inventory.pairs_by_database(pairs), inventory.volumes(volumes)), problems


def _statements(config: ClusterConfig, windows: Sequence[Window]) -> list[str]:
    if not windows:
        return []
    drop = ["-- DROP PARTITION instead, where a window covers whole partitions with nothing else in them"]
    if windows[0].order == "reindex_first":
        drop = ["-- and only rows that the reindex has not written again"]
    return (drop if config.clickhouse.delete.drop_partition or windows[0].order == "reindex_first" else []) + [
        sql.delete_statement(
            cluster=config.clickhouse.cluster,
            table=table,
            part=part,
            names=names_of(config.clickhouse),
            key=windows[0].key,
            generation=1,
        )
        + ";"
        for table, part in windows[0].slices()
    ]

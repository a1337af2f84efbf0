"""Parameters of a run: the trigger form, its checks, and what a run really does with them.

One model (`RunParams`) makes the form (`params_schema`), reads what was sent (`RunParams.read`) and is resolved
against the cluster and the moment of the run (`effective`). Nothing here reads `logical_date` or a data
interval: a manual run of Airflow 3 may have neither, and where there is one, it may be a month off.

An empty choice of customers means nothing, never everybody: `all_customers` is a switch of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, Strict

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.fields import (
    MAX_FAILURES_LIMIT,
    Frozen,
    Order,
    Parallel,
    RunMode,
    customer_id_reason,
)
from include.scorecard_backfill.params.form import ParamsError, RunParams, params_schema
from include.scorecard_backfill.planning.schedule import is_over, over_at
from include.scorecard_backfill.planning.windows import DateRange, WindowError, WindowMode, parse_day, previous_month

__all__ = [
    "EffectiveParams",
    "ParamsError",
    "RunParams",
    "RunType",
    "Source",
    "effective",
    "params_schema",
]

RunType = Literal["manual", "scheduled", "operator_triggered", "asset_triggered", "asset_materialization"]
"""Airflow's run types that are supported. "backfill" is refused."""

Source = Literal["form", "default", "cluster", "schedule", "mode"]
"""Where a value came from: sent with the run; the form's default; the cluster's file; its schedule; or the mode
(a run that deletes nothing asks nobody)."""

MAX_RANGE_DAYS = 366
"""Longest range of one run: a year. Longer ranges are mostly typing errors, and are done as several runs."""


class EffectiveParams(Frozen):
    """What a run does, everything resolved. `sources` says for each parameter where its value came from.

    Goes through JSON and back: `EffectiveParams.model_validate(x.model_dump(mode="json")) == x`.
    """

    model_config = ConfigDict(strict=False)

    cluster: str = Field(description="Name of the cluster.")
    run_type: RunType = Field(description="How the run was started.")
    run_after: datetime = Field(description="When the run was due, aware; decides 'previous month' and 'future'.")
    customers: Annotated[tuple[str, ...], Strict(False)] = Field(description="Customer ids; () = all of them.")
    all_customers: bool = Field(description="Every customer of the cluster.")
    start_date: date = Field(description="First UTC day, inclusive.")
    end_date: date = Field(description="UTC day after the last one, exclusive.")
    mode: RunMode = Field(description="cleanup = delete and reindex.")
    skip_imported: bool = Field(default=False, description="Leave out what the old scripts' history calls done.")
    order: Order = Field(description="Delete first, or reindex first and sweep after.")
    window: WindowMode = Field(description="Size of windows.")
    max_parallel: Parallel = Field(description="Windows in flight.")
    overlap: bool = Field(description="Reindex once every host has the mutations.")
    dry_run: bool = Field(description="Change nothing.")
    require_approval: bool = Field(description="A person must approve the plan before rows are deleted.")
    max_failures: int = Field(ge=1, le=MAX_FAILURES_LIMIT, description="Failed windows that stop the run.")
    kill_stalled_mutations: bool = Field(description="Run KILL MUTATION on stalled own mutations.")
    sources: dict[str, Source] = Field(description="Where each parameter came from.")

    @property
    def range(self) -> DateRange:
        """The UTC days of the run, end exclusive."""
        return DateRange(self.start_date, self.end_date)

    @property
    def destructive(self) -> bool:
        """True if rows will be deleted."""
        return self.mode == "cleanup" and not self.dry_run

    def lines(self) -> tuple[str, ...]:
        """One line for each parameter, `name = value (source)`, for the log and the plan."""
        return tuple(f"{name} = {_plain(getattr(self, name))} ({source})" for name, source in self.sources.items())


def effective(
    params: RunParams,
    *,
    run_type: str,
    run_after: datetime,
    cluster: ClusterConfig,
    given: Collection[str] | None = None,
) -> EffectiveParams:
    """Resolve the parameters of one run against its cluster and the moment at which it was due.

    A scheduled run takes customers, mode and the zone of "previous calendar month" from the cluster's schedule,
    whatever the form's defaults say. For other runs both dates empty mean that month in the cluster's zone.

    Args:
        params: what was sent, over the form's defaults.
        run_type: Airflow's `dag_run.run_type`.
        run_after: Airflow's `dag_run.run_after`, aware.
        cluster: the cluster of the DAG.
        given: the fields that were really sent (keys of `dag_run.conf`), for `sources`. None: those that
            differ from the form's defaults.

    Raises:
        ParamsError: every problem at once.
    """
    problems = [*_run_type_problems(run_type)]
    scheduled = run_type == "scheduled"
    if not scheduled:
        problems += _customer_problems(params)
    if params.order is not None and params.order not in cluster.orders:
        allowed = ", ".join(cluster.orders)
        problems.append(f"order: {params.order!r} is not allowed by the file of {cluster.name}; it allows {allowed}.")
    days = _range(params, scheduled, run_after, cluster, problems)
    if problems or days is None:
        raise ParamsError(problems)
    values, sources = _resolved(params, scheduled, run_after, cluster, _given(params, given))
    return EffectiveParams.model_validate(
        {
            **values,
            "cluster": cluster.name,
            "run_type": str(run_type),
            "run_after": run_after,
            "start_date": days.start,
            "end_date": days.end,
            "sources": sources,
        }
    )


def _run_type_problems(run_type: str) -> list[str]:
    if run_type == "backfill":
        # It has run dates with the parameters of an older run, or with none (airflow#51577, #59043).
        return [
            "run_type: 'backfill' (Airflow's own) is not supported, as its parameters may be an older run's; "
            "trigger the DAG with start_date and end_date instead."
        ]
    if run_type not in get_args(RunType):
        return [f"run_type: {run_type!r} is not one of {', '.join(get_args(RunType))}; trigger the DAG by hand."]
    return []


def _customer_problems(params: RunParams) -> list[str]:
    if params.customers and params.all_customers:
        return [
            f"customers: {list(params.customers)} are named and all_customers is true; "
            "empty customers, or set all_customers to false."
        ]
    if not params.customers and not params.all_customers:
        return [
            "customers: is empty and all_customers is false, so nobody is chosen; "
            "name customers, or set all_customers to true for everybody."
        ]
    problems: list[str] = []
    for index, customer in enumerate(params.customers):
        reason = customer_id_reason(customer)
        if reason:
            problems.append(f"customers: {customer!r} (place {index + 1}) {reason}.")
        elif params.customers.index(customer) != index:
            problems.append(f"customers: {customer!r} is named twice (place {index + 1}); name it once.")
    return problems


def _range(
    params: RunParams, scheduled: bool, run_after: datetime, cluster: ClusterConfig, problems: list[str]
) -> DateRange | None:
    """The days of the run, or None after adding to `problems`."""
    if run_after.utcoffset() is None:
        problems.append(f"run_after: {run_after.isoformat()} has no time zone; give an aware datetime.")
        return None
    try:
        if scheduled or (params.start_date is None and params.end_date is None):
            zone = cluster.schedule.zone if scheduled else cluster.zone
            days = previous_month(run_after, zone)
            field = f"start_date and end_date: empty, so the month before this one in {zone.key}"
        else:
            days = _given_range(params)
            field = f"end_date: {days.end} (exclusive)"
    except ParamsError as error:
        problems += error.problems
        return None
    today = run_after.astimezone(UTC).date()
    if not is_over(days, run_after):
        problems.append(
            f"{field}: {days.label} ends after {today}, the UTC day of the run, so it is not over yet; "
            f"the latest end_date is {today}, and this range can be done from {over_at(days):%Y-%m-%d %H:%M} UTC on."
        )
        return None
    if days.days > MAX_RANGE_DAYS:
        problems.append(
            f"start_date: {days.label} has {days.days} days; a run takes at most {MAX_RANGE_DAYS}, "
            "do it in several runs."
        )
        return None
    return days


def _given_range(params: RunParams) -> DateRange:
    problems: list[str] = []
    parsed: dict[str, date] = {}
    fields = {"start_date": params.start_date, "end_date": params.end_date}
    for name, text in fields.items():
        if text is None:
            other = "end_date" if name == "start_date" else "start_date"
            problems.append(
                f"{name}: is empty, but {other} is {fields[other]!r}; give both as YYYY-MM-DD, "
                "or neither for the previous month."
            )
            continue
        try:
            parsed[name] = parse_day(text, name)
        except WindowError as error:
            problems.append(str(error))
    if not problems and parsed["end_date"] <= parsed["start_date"]:
        problems.append(
            f"end_date: {parsed['end_date']} is not after start_date {parsed['start_date']}; "
            "end_date is exclusive, one day ends on the next."
        )
    if problems:
        raise ParamsError(problems)
    return DateRange(parsed["start_date"], parsed["end_date"])


def _given(params: RunParams, given: Collection[str] | None) -> frozenset[str]:
    if given is not None:
        return frozenset(given)
    fields = RunParams.model_fields
    return frozenset(name for name in params.model_fields_set if getattr(params, name) != fields[name].default)


def _resolved(
    params: RunParams, scheduled: bool, run_after: datetime, cluster: ClusterConfig, given: frozenset[str]
) -> tuple[dict[str, Any], dict[str, Source]]:
    """Values of everything but the dates, and the source of every parameter, in the form's order."""
    values: dict[str, Any] = params.model_dump(exclude={"start_date", "end_date"})
    sources: dict[str, Source] = {name: "form" if name in given else "default" for name in RunParams.model_fields}
    from_cluster = {
        "order": cluster.orders[0],
        "window": cluster.windows.mode,
        "max_parallel": cluster.limits_at(run_after).max_parallel,
        "max_failures": cluster.admission.max_failures,
    }
    for name, value in from_cluster.items():
        if values[name] is None:
            values[name], sources[name] = value, "cluster"
    if params.require_approval is None:
        values["require_approval"], sources["require_approval"] = True, "default"
    if params.start_date is None:
        sources["start_date"] = sources["end_date"] = "default"
    if scheduled:
        schedule = cluster.schedule
        values |= {"customers": schedule.customers, "all_customers": schedule.all_customers, "mode": schedule.mode}
        values["require_approval"] = cluster.schedule.require_approval
        for name in ("customers", "all_customers", "start_date", "end_date", "mode", "require_approval"):
            sources[name] = "schedule"
    if values["mode"] == "reindex" or values["dry_run"]:
        values["require_approval"], sources["require_approval"] = False, "mode"
    return values, sources


def _plain(value: object) -> str:
    """A value as people write it in the form.

    >>> _plain(()), _plain(("acme", "globex")), _plain(True), _plain(date(2026, 1, 1))
    ('[]', '[acme, globex]', 'true', '2026-01-01')
    """
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)

"""The first stage: everything that can be missing is looked for before anything is deleted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow.sdk import BaseHook, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from clickhouse_connect.driver.exceptions import ClickHouseError
from kubernetes_asyncio.config import ConfigException
from temporalio.service import RPCError

from backfill.hooks.clickhouse import NativePortError, PinnedSettingError, TopologyError
from backfill.hooks.kubernetes import is_transient, status_of
from backfill.hooks.temporal import RefusedError
from backfill.kit.refusal import Refusal
from backfill.kit.stages import kept_refusal
from backfill.notify.channels import channel_problems
from backfill.operators.checks import temporal as temporal_checks
from backfill.operators.checks.airflow import airflow_problems
from backfill.operators.checks.clickhouse import clickhouse
from backfill.operators.checks.kubernetes import kubernetes
from backfill.operators.late import refuse_late_start
from backfill.settings import cluster_config
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.job import JobError
from include.scorecard_backfill.params import effective
from include.scorecard_backfill.params.form import ParamsError, RunParams


def run_parameters(context: Mapping[str, Any], config: ClusterConfig) -> Any:
    """Return the effective parameters of this run. Raises Refusal with every problem of the form."""
    run = context["dag_run"]
    try:
        return effective(
            RunParams.read(context["params"]),
            run_type=str(getattr(run.run_type, "value", run.run_type)),
            run_after=run.run_after,
            cluster=config,
            given=tuple(run.conf or ()),
        )
    except ParamsError as error:
        raise Refusal(f"the run's parameters are refused, nothing was deleted:\n{error}") from None


def guarded(
    check: Callable[[ClusterConfig, list[str], list[str]], None],
    config: ClusterConfig,
    problems: list[str],
    notes: list[str],
) -> None:
    """Run one check and turn what it raises into a problem that names the connection. Other errors pass through."""
    name = check.__name__
    conn_id = getattr(config, name).conn_id
    try:
        BaseHook.get_connection(conn_id)
        check(config, problems, notes)
    except AirflowNotFoundException:
        problems.append(
            f"{name}: connection {conn_id!r} is not defined in Airflow; create it (see README, Connections)"
        )
    except (NativePortError, PinnedSettingError, TopologyError, JobError, RefusedError) as error:
        problems.append(f"{name}: {error}")
    except (ClickHouseError, RPCError, OSError, ValueError, AirflowException, ConfigException) as error:
        problems.append(f"{name}: connection {conn_id!r}: {type(error).__name__}: {error}")
    except Exception as error:
        # Every client has its own exception classes; preflight must name all systems that fail, not the first.
        if status_of(error) is None and not is_transient(error):
            raise
        problems.append(f"{name}: connection {conn_id!r}: {status_of(error) or ''} {type(error).__name__}: {error}")


class PreflightOperator(BaseOperator):
    """Checks parameters, connections, rights and reachability; fails at once and names all that is wrong."""

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Any) -> dict[str, Any]:
        """Return what was found. Raises Refusal: no retry mends a missing right."""
        with kept_refusal(context):
            return self._checked(context)

    def _checked(self, context: Any) -> dict[str, Any]:
        config = cluster_config(self.cluster)
        refuse_late_start(context["dag_run"], config)
        run = run_parameters(context, config)
        for line in run.lines():
            self.log.info("parameter %s", line)
        problems: list[str] = []
        notes: list[str] = []
        for check in checks():
            guarded(check, config, problems, notes)
        problems += channel_problems(config)
        problems += airflow_problems()
        for note in notes:
            self.log.warning("%s", note)
        if problems:
            raise Refusal("preflight failed, nothing was deleted:\n- " + "\n- ".join(problems))
        return {"cluster": config.name, "notes": notes}


def temporal(config: ClusterConfig, problems: list[str], notes: list[str]) -> None:
    """Look at the worker queue, the workflow types and the rights in Temporal."""
    temporal_checks.check(config, problems, notes)


def checks() -> tuple[Callable[[ClusterConfig, list[str], list[str]], None], ...]:
    """Return one check for each system, named like its section of the cluster's file."""
    return (clickhouse, kubernetes, temporal)

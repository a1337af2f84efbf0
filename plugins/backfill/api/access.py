"""Who may see and do what, by Airflow's own permissions, and which DAGs are ours."""

from __future__ import annotations

from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails, VariableDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException, Query, status

from backfill.settings import DAG_ID_PREFIX, OVERRIDE_VARIABLE

MAY_LOOK = (
    Depends(requires_access_dag("GET", DagAccessEntity.RUN)),
    Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE)),
    Depends(requires_access_dag("GET", DagAccessEntity.XCOM)),
)
"""Of every route: a look shows the run, its tasks, and what they left."""

MAY_RETRY = Depends(requires_access_dag("PUT", DagAccessEntity.TASK_INSTANCE))
"""The right to clear a task or to mark one."""

MAY_START = Depends(requires_access_dag("POST", DagAccessEntity.RUN))
"""The right to trigger a run."""


def our_dag(dag_id: Annotated[str, Query(max_length=250)]) -> str:
    """Return the DAG's id. Answers 404 for a DAG that is not ours: tabs are shown on every DAG of the installation."""
    if not dag_id.startswith(DAG_ID_PREFIX):
        raise HTTPException(
            status.HTTP_404_NOT_FOUND, "This DAG is not a scorecard backfill, so there is nothing to show here."
        )
    return dag_id


OurDag = Annotated[str, Depends(our_dag)]


def cluster_of(dag_id: str) -> str:
    """Return the name of the cluster of a DAG of ours."""
    return dag_id.removeprefix(DAG_ID_PREFIX)


def may_override(dag_id: str, user: Any) -> bool:
    """Return True when a person may write the cluster's override: change the DAG, and change this Airflow Variable."""
    manager = get_auth_manager()
    team = DagModel.get_team_name(dag_id)
    key = OVERRIDE_VARIABLE.format(cluster=cluster_of(dag_id))
    details = VariableDetails(key=key, team_name=team)
    return manager.is_authorized_dag(method="PUT", details=DagDetails(id=dag_id, team_name=team), user=user) and all(
        manager.is_authorized_variable(method=method, details=details, user=user) for method in ("POST", "PUT")
    )


def requires_override(dag_id: OurDag, user: GetUserDep) -> None:
    """Answer 403 unless a person may write the cluster's override."""
    if not may_override(dag_id, user):
        raise HTTPException(
            status.HTTP_403_FORBIDDEN, "Changing limits needs the right to change this DAG and Airflow Variables."
        )


def rights(dag_id: str, user: Any) -> dict[str, bool]:
    """Return which actions a person is offered."""
    manager = get_auth_manager()
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    tasks = manager.is_authorized_dag(
        method="PUT", access_entity=DagAccessEntity.TASK_INSTANCE, details=details, user=user
    )
    start = manager.is_authorized_dag(method="POST", access_entity=DagAccessEntity.RUN, details=details, user=user)
    override = may_override(dag_id, user)
    return {"retry": tasks, "reset": tasks, "end_job": tasks, "pause": override, "limit": override, "start": start}

"""Links at a task instance: where what it has started can be read.

A link of a plugin is asked for by the API server when somebody opens the task, also one that never runs on a worker or
is still under way (3.3.2: `serialization/serialized_objects.py`, `routes/public/extra_links.py`). Nothing is stored
for it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.sdk import BaseOperatorLink

from backfill.groups import GROUPS
from backfill.notify.tell import run_of
from backfill.operators.admit import AdmitOperator
from backfill.operators.approve import PlanApproval
from backfill.operators.delete import DeleteOperator
from backfill.operators.open import OpenOperator
from backfill.operators.plan import PlanOperator
from backfill.operators.preflight import PreflightOperator
from backfill.operators.reindex import ReindexOperator
from backfill.operators.replan import ReplanOperator
from backfill.operators.report import ReportOperator
from backfill.operators.verify import VerifyOperator
from backfill.operators.wait_mutations import WaitMutationsOperator
from backfill.operators.wait_workflows import WaitWorkflowsOperator
from backfill.settings import DAG_ID_PREFIX

STAGES: list[type] = [
    AdmitOperator,
    DeleteOperator,
    WaitMutationsOperator,
    ReindexOperator,
    WaitWorkflowsOperator,
    VerifyOperator,
]
OTHERS: list[type] = [PreflightOperator, PlanOperator, PlanApproval, OpenOperator, ReplanOperator, ReportOperator]


class ReportLink(BaseOperatorLink):
    """The run's tab with matrix, plan and report."""

    operators: ClassVar[list[type]] = [*STAGES, *OTHERS]
    name: ClassVar[str] = "Backfill"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address of the tab, '' when Airflow's own address is not configured."""
        return run_of(ti_key, "").link


class _WindowLink(BaseOperatorLink):
    operators: ClassVar[list[type]] = STAGES
    kind: ClassVar[str] = ""

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, '' while there is nothing to look at or where the cluster's file names none."""
        return _address(ti_key, self.kind)


class JobLink(_WindowLink):
    """The window's Job in a Kubernetes UI."""

    name: ClassVar[str] = "Job"
    kind: ClassVar[str] = "job"


class WorkflowLink(_WindowLink):
    """The window's first workflow in Temporal's UI; the tab lists all of them."""

    name: ClassVar[str] = "Workflow in Temporal"
    kind: ClassVar[str] = "workflow"


class MutationsLink(_WindowLink):
    """The window's mutations on every host, as a query."""

    name: ClassVar[str] = "Mutations"
    kind: ClassVar[str] = "mutations"


def _address(ti: Any, kind: str) -> str:
    """Return where a window's Job, workflow or mutations are shown. Only the API server comes here."""
    from airflow.utils.session import create_session

    from backfill.api.read import links_to, window_at
    from include.scorecard_backfill.overview.links import deleted_key, fill, job_of, workflows_of

    template: str = getattr(links_to(ti.dag_id.removeprefix(DAG_ID_PREFIX)), kind)
    group = ti.task_id.rpartition(".")[0]
    if not template or group not in GROUPS:
        return ""
    with create_session() as session:
        window = window_at(session, ti.dag_id, ti.run_id, group, ti.map_index)
    if window is None:
        return ""
    if kind == "mutations":
        return fill(template, key=key) if (key := deleted_key(window)) else ""
    if kind == "job":
        return fill(template, job=job) if (job := job_of(window)) else ""
    return fill(template, workflow_id=ids[0]) if (ids := workflows_of(window)) else ""


def task_links() -> list[BaseOperatorLink]:
    """Return the links of our tasks."""
    return [ReportLink(), JobLink(), WorkflowLink(), MutationsLink()]

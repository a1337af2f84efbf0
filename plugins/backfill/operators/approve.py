"""The approval: a person sees plan and digest before anything is deleted; an answer that was given stays given."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.operators.hitl import ApprovalOperator

from backfill.kit import xcoms
from backfill.kit.answers import look_back
from backfill.kit.refusal import Refusal
from backfill.kit.store import RunStore
from backfill.notify.tell import run_of, tell
from backfill.settings import DAG_ID_PREFIX, cluster_config
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.notices import approval_notice
from include.scorecard_backfill.planning.terms import Terms, asked_at, digest

ASKED = "asked"
"""Digest about which a person is being asked; '' once the answer was taken."""

SHOWN = "shown"
"""Digest of the question that a person sees: the first one. Airflow keeps its text, whatever is asked later."""


class PlanApproval(ApprovalOperator):
    """Waits for a person only when the run deletes rows and asks for approval; goes on by itself otherwise.

    What it leaves as XCom `terms` is what was approved: each destructive step compares it with what it would execute.
    """

    def execute(self, context: Any) -> Any:
        """Return at once when there is nothing to approve, or when the answer was given already."""
        ti = context["ti"]
        terms: Terms = xcoms.pull(ti, "plan", xcoms.TERMS) or {}
        why = self._not_needed(ti, terms)
        if why:
            self.log.info("no approval needed: %s", why)
            ti.xcom_push(key=xcoms.TERMS, value=dict(terms))
            return {"chosen_options": ["not needed"], "reason": why}
        store = RunStore(context)
        shown = store.get(SHOWN)
        if shown is not None and shown != digest(terms):
            raise Refusal(
                f"the plan is another one (digest {digest(terms)}) than the one that a person was shown ({shown}), and"
                " Airflow shows a task's first question for as long as its run lives: start a new run, or undo the"
                " change and clear plan and this task"
            )
        if store.get(ASKED) == digest(terms):
            look_back(self, context, self._config(ti).waits.first_poll_after_seconds)
        store.set(ASKED, digest(terms))
        store.set(SHOWN, digest(terms))
        self._tell(ti, terms)
        return super().execute(context)

    def looked_back(self, context: Any, event: Any = None) -> Any:
        """Take the answer that was given to the question of the try before, or ask again."""
        if event:
            self.log.info("the answer that was given to the question before is taken")
            return self.execute_complete(context, event)
        RunStore(context).set(ASKED, "")
        return self.execute(context)

    def _config(self, ti: Any) -> ClusterConfig:
        return cluster_config(str(ti.dag_id).removeprefix(DAG_ID_PREFIX))

    def _tell(self, ti: Any, terms: Terms) -> None:
        """Tell people that the plan waits for them. Never raises."""
        try:
            planned = xcoms.pull(ti, "plan", xcoms.PLANNED) or []
            config = self._config(ti)
            customers = len({str(window["customer_id"]) for window in planned})
            tell(config, approval_notice(run_of(ti, config.name), digest(terms), len(planned), customers))
        except Exception:
            self.log.warning("the question could not be told", exc_info=True)

    def _not_needed(self, ti: Any, terms: Terms) -> str:
        run = xcoms.chosen(ti)
        if run is None or not run.destructive:
            return "nothing is deleted"
        if not run.require_approval:
            return "the run does not ask for one"
        if not xcoms.pull(ti, "plan", xcoms.PLANNED):
            return "the plan has no window"
        # As the plan was made: a file that says something else by now makes other terms, and nothing is executed.
        return "each sweep asks, with its numbers (approve: sweep)" if asked_at(terms) == "sweep" else ""

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Return the answer and keep what was approved; a rejection is final, Airflow's retries must not ask again."""
        RunStore(context).set(ASKED, "")
        ti = context["ti"]
        user = event.get("responded_by_user")
        who = (user.get("name") if isinstance(user, dict) else getattr(user, "name", None)) or "somebody"
        try:
            answer = super().execute_complete(context, event)
        except HITLRejectException:
            ti.xcom_push(key="rejected", value={"by": who})
            raise Refusal(f"the plan was rejected by {who}; nothing was deleted") from None
        ti.xcom_push(key=xcoms.TERMS, value=dict(xcoms.pull(ti, "plan", xcoms.TERMS) or {}))
        self.log.info("approved by %s", who)
        return answer

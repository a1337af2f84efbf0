"""The approval: a person sees plan and digest before anything is deleted; an answer that was given stays given."""

from __future__ import annotations

from typing import Any

from backfill.kit import xcoms
from backfill.notify.tell import run_of, tell
from backfill.operators.question import Question
from backfill.settings import cluster_config
from include.scorecard_backfill.notices import approval_notice
from include.scorecard_backfill.planning.terms import Terms, asked_at, digest


class PlanApproval(Question):
    """Waits for a person only when the run deletes rows and asks for approval; goes on by itself otherwise.

    What it leaves as XCom `terms` is what was approved: each destructive step compares it with what it would execute.
    """

    def execute(self, context: Any) -> Any:
        """Return at once when there is nothing to approve, or when the answer was given already."""
        ti, terms = context["ti"], self._terms(context)
        why = self._not_needed(ti, terms)
        if why:
            self.log.info("no approval needed: %s", why)
            ti.xcom_push(key=xcoms.TERMS, value=dict(terms))
            return {"chosen_options": ["not needed"], "reason": why}
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Return the answer and keep what was approved."""
        answer = super().execute_complete(context, event)
        context["ti"].xcom_push(key=xcoms.TERMS, value=dict(self._terms(context)))
        return answer

    def about(self, context: Any) -> str:
        """Return the digest of the plan's terms."""
        return digest(self._terms(context))

    def another(self, about: str, shown: str) -> str:
        """Return what to do with a plan that was cleared and is another one now."""
        return (
            f"the plan is another one (digest {about}) than the one that a person was shown ({shown}), and"
            " Airflow shows a task's first question for as long as its run lives: start a new run, or undo the"
            " change and clear plan and this task"
        )

    def rejection(self, context: Any, who: str) -> str:
        """Keep who has rejected the plan for report and page."""
        context["ti"].xcom_push(key=xcoms.REJECTED, value={"by": who})
        return f"the plan was rejected by {who}; nothing was deleted"

    def asking(self, context: Any) -> None:
        """Tell people that the plan waits for them. Never raises."""
        ti, terms = context["ti"], self._terms(context)
        try:
            planned = xcoms.pull(ti, "plan", xcoms.PLANNED) or []
            config = cluster_config(self.cluster)
            customers = len({str(window["customer_id"]) for window in planned})
            tell(config, approval_notice(run_of(ti, config.name), digest(terms), len(planned), customers))
        except Exception:
            # A message that cannot be sent must not keep the question from being asked.
            self.log.warning("the question could not be told", exc_info=True)

    def _terms(self, context: Any) -> Terms:
        found: Terms = xcoms.pull(context["ti"], "plan", xcoms.TERMS) or {}
        return found

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

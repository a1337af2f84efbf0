"""A question to a person: an answer that was given stays given, and it is one to the text that was shown."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.operators.hitl import ApprovalOperator

from backfill.kit.answers import look_back
from backfill.kit.refusal import Refusal
from backfill.kit.store import RunStore
from backfill.settings import cluster_config

ASKED = "asked"
"""Digest about which a person is being asked; '' once the answer was taken."""

SHOWN = "shown"
"""Digest of the question that a person sees: the first one. Airflow keeps its text, whatever is asked later."""


class Question(ApprovalOperator):
    """Asks a person and takes the answer once, also one that Airflow has lost on its way (kit/answers.py).

    Subclasses say what the question is about (:meth:`about`), what to do when it is about something else than a person
    was shown (:meth:`another`), and what a rejection means (:meth:`rejection`).
    """

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def about(self, context: Any) -> str:
        """Return the digest of what is asked."""
        raise NotImplementedError

    def another(self, about: str, shown: str) -> str:
        """Return the sentence that refuses a question whose text would be another one's."""
        raise NotImplementedError

    def rejection(self, context: Any, who: str) -> str:
        """Return the sentence that ends the task after a rejection by ``who``."""
        raise NotImplementedError

    def asking(self, context: Any) -> None:
        """Do what comes before a question; nothing here."""

    def execute(self, context: Any) -> Any:
        """Ask, or look first whether the question of the try before was answered.

        Raises:
            TaskAwaitingInput: a person must answer. TaskDeferred: the answer is looked up.
            Refusal: Airflow would show the text of another question.
        """
        store, about = RunStore(context), self.about(context)
        shown = store.get(SHOWN)
        if shown is not None and shown != about:
            raise Refusal(self.another(about, shown))
        if store.get(ASKED) == about:
            look_back(self, context, cluster_config(self.cluster).waits.first_poll_after_seconds)
        store.set(ASKED, about)
        store.set(SHOWN, about)
        self.asking(context)
        return super().execute(context)

    def looked_back(self, context: Any, event: Any = None) -> Any:
        """Take the answer that was given to the question of the try before, or ask again."""
        if event:
            self.log.info("the answer that was given to the question before is taken")
            return self.execute_complete(context, event)
        RunStore(context).set(ASKED, "")
        return self.execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Return the answer; a rejection is final, Airflow's retries must not ask again."""
        RunStore(context).set(ASKED, "")
        user = event.get("responded_by_user")
        who = (user.get("name") if isinstance(user, dict) else getattr(user, "name", None)) or "somebody"
        try:
            answer = super().execute_complete(context, event)
        except HITLRejectException:
            raise Refusal(self.rejection(context, who)) from None
        self.log.info("approved by %s", who)
        return answer

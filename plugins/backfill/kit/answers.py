"""An answer that a person has given stays given, also when the try that asked has not lived to see it.

Airflow fails a task that is answered before its scheduler has seen it wait; the try after that would ask again and drop
the answer. Airflow hands a question's answer to triggers only: its worker's supervisor does not know that request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.execution_time.hitl import get_hitl_detail_content_detail
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

PATIENCE = timedelta(minutes=10)
"""For a triggerer that is busy; the try after this one looks again."""


class AnswerTrigger(BaseTrigger):
    """Reads whether a question of this task instance was answered; its event is the answer, or {}."""

    path = "backfill.kit.answers.AnswerTrigger"

    def __init__(self, ti_id: str, not_before: float) -> None:
        """``not_before``: epoch seconds before which it may not fire (kit/wait.py says why)."""
        super().__init__()
        self.ti_id = ti_id
        self.not_before = not_before

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the one class path and exactly the constructor's arguments."""
        return self.path, {"ti_id": self.ti_id, "not_before": self.not_before}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look once."""
        await asyncio.sleep(max(0.0, self.not_before - time.time()))
        try:
            found = await sync_to_async(get_hitl_detail_content_detail)(ti_id=self.ti_id)  # type: ignore[arg-type]
        except Exception as error:
            # Nothing is decided by it: without an answer a person is asked, as at the first time.
            self.log.info("whether the question was answered is not known: %s", error)
            found = None
        yield TriggerEvent(_event_of(found))


def look_back(operator: BaseOperator, context: Any, seconds: float) -> NoReturn:
    """Defer until it is known whether the question of the try before was answered; resumed in `looked_back`.

    ``seconds``: before which the trigger may not fire. Raises TaskDeferred.
    """
    operator.log.info("this was asked before: looking whether it was answered")
    trigger = AnswerTrigger(str(context["ti"].id), time.time() + seconds)
    operator.defer(trigger=trigger, method_name="looked_back", timeout=PATIENCE)


def _event_of(found: Any) -> dict[str, Any]:
    """Return the event by which Airflow hands an answer to a task, {} without an answer."""
    chosen = list(getattr(found, "chosen_options", None) or [])
    if not chosen or not getattr(found, "response_received", False):
        return {}
    user = getattr(found, "responded_by_user", None)
    return {
        "chosen_options": chosen,
        "params_input": getattr(found, "params_input", None) or {},
        "responded_at": getattr(found, "responded_at", None) or datetime.min,
        "responded_by_user": {"id": str(user.id), "name": str(user.name)} if user else None,
    }

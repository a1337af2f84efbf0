"""An answer that a person has given stays given, also when the try that asked has not lived to see it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.sdk.execution_time.hitl import get_hitl_detail_content_detail


def given_answer(ti: Any, log: Any) -> dict[str, Any] | None:
    """Return the answer to the question of a try before as Airflow's event of it, None when there is none.

    Airflow fails a task that is answered before its scheduler has seen it wait; the try after that would ask again and
    drop the answer.
    """
    try:
        found = get_hitl_detail_content_detail(ti_id=ti.id)
    except AirflowRuntimeError as error:
        log.info("no question was asked before: %s", error)
        return None
    chosen = list(getattr(found, "chosen_options", None) or [])
    if not chosen or not getattr(found, "response_received", False):
        return None
    return {
        "chosen_options": chosen,
        "params_input": getattr(found, "params_input", None) or {},
        "responded_at": getattr(found, "responded_at", None) or datetime.min,
        "responded_by_user": getattr(found, "responded_by_user", None),
    }

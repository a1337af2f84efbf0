"""A refusal: how a task says no. Its last line in the log is its sentence, not the frames of a program."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from airflow.sdk.exceptions import AirflowFailException


class Refusal(AirflowFailException):
    """Ends a task as failed, without Airflow's retries. The text says what, and on lines of its own what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        log_refusals_plainly()


def log_refusals_plainly() -> None:
    """Let this process log a refusal as its text alone.

    Airflow logs whatever ends a task as "Task failed with exception" with a traceback (3.3.2, `task_runner.run`): the
    sentence which a person needs is followed by lines about Airflow. structlog gives each logger the one list of
    processors that it was configured with; where that is another one, the traceback stays, and nothing else changes.
    """
    processors = structlog.get_config().get("processors")
    if isinstance(processors, list) and _sentence not in processors:
        processors.insert(0, _sentence)


def _sentence(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    error = sys.exc_info()[1]
    if event.get("exc_info") and isinstance(error, Refusal):
        del event["exc_info"]
        event["event"] = str(error)
    return event

"""The opener of a batch: the batch's windows come into being only when their turn is near."""

from __future__ import annotations

from typing import Any

from backfill.groups import BATCHES
from backfill.kit.refusal import Refusal
from backfill.kit.results import places_of
from backfill.kit.stages import TriggeredWait
from include.scorecard_backfill.records import Event, GoEvent


class OpenOperator(TriggeredWait):
    """Waits in the triggerer until few windows before its batch wait, then returns the batch's windows.

    A worker returns them: only what a worker returns has a length that Airflow maps a task group over. Skipped, with
    all batches after it, when the plan ends before this one.
    """

    stage = "admit"
    trigger_path = "backfill.triggers.open.OpenTrigger"

    def __init__(self, *, cluster: str, group: str, **kwargs: Any) -> None:
        super().__init__(cluster=cluster, group=group, **kwargs)

    def act(self, context: Any, event: Event, **kwargs: Any) -> list[dict[str, Any]]:
        """Return the windows of the batch. Raises Refusal when the plan has none there any more."""
        if not isinstance(event, GoEvent):
            return list(super().act(context, event, **kwargs))
        found = [place.window.to_json() for place in places_of(context, BATCHES) if place.group == self.group]
        if not found:
            raise Refusal(
                f"the plan has no windows in {self.group} any more: it was made anew after this task had looked."
                f" Nothing of {self.group} was started; clear plan with everything after it"
            )
        return found

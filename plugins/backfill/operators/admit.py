"""The admit stage: a window waits for its slot."""

from __future__ import annotations

from typing import Any

from backfill.kit.stages import TriggeredWait


class AdmitOperator(TriggeredWait):
    """Waits for a free slot. It has no retries: its trigger ends it, and nothing of it can be lost."""

    stage = "admit"
    trigger_path = "backfill.triggers.admit.AdmitTrigger"

    def __init__(self, *, cluster: str, group: str, **kwargs: Any) -> None:
        super().__init__(cluster=cluster, group=group, **kwargs)

"""Replan: what failed because it was too big is cut smaller."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator

from backfill.groups import BATCHES, pass_of
from backfill.kit import xcoms
from backfill.kit.debts import DebtBook
from backfill.kit.refusal import Refusal
from backfill.kit.results import counted_of, places_of, results_of
from backfill.kit.store import FROZEN, RunStore
from include.scorecard_backfill import debts as owing
from include.scorecard_backfill.planning import replan
from include.scorecard_backfill.records import Failure, Window


class ReplanOperator(BaseOperator):
    """Cuts the windows of a pass that failed because they were too big; returns the smaller ones, [] for none."""

    def __init__(self, *, cluster: str, group: str, max_windows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.group = group
        self.max_windows = max_windows

    def execute(self, context: Any) -> list[dict[str, Any]]:
        """Return the smaller windows; frozen once made, like the plan."""
        store = RunStore(context)
        places = places_of(context, pass_of(self.group))
        windows = [place.window for place in places]
        keys = {window.key for window in windows}
        # Parts of another plan's windows are not this one's, whose plan was cleared and made anew in the same run.
        parts = [part for item in store.get(FROZEN) or [] if (part := Window.from_json(item)).part_of in keys]
        known = {part.part_of for part in parts}
        failures = [r for r in results_of(context, places, "wait_workflows") if isinstance(r, Failure)]
        fresh = [w for w in replan.too_big(windows, failures) if w.key not in known]
        # Only the planned window was counted before anything was deleted: its days are those of every part, too.
        counted = counted_of(context, places_of(context, BATCHES)) if fresh else {}
        for window in fresh:
            before = counted.get(window.part_of or window.key)
            if before is None:
                self.log.warning("%s is not cut: its count before the delete is not known", window.label)
                continue
            smaller = replan.cut(window, before, context["dag_run"].run_id)
            self.log.info("%s is cut into %d", window.label, len(smaller))
            parts += smaller
        if len(parts) > self.max_windows:
            limit = f"{self.max_windows} ([core] max_map_length, [triggerer] capacity)"
            raise Refusal(f"{len(parts)} smaller windows > {limit}")
        store.set(FROZEN, [part.to_json() for part in parts])
        self._hand_over(context, parts)
        context["ti"].xcom_push(key=xcoms.CUSTOMERS, value=[part.customer_id for part in parts])
        context["ti"].xcom_push(key=xcoms.CUT, value=sorted({part.part_of for part in parts}))
        return [part.to_json() for part in parts]

    def _hand_over(self, context: Any, parts: list[Window]) -> None:
        """Have each part owe its own days, instead of the window that it was cut from."""
        if not parts:
            return
        book = DebtBook(self.cluster)
        book.announce(part.key for part in parts if part.destructive)
        of_window = {part.part_of for part in parts}
        # A window whose debt cannot be read goes on owing it; its parts write their own before they delete.
        owed = [debt for debt in book.open().readable if debt.window in of_window]
        book.hand_over(owing.hand_over(parts, context["dag_run"].run_id, owed))

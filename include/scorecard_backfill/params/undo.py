"""What the form of the undo asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class UndoParams:
    """The run whose rows are put back, of which customers; ``meant``: also the rows that were meant to go."""

    run_id: str = ""
    customers: Sequence[str] | None = None
    all_customers: bool = False
    meant: bool = False

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> Self:
        """Return the fields of the form; it has checked their types."""
        return cls(**{field.name: params[field.name] for field in fields(cls) if field.name in params})

    def chooses(self, customer_id: str) -> bool:
        """Return True when a customer's windows are to be looked at."""
        return self.all_customers or customer_id in (self.customers or ())

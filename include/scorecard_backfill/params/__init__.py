"""Parameters of a run: the trigger form, its checks, and what a run really does with them."""

from __future__ import annotations

from include.scorecard_backfill.params.resolve import (
    EffectiveParams,
    ParamsError,
    RunParams,
    RunType,
    Source,
    effective,
    params_schema,
)

__all__ = [
    "EffectiveParams",
    "ParamsError",
    "RunParams",
    "RunType",
    "Source",
    "effective",
    "params_schema",
]

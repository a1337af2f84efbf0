"""How large windows are, and whether rows are copied first."""

from __future__ import annotations

from pydantic import Field

from include.scorecard_backfill.config.fields import BATCH_COUNT, Frozen
from include.scorecard_backfill.planning.windows import WindowMode


class WindowsConfig(Frozen):
    """Size of windows when the run does not say."""

    mode: WindowMode = Field(default="auto", description="auto = by volume; or month, 10d, 5d, 1d.")
    # 400-460K in 5 days and 640K in 10 days finished; 1.3M failed by heartbeat time-out.
    target_conversations: int = Field(
        default=400_000, ge=1, le=10_000_000, description="Conversations of an auto window."
    )
    # 5 days of a large customer took 2 to 6 hours.
    window_minutes: int = Field(
        default=360, ge=1, le=10_080, description="Minutes of reindexing of an auto window, once its speed is known."
    )
    # The scheduler looks at all that waits at each loop: made at once, a plan would cost the square of its size.
    batch_size: int = Field(
        default=50,
        ge=1,
        le=1_000,
        description="Windows of a plan that come into being at once; the next ones when fewer than max_parallel wait.",
    )
    # Twenty took 30 % more processor time for a run of 12 windows than one (docs/adr/0026).
    batches: int = Field(
        default=4,
        ge=1,
        le=BATCH_COUNT,
        description="Batches of a plan at most; a larger plan has larger ones. Each is seven tasks of the DAG, for"
        " which every run pays: raise it where plans have many hundred windows, while no run of the cluster is going.",
    )
    cut_at_months: bool = Field(default=True, description="Auto windows end at months, so that partitions stay whole.")


class SnapshotConfig(Frozen):
    """Copy of a window's rows before they are deleted, to name what did not come back and to put it back."""

    enabled: bool = Field(default=False, description="Take one.")
    keep_days: int = Field(default=14, ge=1, le=365, description="Days after which it may be removed.")

"""What the scheduler's look at a run costs, by windows that wait and by stages of a window; what could make it less.

A look evaluates every instance that has not started, five behind each waiting window. Compared: (a) one stage less,
the admission as the triggered beginning of `delete`; (b) the windows in twenty batches of the run, each opened when it
is needed, of which one is open; (c) a longer pause between two looks while nothing happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.child import answer, environment, migrate

STAGES = 6
BATCHES = 20
"""As look_dags.py has them, which imports Airflow."""

BATCH_SIZE = 50
"""Windows of the open one, as the product has them."""

PAUSES = (0.5, 1.0, 3.0)
"""Seconds of ``[scheduler] scheduler_idle_sleep_time``: the sandbox's, Airflow's default, what compose ships."""

MAX_WINDOWS = "5000"

Json = dict[str, Any]


def scheduling(windows: Sequence[int], state: Path) -> Json:
    """Measure one look for each number of windows with all stages, and for the second number with fewer."""
    home = state / "scheduling"
    env = environment(home, AIRFLOW__CORE__MAX_MAP_LENGTH=MAX_WINDOWS)
    migrate(home, env)
    few = windows[min(1, len(windows) - 1)]
    fewer = [f"{stages}:{few}" for stages in (5, 2, 1)]
    pairs = [*(f"{STAGES}:{count}" for count in windows), *fewer, f"{STAGES}:{BATCH_SIZE}:{BATCHES}"]
    looks = answer("benchmarks.look_child", *pairs, env=env)
    full = looks[: len(windows)]
    return {
        "looks": full,
        "fewer_stages": looks[len(windows) : -1],
        "batches": looks[-1],
        "share_of_a_core": [
            {"windows": look["windows"], **{str(pause): share(look["cpu_seconds"], pause) for pause in PAUSES}}
            for look in full
        ],
    }


def share(look: float, pause: float) -> float:
    """Return the share of one core that looks of so many CPU seconds take with a pause between them, 0 to 1."""
    return round(look / (look + pause), 3)

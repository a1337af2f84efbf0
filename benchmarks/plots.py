"""Pictures of the results: SVG files without a date in them, so that the same results give the same files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot

from benchmarks.page import NAMES

Json = Mapping[str, Any]
SIZE = (7.0, 2.6)
OURS, OTHERS = "#1f6f5c", "#b0b7bd"


def plots(results: Json, folder: Path) -> list[Path]:
    """Draw what was measured into a folder and return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: Json = results.get("parts", {})
    drawing = {"replay": _replay, "waiting": _waiting, "scheduling": _scheduling}
    made = []
    with matplotlib.rc_context({"svg.hashsalt": "benchmarks", "font.size": 8}):
        for name, draw in drawing.items():
            if name not in parts:
                continue
            figure = draw(parts[name]["found"])
            path = folder / f"bench-{name}.svg"
            figure.tight_layout()
            figure.savefig(path, metadata={"Date": None})
            pyplot.close(figure)
            made.append(path)
    return made


def _bars(axes: Any, names: list[str], values: list[float], title: str) -> None:
    colors = [OURS if name == NAMES["ours"] else OTHERS for name in names]
    axes.barh(names[::-1], values[::-1], color=colors[::-1])
    axes.set_title(title)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _replay(found: Json) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=SIZE)
    listed = [name for name in NAMES if name in found]
    spans = [found[name]["makespan_seconds"] / found["bound_seconds"] for name in listed]
    _bars(left, [NAMES[name] for name in listed], spans, "makespan by the lower bound")
    with_cpu = [name for name in listed if "cpu_per_window" in found[name]]
    used = [found[name]["cpu_per_window"] for name in with_cpu]
    _bars(right, [NAMES[name] for name in with_cpu], used, "CPU seconds a window")
    return figure


def _waiting(found: Json) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=SIZE)
    windows = [one["windows"] for one in found["windows"]]
    left.plot(windows, [one["triggerer_mb"] for one in found["windows"]], "o-", color=OURS)
    left.set_title("triggerer, MB")
    left.set_ylim(bottom=0)
    for part, color in (("scheduler", OTHERS), ("triggerer", OURS)):
        right.plot(windows, [one["cpu_per_minute"][part] for one in found["windows"]], "o-", color=color, label=part)
    right.set_title("CPU seconds a minute")
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xlabel("windows that wait")
    return figure


def _scheduling(found: Json) -> Any:
    figure, axes = pyplot.subplots(figsize=SIZE)
    looks = found["looks"]
    axes.plot([one["windows"] for one in looks], [one["cpu_seconds"] for one in looks], "o-", color=OURS)
    axes.set_title("CPU seconds of one look of the scheduler")
    axes.set_xlabel("windows that wait")
    return figure

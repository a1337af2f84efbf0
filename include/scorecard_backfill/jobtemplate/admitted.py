"""What admission has made of a Job that was sent: what undoes its promise, and what a person should know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from include.scorecard_backfill.foreign import Manifest
from include.scorecard_backfill.jobtemplate.rules import containers_of

ONCE: tuple[tuple[str, ...], ...] = (
    ("parallelism",),
    ("completions",),
    ("backoffLimit",),
    ("completionMode",),
    ("podFailurePolicy",),
    ("managedBy",),
    ("template", "spec", "restartPolicy"),
)
"""Fields below ``spec`` that decide how often the program runs, and who sees to it."""

_DEFAULTS = {"completionMode": "NonIndexed"}


def undone(sent: Manifest, answer: Manifest, *, poll_seconds: float) -> list[str]:
    """Return a sentence for each change after which a window's Job could not serve; [] when there is none.

    ``poll_seconds``: interval at which a Job is looked at; one that is removed faster is never seen to end.
    """
    found = []
    for path in ONCE:
        wanted, got = _at(sent, path), _at(answer, path)
        if got not in (wanted, _DEFAULTS.get(path[-1], wanted)):
            found.append(
                f"sets spec.{'.'.join(path)} to {got}: more than one pod could write the window; exempt these Jobs"
            )
    kept = _at(answer, ("ttlSecondsAfterFinished",))
    if isinstance(kept, int) and kept < 2 * poll_seconds:
        found.append(f"removes a Job {kept} s after its end, before it is looked at; exempt these Jobs")
    return found


def remarks(sent: Manifest, answer: Manifest) -> list[str]:
    """Return a sentence for each change that does no harm by itself."""
    found = []
    for field, text in (
        ("ttlSecondsAfterFinished", "removes a Job {} s after its end: one that is not looked at by then is job_gone"),
        ("activeDeadlineSeconds", "ends a Job after {} s"),
    ):
        wanted, got = _at(sent, (field,)), _at(answer, (field,))
        if isinstance(got, int) and got < wanted:
            found.append(f"{text.format(got)} (ours: {wanted} s)")
    before, after = _containers(sent), _containers(answer)
    found += [
        f"changes {field} of container {name}"
        for name in containers_of(sent)
        for field in ("command", "args")
        if name in after and (before[name].get(field) or []) != (after[name].get(field) or [])
    ]
    return found


def _at(job: Manifest, path: tuple[str, ...]) -> Any:
    value: Any = job.get("spec")
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _containers(job: Manifest) -> dict[str, Manifest]:
    listed = _at(job, ("template", "spec", "containers")) or []
    return {str(item.get("name", "")): item for item in listed if isinstance(item, Mapping)}

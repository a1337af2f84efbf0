"""Two sources say how a reindex ended, Temporal and the InternalJobService: do they agree? Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Ending = Literal["done", "failed", "open", "unknown"]
"""done: ended well. failed: ended badly. open: goes on. unknown: a word that nobody has explained, or no answer."""

_WORDS: tuple[tuple[Ending, re.Pattern[str]], ...] = (
    # In this order: "NOT_STARTED" and "INCOMPLETE" must not be read as begun or complete.
    (
        "open",
        re.compile(r"NOT_STARTED|INCOMPLETE|RUNNING|PENDING|QUEUED|STARTED|IN_PROGRESS|PROCESSING|ACTIVE|CREATED"),
    ),
    ("failed", re.compile(r"FAIL|ERROR|CANCEL|TERMINAT|ABORT|TIMED_OUT|TIMEOUT|EXPIRED")),
    ("done", re.compile(r"SUCCEED|SUCCESS|COMPLETE|DONE|FINISHED")),
)


def ending_of(word: str) -> Ending:
    """What the name of a state means; the service's .proto is not public, so it is read by its words.

    >>> [ending_of(word) for word in ("JOB_STATE_SUCCEEDED", "CANCELLED", "STATE_RUNNING", "STATE_UNSPECIFIED", "7")]
    ['done', 'failed', 'open', 'unknown', 'unknown']
    """
    plain = word.upper()
    return next((ending for ending, words in _WORDS if words.search(plain)), "unknown")


@dataclass(frozen=True, slots=True)
class JobSeen:
    """One job as the InternalJobService shows it: its resource name, the state's own word, and what it means."""

    name: str
    word: str
    ending: Ending


@dataclass(frozen=True, slots=True)
class Agreement:
    """`agrees` None: one side does not know. `reason`: a sentence for the log; "" if there is nothing to say."""

    agrees: bool | None
    reason: str = ""


def agreement(workflows: Mapping[str, Ending], jobs: Mapping[str, JobSeen | None]) -> Agreement:
    """Compare the two, job by job.

    Temporal alone decides whether a workflow is closed. A disagreement holds a window that Temporal calls closed back
    until it is gone or the wait's deadline has come; an answer that is missing holds nothing back, as the source is
    optional, but is said.

    Args:
        workflows: by the job's resource name, how its workflow ended in Temporal.
        jobs: by the same names, what the service shows; None = it does not know the job or did not answer.
    """
    apart: list[str] = []
    silent: list[str] = []
    for name, ending in sorted(workflows.items()):
        job = jobs.get(name)
        if job is None or job.ending == "unknown":
            silent.append(f"{name}: {'no answer' if job is None else f'state {job.word!r} is not known here'}")
        elif job.ending != ending:
            apart.append(f"{name}: Temporal says {ending}, the InternalJobService says {job.word}")
    if apart:
        return Agreement(False, _joined("Temporal and the InternalJobService disagree", apart))
    if silent:
        return Agreement(None, _joined("the InternalJobService does not confirm it", silent))
    return Agreement(True)


def _joined(head: str, sentences: Sequence[str], most: int = 5) -> str:
    more = f"; and {len(sentences) - most} more" if len(sentences) > most else ""
    return f"{head}: {'; '.join(sentences[:most])}{more}"

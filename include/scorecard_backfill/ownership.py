"""Who waits for a live Job, and who may therefore end it: pure decisions on what the Job itself and Airflow say.

A Job carries its owner as an annotation. Who adopts it writes itself there with the counter raised, in a patch that
names the resourceVersion it has read, so that of two adopters one succeeds. Who ends it names uid and resourceVersion
in the DELETE: a Job that was adopted in between is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ANNOTATION_OWNER = "scorecard-backfill/owner"

ENDED_BY_A_PERSON = frozenset({"failed", "success", "skipped"})
"""States of the try that waits, which it cannot have while it waits, unless a person set them. A cleared task (no
state, or one of a newer try) is none of them: its next try adopts the Job."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The try of a task that waits for a Job; ``counter`` says how often the Job has been taken over, from 1."""

    run_id: str
    task_id: str
    map_index: int
    try_number: int
    counter: int = 0

    @property
    def text(self) -> str:
        """The annotation's value.

        >>> Owner("manual__1", "windows.reindex", 3, 2, 1).text
        'manual__1/windows.reindex/3/2/1'
        """
        return f"{self.run_id}/{self.task_id}/{self.map_index}/{self.try_number}/{self.counter}"

    def same_task(self, other: Owner) -> bool:
        """True for two tries of one task instance."""
        return (self.run_id, self.task_id, self.map_index) == (other.run_id, other.task_id, other.map_index)

    def after(self, current: Owner | None) -> Owner:
        """Return this try as the next owner of a Job that ``current`` owns."""
        counter = current.counter + 1 if current else 1
        return Owner(self.run_id, self.task_id, self.map_index, self.try_number, counter)


def parse_owner(text: object) -> Owner | None:
    """Return the owner of an annotation's value, None when it names nobody (a Job that was made before owners were)."""
    parts = str(text or "").rsplit("/", 4)
    if len(parts) != 5 or not all(part.lstrip("-").isdigit() for part in parts[2:]):
        return None
    return Owner(parts[0], parts[1], *(int(part) for part in parts[2:]))


def owner_of(job: Mapping[str, Any]) -> Owner | None:
    """Return the owner that a Job names."""
    return parse_owner(((job.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION_OWNER))


def adoption(job: Mapping[str, Any], me: Owner) -> Mapping[str, Any]:
    """Return the merge patch by which ``me`` becomes the Job's owner; it fails with 409 when the Job has changed.

    Raises:
        StaleError: a later try of the same task owns the Job: this process is one that should not run any more.
    """
    current = owner_of(job)
    if current and current.same_task(me) and current.try_number > me.try_number:
        raise StaleError(
            f"Job {job['metadata']['name']} belongs to try {current.try_number} of this task, and this is try"
            f" {me.try_number}, which is over: nothing is done"
        )
    meta = {"resourceVersion": job["metadata"]["resourceVersion"]}
    return {"metadata": {**meta, "annotations": {ANNOTATION_OWNER: me.after(current).text}}}


class StaleError(Exception):
    """This process belongs to a try that is over; the message says whose turn it is."""


@dataclass(frozen=True, slots=True)
class End:
    """A Job may be ended: the options of the DELETE, which holds for this very version of it only."""

    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Leave:
    """A Job is left alone, and why."""

    why: str


def may_end(job: Mapping[str, Any] | None, mine: Owner | None, uid: str = "") -> End | Leave:
    """Decide whether the owner ``mine`` may end this Job now. ``uid``: of the Job that it waited for, '' = unknown.

    That it has a reason to (its own deadline, or a person's decision: :func:`asked_to_end`) is for the caller to know.
    """
    if job is None:
        return Leave("it does not exist any more")
    meta = job["metadata"]
    if uid and meta["uid"] != uid:
        return Leave("it is another Job of the same name")
    if meta.get("deletionTimestamp"):
        return Leave("it is being deleted already")
    current = owner_of(job)
    if mine is None or current != mine:
        who = current.text if current else "nobody that is known"
        return Leave(f"its owner is {who}, not {mine.text if mine else 'this one'}")
    return End(
        meta["name"],
        {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
        },
    )


def asked_to_end(state: str | None) -> bool:
    """Return True when Airflow's state of the task says that a person has ended this try.

    Any other state, also none and one that is not known, means that somebody else goes on with the Job: a triggerer
    that was restarted or presumed dead, a worker that is shut down, a cleared task.
    """
    return state in ENDED_BY_A_PERSON

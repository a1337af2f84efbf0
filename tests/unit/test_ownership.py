"""Who may end a live Job: never one who does not own it, whatever stale processes do and in whatever order."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from include.scorecard_backfill.ownership import (
    ANNOTATION_OWNER,
    ENDED_BY_A_PERSON,
    End,
    Leave,
    Owner,
    StaleError,
    adoption,
    asked_to_end,
    may_end,
    owner_of,
    parse_owner,
)

Json = dict[str, Any]
ME = Owner("manual__2026-03-01T00:00:00+00:00", "windows.reindex", 3, 2, 5)


def job(owner: Owner | None = ME, **meta: Any) -> Json:
    annotations = {ANNOTATION_OWNER: owner.text} if owner else {}
    return {"metadata": {"name": "j", "uid": "u", "resourceVersion": "7", "annotations": annotations, **meta}}


@pytest.mark.parametrize("run", ["manual__1", "scheduled__2026-01-01T00:00:00+00:00", "a/b/c", ""])
def test_an_owner_is_read_as_it_was_written(run: str) -> None:
    owner = Owner(run, "windows.reindex", -1, 1, 2)
    assert parse_owner(owner.text) == owner


@pytest.mark.parametrize("text", [None, "", "x", "a/b/c/d/e", "r/t/1/2/", "r/t/1/2"])
def test_what_names_nobody_is_nobody(text: Any) -> None:
    assert parse_owner(text) is None


def test_an_adopter_raises_the_counter_and_names_the_version_that_it_read() -> None:
    later = Owner(ME.run_id, ME.task_id, ME.map_index, 3)
    assert adoption(job(), later) == {
        "metadata": {"resourceVersion": "7", "annotations": {ANNOTATION_OWNER: f"{later.text[:-1]}6"}}
    }
    assert adoption(job(None), later)["metadata"]["annotations"][ANNOTATION_OWNER].endswith("/3/1")


def test_a_try_that_is_over_adopts_nothing() -> None:
    with pytest.raises(StaleError, match="belongs to try 2 of this task, and this is try 1, which is over"):
        adoption(job(), Owner(ME.run_id, ME.task_id, ME.map_index, 1))
    # Another task of the window, and another run, have tries of their own.
    for other in (Owner(ME.run_id, "windows.verify", 3, 1), Owner("other", ME.task_id, 3, 1)):
        assert adoption(job(), other)


@pytest.mark.parametrize(
    ("found", "mine", "uid", "why"),
    [
        (None, ME, "", "does not exist"),
        (job(), ME, "other", "another Job of the same name"),
        (job(deletionTimestamp="2026-01-01T00:00:00Z"), ME, "u", "is being deleted"),
        (job(None), ME, "u", "its owner is nobody that is known"),
        (job(), None, "u", "not this one"),
        (job(), Owner(ME.run_id, ME.task_id, ME.map_index, ME.try_number, 4), "u", "/2/5, not"),
    ],
)
def test_a_job_is_left_alone_by_who_does_not_own_it(found: Any, mine: Any, uid: str, why: str) -> None:
    decided = may_end(found, mine, uid)
    assert isinstance(decided, Leave)
    assert why in decided.why


def test_its_owner_ends_this_very_version_of_it() -> None:
    decided = may_end(job(), ME, "u")
    assert isinstance(decided, End)
    assert decided.options["preconditions"] == {"uid": "u", "resourceVersion": "7"}
    assert decided.options["propagationPolicy"] == "Background"
    assert may_end(job(), ME) == decided


@pytest.mark.parametrize(
    ("state", "asked"),
    [("failed", True), ("success", True), ("skipped", True), (None, False), ("deferred", False), ("running", False),
     ("scheduled", False), ("queued", False), ("up_for_retry", False), ("restarting", False), ("removed", False),
     ("upstream_failed", False), ("a word of a later version", False)],
)  # fmt: skip
def test_only_a_persons_decision_on_this_try_is_one(state: str | None, asked: bool) -> None:
    assert asked_to_end(state) is asked


@dataclass
class Process:
    """A trigger or worker that waits for a Job; ``seen`` is what it read when it was told to stop."""

    owner: Owner
    uid: str
    seen: Json | None = None
    state: str | None = None


@dataclass
class Server:
    """One name at the API server, with its rules for patches and deletions."""

    stored: Json | None = None
    versions: int = 0
    uids: int = 0
    ended: list[str] = field(default_factory=list)

    def create(self, owner: Owner) -> Json:
        self.uids += 1
        self.stored = job(owner, uid=f"u{self.uids}", resourceVersion=self.next())
        return copy.deepcopy(self.stored)

    def next(self) -> str:
        self.versions += 1
        return str(self.versions)

    def touch(self) -> None:
        if self.stored:
            self.stored["metadata"]["resourceVersion"] = self.next()

    def patch(self, patch: Mapping[str, Any]) -> Json | None:
        if not self.stored or patch["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]:
            return None
        self.stored["metadata"]["annotations"].update(patch["metadata"]["annotations"])
        self.touch()
        return copy.deepcopy(self.stored)

    def delete(self, options: Mapping[str, Any]) -> Json | None:
        wanted = options["preconditions"]
        if self.stored is None or any(self.stored["metadata"][name] != value for name, value in wanted.items()):
            return None
        gone, self.stored = self.stored, None
        return gone


class Ownership(RuleBasedStateMachine):
    """Tries of one task come and go; their triggers are stopped, presumed dead, and come back at any later moment."""

    processes = Bundle("processes")

    @initialize()
    def begin(self) -> None:
        self.server = Server()
        self.current = 0
        self.state: str | None = "scheduled"
        self.asked: set[int] = set()
        self.ends: list[tuple[Owner, Owner | None]] = []

    @rule(target=processes)
    def next_try(self) -> Process:
        """A retry or a clear: the new try adopts the live Job, or makes one."""
        self.current += 1
        self.state = "deferred"
        me = Owner("run", "windows.reindex", 3, self.current)
        found = copy.deepcopy(self.server.stored)
        made = self.server.patch(adoption(found, me)) if found else self.server.create(me.after(None))
        assert made is not None
        owner = owner_of(made)
        assert owner is not None
        return Process(owner, made["metadata"]["uid"])

    @rule(target=processes, old=processes)
    def stale_worker(self, old: Process) -> Process:
        """A worker of an old try goes on where it was, and would adopt the Job."""
        found = copy.deepcopy(self.server.stored)
        if found is None:
            return old
        try:
            patch = adoption(found, old.owner)
        except StaleError:
            return old
        stored = self.server.patch(patch)
        owner = owner_of(stored) if stored else None
        assert owner is not None
        return Process(owner, old.uid)

    @rule(state=st.sampled_from(sorted(ENDED_BY_A_PERSON)))
    def person_ends(self, state: str) -> None:
        if self.current:
            self.state = state
            self.asked.add(self.current)

    @rule()
    def person_clears(self) -> None:
        self.state = None

    @rule()
    def controller_writes_status(self) -> None:
        self.server.touch()

    @rule()
    def job_ends_by_itself(self) -> None:
        self.server.stored = None

    @rule(process=processes)
    def stopped(self, process: Process) -> None:
        """The process is cancelled: it asks Airflow and reads the Job; it acts later."""
        process.state = self.state
        process.seen = copy.deepcopy(self.server.stored)

    @rule(process=processes)
    def acts(self, process: Process) -> None:
        if process.seen is None or not asked_to_end(process.state):
            return
        decided = may_end(process.seen, process.owner, process.uid)
        if isinstance(decided, End) and (gone := self.server.delete(decided.options)):
            self.ends.append((process.owner, owner_of(gone)))

    @invariant()
    def nobody_ends_what_he_does_not_own(self) -> None:
        for who, owner in getattr(self, "ends", []):
            assert who == owner
            assert who.try_number in self.asked


Ownership.TestCase.settings = settings(max_examples=80, stateful_step_count=25)
TestOwnership = Ownership.TestCase

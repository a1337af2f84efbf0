"""A Job is made once: what a failed creation means, and what is done about one that was made beside another."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from backfill.hooks.kubernetes import KubeCallError
from backfill.reindexing import jobmaker as module
from backfill.reindexing.jobmaker import JobMaker, JobRefusedError, NoRoomError, NotMadeError
from include.scorecard_backfill import names
from include.scorecard_backfill.job import JobError, JobRequest, window_selector
from include.scorecard_backfill.ownership import ANNOTATION_OWNER, Owner

Json = dict[str, Any]

KEY = "0123456789abcdef"
ME = Owner("manual__1", "windows.reindex", 0, 2)
MINE = ME.after(None)
OTHER = Owner("manual__1", "windows.reindex", 0, 1, 4)
REQUEST = JobRequest(
    key=KEY, cluster="demo", run_id="r", customer_id="acme", start="2026-01-01", end="2026-02-01", attempt=3,
    ttl_seconds=60, deadline_seconds=60, owner=MINE.text,
)  # fmt: skip
NAME = REQUEST.name


def job(name: str = NAME, owner: Owner | None = MINE, condition: str = "", key: str = KEY) -> Json:
    """A Job of the window."""
    conditions = [{"type": condition, "status": "True"}] if condition else []
    notes = {ANNOTATION_OWNER: owner.text} if owner else {}
    labels = {names.LABEL_WINDOW: key, names.LABEL_ATTEMPT: "3"}
    return {
        "metadata": {"name": name, "uid": f"uid of {name}", "labels": labels, "annotations": notes},
        "status": {"conditions": conditions},
    }


def refusal(status: int | None, reason: str = "Reason", detail: str = "detail") -> KubeCallError:
    """What a call may end with."""
    return KubeCallError(f"cannot: {status}", status, reason, detail)


class Api:
    """Answers, or raises, what a test tells."""

    def __init__(self, **told: Any) -> None:
        self.config = SimpleNamespace(namespace="cron")
        self.told = {"cronjob": {"cron": True}, "create_job": job(), "jobs": [job()]} | told
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any) -> Any:
            self.asked.append((name, *args))
            found = self.told[name]
            if isinstance(found, Exception):
                raise found
            return found

        return call

    def calls(self, name: str) -> list[list[Any]]:
        """What was asked of one method."""
        return [args for called, *args in self.asked if called == name]


@pytest.fixture(autouse=True)
def changed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What admission has changed of the window; a test adds to it."""
    found: list[str] = []

    def build(cronjob: Json, request: JobRequest) -> Json:
        assert cronjob == {"cron": True}
        return {"metadata": {"name": request.name}}

    def look(made: Json, request: JobRequest) -> list[str]:
        assert (made["metadata"]["name"], request) == (NAME, REQUEST)
        return found

    monkeypatch.setattr(module, "build_job", build)
    monkeypatch.setattr(module, "changed_window", look)
    return found


def create(api: Api) -> Json:
    """Have the Job made."""
    maker = JobMaker(api, ME, logging.getLogger(__name__))  # type: ignore[arg-type]
    return asyncio.run(maker.create(REQUEST))


def refused(api: Api) -> JobRefusedError:
    """The refusal with which that ends."""
    with pytest.raises(JobRefusedError) as error:
        create(api)
    return error.value


def test_a_job_is_made_by_the_cronjobs_template() -> None:
    api = Api()
    assert create(api) == job()
    assert api.asked == [
        ("cronjob",), ("create_job", {"metadata": {"name": NAME}}), ("jobs", window_selector(KEY)),
    ]  # fmt: skip


def test_a_template_that_cannot_serve_is_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise JobError("no container")

    monkeypatch.setattr(module, "build_job", refuse)
    error = refused(Api())
    assert (error.cause, str(error)) == ("job_refused", "no container")
    assert error.do == "correct the CronJob's template, then clear this task"


GIVE = "give this account the right, then clear this task"
CORRECT = "correct what is named, then clear this task"


@pytest.mark.parametrize(
    ("call", "status", "cause", "do"),
    [
        ("cronjob", 403, "access_denied", GIVE),
        ("cronjob", 404, "job_refused", CORRECT),
        ("create_job", 403, "access_denied", GIVE),
        ("create_job", 422, "job_refused", CORRECT),
        ("create_job", 400, "job_refused", CORRECT),
    ],
)
def test_what_no_repetition_mends_is_for_a_person(call: str, status: int, cause: str, do: str) -> None:
    api = Api(**{call: refusal(status)})
    error = refused(api)
    assert (error.cause, str(error), error.do) == (cause, f"cannot: {status}", do)
    assert api.calls("job") == []


def test_a_template_that_cannot_be_read_now_is_an_error_that_passes() -> None:
    with pytest.raises(KubeCallError, match="cannot: 503"):
        create(Api(cronjob=refusal(503)))


@pytest.mark.parametrize(
    "error", [refusal(403, "Forbidden", "exceeded quota: jobs"), refusal(409, "Conflict", "on resourcequotas")]
)
def test_a_quota_without_room_is_waited_for(error: KubeCallError) -> None:
    with pytest.raises(NoRoomError) as found:
        create(Api(create_job=error))
    assert str(found.value) == error.detail


LOST = [refusal(None), refusal(503), refusal(409, "AlreadyExists", "exists")]


@pytest.mark.parametrize("error", LOST)
def test_a_creation_whose_outcome_is_not_known_looks_by_name(error: KubeCallError) -> None:
    api = Api(create_job=error, job=None)
    with pytest.raises(NotMadeError) as found:
        create(api)
    assert str(found.value) == f"Job {NAME} was not created ({error}); the retry looks again, then creates it"
    assert api.calls("job") == [[NAME]]
    there = Api(create_job=error, job=job())
    assert create(there) == job()
    assert there.calls("adopt_job") == []


def test_a_job_of_the_name_that_is_not_ours_is_for_a_person() -> None:
    for labels in ({names.LABEL_WINDOW: "another"}, None):
        other = job()
        other["metadata"]["labels"] = labels
        error = refused(Api(create_job=LOST[2], job=other))
        assert error.cause == "job_not_ours"
        assert str(error) == f"Job {NAME} exists in cron and is not ours (no label {names.LABEL_WINDOW}={KEY})"
        assert error.do == "find out who made it and delete it, then clear this task"


def test_a_job_of_an_earlier_try_is_adopted_when_it_is_found_there() -> None:
    adopted = job(owner=ME.after(OTHER))
    api = Api(create_job=LOST[2], job=job(owner=OTHER), adopt_job=adopted)
    assert create(api) == adopted
    assert api.calls("adopt_job") == [[NAME, ME.after(OTHER)]]
    # One that has ended needs nobody who waits for it.
    over = Api(create_job=LOST[2], job=job(owner=OTHER, condition="Complete"))
    assert create(over) == job(owner=OTHER, condition="Complete")
    assert over.calls("adopt_job") == []


def test_a_job_that_goes_while_it_is_adopted_was_not_made() -> None:
    with pytest.raises(NotMadeError) as found:
        create(Api(create_job=LOST[2], job=job(owner=OTHER), adopt_job=None))
    assert str(found.value) == f"Job {NAME} was there and is gone; the retry looks again"


def test_a_job_with_another_window_is_deleted_at_once(changed: list[str]) -> None:
    changed += ["one", "two"]
    api = Api(end_job=None)
    error = refused(api)
    assert error.cause == "job_refused"
    assert str(error) == (f"an admission webhook has changed the window of Job {NAME}, which was deleted: one; two")
    assert error.do == "exempt these Jobs from it, then clear this task"
    assert api.calls("end_job") == [[NAME, MINE, f"uid of {NAME}"]]


def test_a_second_live_job_of_the_window_is_deleted_and_the_first_one_stays() -> None:
    api = Api(jobs=[job(), job("first")], end_job=None)
    with pytest.raises(NotMadeError) as found:
        create(api)
    assert str(found.value) == f"Job first of the same window is alive: {NAME}, made beside it, was deleted"
    assert api.calls("end_job") == [[NAME, MINE, f"uid of {NAME}"]]


@pytest.mark.parametrize(
    "told",
    [
        {"jobs": [job(), job("first", condition="Failed")]},
        {"jobs": [job(condition="Complete"), job("first")], "create_job": job(condition="Complete")},
        {"jobs": refusal(403)},
    ],
)
def test_a_job_that_is_alone_or_has_ended_stays(told: Json) -> None:
    api = Api(**told)
    assert create(api)["metadata"]["name"] == NAME
    assert api.calls("end_job") == []


def test_jobs_that_may_not_be_changed_are_for_a_person() -> None:
    maker = JobMaker(Api(adopt_job=refusal(403)), ME, logging.getLogger(__name__))  # type: ignore[arg-type]
    with pytest.raises(JobRefusedError) as error:
        asyncio.run(maker.adopt(job(owner=OTHER)))
    assert error.value.cause == "access_denied"


def test_the_jobs_of_a_window_are_listed_by_its_label() -> None:
    api = Api(jobs=[job(), job("old", condition="Failed")])
    maker = JobMaker(api, ME, logging.getLogger(__name__))  # type: ignore[arg-type]
    assert asyncio.run(maker.jobs(KEY)) == api.told["jobs"]
    assert api.calls("jobs") == [[window_selector(KEY)]]
    api.told["jobs"] = [job(), job("second")]
    with pytest.raises(JobRefusedError) as error:
        asyncio.run(maker.jobs(KEY))
    assert (error.value.cause, str(error.value)) == ("two_live_jobs", f"the window has 2 live Jobs ({NAME}, second)")
    assert error.value.do == "delete all but one, then clear this task"

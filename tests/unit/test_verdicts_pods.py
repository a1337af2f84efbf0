"""Jobs and pods as the API shows them: any field may be missing or null, and each sentence is whole."""

from __future__ import annotations

from typing import Any

import pytest

from include.scorecard_backfill import names
from include.scorecard_backfill.verdicts import jobs, jobwait
from include.scorecard_backfill.verdicts.jobs import FIELD_MANAGER, JobOutcome
from include.scorecard_backfill.verdicts.jobwait import Facts, Limits
from include.scorecard_backfill.verdicts.podreasons import SIDECAR_REMEDY, Why, failure, pod_reason, warning_of

Json = dict[str, Any]
CLEAR = "then clear this task"


def condition(kind: str, status: str = "True", at: int | None = None, **more: Any) -> Json:
    time = {} if at is None else {"lastTransitionTime": f"1970-01-01T00:00:{at:02}Z"}
    return {"type": kind, "status": status, **time, **more}


def job(*conditions: Json, name: str = "j", meta: Json | None = None, spec: Json | None = None, **status: Any) -> Json:
    return {
        "metadata": {"name": name, "creationTimestamp": "1970-01-01T00:00:01Z", **(meta or {})},
        "spec": spec or {},
        "status": {"conditions": list(conditions), **status},
    }


def container(name: str = "reindex", **more: Any) -> Json:
    return {"name": name, "image": "i:1", **more}


def pod(*containers: Json, name: str = "p", phase: str = "Running", **status: Any) -> Json:
    return {"metadata": {"name": name}, "status": {"phase": phase, "containerStatuses": list(containers), **status}}


RUNNING: Json = {"running": {"startedAt": "1970-01-01T00:00:01Z"}}
ENDED: Json = {"terminated": {"exitCode": 0, "reason": "Completed"}}
PULL: Json = {"waiting": {"reason": "ErrImagePull", "message": "no such tag"}}
BARE: list[Json] = [{}, {"status": None, "metadata": None}, {"status": {"containerStatuses": None}, "metadata": {}}]
"""What a pod looks like before anything is known of it."""


# -- the Job's own words --------------------------------------------------------------------------------------------


def test_a_final_condition_is_told_in_its_own_words_and_a_failure_comes_before_a_completion() -> None:
    failed = condition("Failed", reason="BackoffLimitExceeded", message="limit reached")
    assert jobs.job_outcome(job(failed)) == JobOutcome("failed", "BackoffLimitExceeded", "limit reached")
    complete = condition("Complete", reason="CompletionsReached", message="all done")
    assert jobs.job_outcome(job(complete)) == JobOutcome("complete", "CompletionsReached", "all done")
    assert jobs.job_outcome(job(complete, failed)).state == "failed"
    assert jobs.job_outcome(job(condition("Failed", reason=None, message=None))) == JobOutcome("failed", "", "")
    assert jobs.job_outcome({"spec": None, "status": None}) == JobOutcome("active", "", "")


def managed(*entries: Json, **meta: Any) -> Json:
    return job(meta={"managedFields": list(entries), **meta}, spec={"suspend": True})


SUSPENDS: Json = {"fieldsV1": {"f:spec": {"f:suspend": {}}}}


@pytest.mark.parametrize(
    ("found", "by"),
    [
        (job(), "an admission webhook or a person (spec.suspend is true), who has to resume it"),
        ({}, "an admission webhook or a person (spec.suspend is true), who has to resume it"),
        (
            managed({"manager": "a"}, {"manager": "b", "fieldsV1": None},
                    {"manager": "c", "fieldsV1": {"f:spec": None}},
                    {"manager": "d", "fieldsV1": {"f:spec": {"f:parallelism": {}}}}),
            "an admission webhook or a person (spec.suspend is true), who has to resume it",
        ),
        # The last who wrote the field holds it back; what we wrote ourselves says nothing.
        (managed({"manager": "first", **SUSPENDS}, {"manager": "last", **SUSPENDS}), "'last', who has to resume it"),
        (managed({"manager": "first", **SUSPENDS}, {"manager": FIELD_MANAGER, **SUSPENDS}),
         "'first', who has to resume it"),
        (managed(SUSPENDS), "'?', who has to resume it"),
        (managed({"manager": "last", **SUSPENDS}, labels={"kueue.x-k8s.io/queue-name": "batch"}),
         "the queue 'batch' (Kueue), which resumes it in its turn"),
    ],
)  # fmt: skip
def test_who_holds_a_job_back_is_named(found: Json, by: str) -> None:
    assert jobs.suspended_by(found) == by
    held = {**found, "spec": {"suspend": True}}
    expected = JobOutcome("suspended", "Suspended", f"suspended by {by}: no pod is made until then")
    assert jobs.job_outcome(held) == expected
    assert not expected.final
    assert FIELD_MANAGER == "scorecard-backfill"


@pytest.mark.parametrize(
    ("found", "ended"),
    [
        ({}, 0.0),
        (job(), 0.0),
        ({"status": {"conditions": None}}, 0.0),
        (job(condition("Suspended", at=3), condition("Failed", at=5)), 5.0),
        (job(condition("Failed"), condition("Complete", at=7)), 7.0),
        (job(condition("Complete", at=7), completionTime="1970-01-01T00:00:06Z"), 6.0),
        (job(condition("Failed", at=5), condition("Complete", at=7)), 5.0),
    ],
)
def test_a_job_ended_when_it_completed_or_else_when_it_was_said_to_have_ended(found: Json, ended: float) -> None:
    assert jobs.ended_at(found) == ended


def test_times_of_a_job_that_says_little() -> None:
    assert (jobs.seconds_of(""), jobs.seconds_of(None), jobs.seconds_of("1970-01-01T00:01:00Z")) == (None, None, 60.0)
    bare = {"metadata": {"creationTimestamp": "1970-01-01T00:00:09Z"}, "status": None}
    assert (jobs.created_at(bare), jobs.began_at(bare), jobs.suspended_at(bare)) == (9.0, 9.0, 9.0)
    untimed = job(condition("Suspended", "False"), condition("Suspended", "True"))
    assert (jobs.began_at(untimed), jobs.suspended_at(untimed)) == (1.0, 1.0)
    assert jobs.created_at({"metadata": {"creationTimestamp": None}}) == 0.0
    # The newest of several conditions counts.
    twice = job(condition("Suspended", at=4), condition("Suspended", at=8), condition("Suspended", "False", 6))
    assert (jobs.began_at(twice), jobs.suspended_at(twice)) == (6.0, 8.0)


# -- pods -----------------------------------------------------------------------------------------------------------


def test_a_container_that_cannot_start_is_named_wherever_it_stands() -> None:
    said = "pod p: image i:1: ErrImagePull: no such tag"
    broken = container(state=PULL)
    assert jobs.start_problem([*BARE, pod(container(state=RUNNING), broken)]) == said
    assert jobs.start_problem([pod(container(state=RUNNING), initContainerStatuses=[broken])]) == said
    # The first in time is the reason of the others: an init container.
    later = container("b", state={"waiting": {"reason": "CreateContainerError"}})
    assert jobs.start_problem([pod(later, initContainerStatuses=[broken])]) == said
    assert jobs.start_problem([pod(later)]) == "pod p: image i:1: CreateContainerError"
    nameless = {"status": {"containerStatuses": [{"state": PULL}]}}
    assert jobs.start_problem([nameless]) == "pod ?: image ?: ErrImagePull: no such tag"
    assert jobs.start_problem([*BARE, pod(container(), container(state={}), container(state={"waiting": {}}))]) == ""


def test_a_program_that_runs_in_any_pod_is_not_held_up() -> None:
    stuck = pod(container(state=PULL), name="p-1")
    said = "pod p-1: image i:1: ErrImagePull: no such tag"
    assert jobs.held_up([*BARE, stuck], "reindex") == said
    assert jobs.held_up([stuck, pod(container(state=RUNNING))], "reindex") == ""
    assert jobs.held_up([stuck, pod(container("proxy", state=RUNNING))], "reindex") == said
    assert jobs.held_up(iter([stuck, pod(container(state=ENDED))]), "reindex") == said


def test_the_program_has_ended_when_its_own_container_has() -> None:
    assert jobs.has_ended([*BARE, pod(container("proxy", state=RUNNING), container(state=ENDED))], "reindex") is True
    assert jobs.has_ended([*BARE, pod(container("proxy", state=ENDED), container(state=RUNNING))], "reindex") is False
    assert jobs.has_ended([pod(container(), container(state=None))], "reindex") is False


def test_a_pod_may_run_until_it_is_said_to_have_ended() -> None:
    phases = [*(("Pending", "Running", "Unknown", "Succeeded", "Failed")), ""]
    listed = [pod(name=f"p-{phase}", phase=phase) for phase in phases]
    assert jobs.may_run([*listed, {"metadata": {"name": "bare"}}, {"metadata": {"name": "null"}, "status": None}]) == [
        "p-Pending", "p-Running", "p-Unknown", "p-", "bare", "null",
    ]  # fmt: skip


def test_a_job_has_started_when_a_container_of_any_pod_ever_ran() -> None:
    pending = pod(container(), container(state=PULL), phase="Pending")
    assert jobs.started([*BARE, pending]) is False
    for state in (RUNNING, ENDED):
        assert jobs.started([*BARE, pending, pod(container(), container(state=state), phase="Pending")]) is True
    for phase in ("Running", "Succeeded", "Failed"):
        assert jobs.started([*BARE, pending, {"status": {"phase": phase}}]) is True


def test_containers_that_outlive_the_program_are_named_once_and_only_in_its_own_pod() -> None:
    beside = pod(container(state=ENDED), container("proxy", state=RUNNING), container("done", state=ENDED),
                 container("new", state=None))  # fmt: skip
    elsewhere = pod(container("other", state=RUNNING), container(state=RUNNING))
    assert jobs.left_running([*BARE, elsewhere, beside, beside], "reindex") == ["proxy"]
    assert jobs.left_running([beside, pod(container("x", state=RUNNING), container(state=ENDED))], "reindex") == [
        "proxy", "x",
    ]  # fmt: skip
    assert jobs.left_running([beside], "proxy") == []


def test_running_jobs_of_a_customer_that_are_of_no_window_of_the_plan() -> None:
    def of(customer: str, window: str, name: str, *conditions: Json) -> Json:
        labels = {names.LABEL_CUSTOMER: names.label_value(customer), names.LABEL_WINDOW: window}
        return job(*conditions, name=name, meta={"labels": labels})

    listed = [
        of("acme", "k1", "mine"), of("acme", "k9", "old"), of("globex", "k9", "theirs"),
        of("acme", "k9", "over", condition("Complete")), job(name="bare"), job(name="null", meta={"labels": None}),
        of("acme", "k8", "older"),
    ]  # fmt: skip
    assert jobs.of_other_plans(listed, "acme", {"k1"}) == ["old", "older"]
    assert jobs.of_other_plans(listed, "acme", {"k1", "k8", "k9"}) == []


def test_running_jobs_of_the_cronjobs_own_schedule() -> None:
    def owned(name: str, kind: str, owner: str, *conditions: Json) -> Json:
        return job(*conditions, name=name, meta={"ownerReferences": [{"kind": kind, "name": owner}]})

    listed = [
        owned("a", "CronJob", "nightly"), owned("b", "CronJob", "other"), owned("c", "Pod", "nightly"),
        owned("d", "CronJob", "nightly", condition("Failed")), job(name="e"),
        job(name="f", meta={"ownerReferences": None}), job(name="g", meta={"ownerReferences": [{}]}),
    ]  # fmt: skip
    assert jobs.scheduled_jobs(listed, "nightly") == ["a"]


# -- one look at a Job that has not ended ---------------------------------------------------------------------------

LIMITS = Limits(deadline=3_600, startup=600, pull_grace=120, queue=7_200)
ACTIVE = pod(container(state=RUNNING))
STUCK = pod(container(state=PULL), phase="Pending")
HELD_UP = "pod p: image i:1: ErrImagePull: no such tag"
QUOTA = "FailedCreate: exceeded quota: compute"


def looked(found: Json, pods: list[Json], now: float, **facts: Any) -> str | Why:
    return jobwait.judge(Facts(found, pods, 1 + now, "reindex", **facts), LIMITS)


@pytest.mark.parametrize(
    ("found", "pods", "now", "facts", "said"),
    [
        (job(), [], 600, {}, "Job j: 0 active, 0 pods"),
        (job(active=2), [ACTIVE, ACTIVE], 3_600, {}, "Job j: 2 active, 2 pods"),
        ({**job(), "status": None}, [ACTIVE], 5, {}, "Job j: 0 active, 1 pods"),
        (job(), [ACTIVE], 5, {"left": ["proxy", "log"]},
         "Job j: 0 active, 1 pods; container reindex has ended, proxy, log still runs"),
        (job(), [STUCK], 200, {"held_since": 200.0}, f"Job j: {HELD_UP}; given 120 s to recover"),
        (job(), [], 7_200, {"warning": QUOTA}, f"no pod of Job j may be made: {QUOTA}; given 7200 s"),
        (job(spec={"suspend": True}), [], 7_200, {},
         "Job j is suspended by an admission webhook or a person (spec.suspend is true), who has to resume it; given"
         " 7200 s"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_job_that_is_waited_for(found: Json, pods: Any, now: float, facts: Any, said: str) -> None:
    assert looked(found, pods, now, **facts) == said


@pytest.mark.parametrize(
    ("found", "pods", "now", "facts", "why"),
    [
        (job(), [], 7_201, {"warning": QUOTA},
         Why("quota_exceeded",
             f"no pod of Job j may be made: {QUOTA}, for more than 7200 s (kubernetes.queue_timeout_seconds)",
             f"make room in the queue or quota, {CLEAR}: it makes a new Job")),
        (job(spec={"suspend": True}), [], 7_201, {},
         Why("job_suspended",
             "Job j is suspended by an admission webhook or a person (spec.suspend is true), who has to resume it, for"
             " more than 7200 s (kubernetes.queue_timeout_seconds)",
             f"make room in the queue or quota, {CLEAR}: it makes a new Job")),
        (job(), [], 601, {},
         Why("cannot_start",
             "no pod of Job j has started within 600 s (0 pods exist); see the namespace's quota, nodes and events",
             f"remove what holds it back, {CLEAR}")),
        (job(), BARE, 601, {"warning": "FailedScheduling: no node"},
         Why("cannot_start", "no pod of Job j has started within 600 s (3 pods exist); FailedScheduling: no node",
             f"remove what holds it back, {CLEAR}")),
        (job(), [STUCK], 200, {"held_since": 81.0},
         Why("cannot_start", HELD_UP, f"correct the image or the configuration, {CLEAR}")),
        (job(), [STUCK], 3_601, {"held_since": 3_602.0},
         Why("cannot_start", HELD_UP, f"correct the image or the configuration, {CLEAR}")),
        (job(), [pod(container("proxy", state=PULL), container(state=ENDED))], 200, {"held_since": 1.0},
         Why("sidecar_left", f"container reindex has ended, but {HELD_UP}",
             f"correct the image or the configuration, {CLEAR}")),
        (job(), [ACTIVE], 3_601, {},
         Why("job_deadline", "it has not ended within 3600 s of its start", f"see its pods and log, {CLEAR}")),
        (job(), [ACTIVE], 3_601, {"left": ["proxy", "log"]},
         Why("sidecar_left",
             "container reindex has ended, but proxy, log still runs and keeps the pod alive (not ended within 3600 s)",
             SIDECAR_REMEDY)),
    ],
)  # fmt: skip
def test_why_a_job_is_ended_and_what_a_person_does(found: Json, pods: Any, now: float, facts: Any, why: Why) -> None:
    assert looked(found, pods, now, **facts) == why


def test_the_patience_for_a_suspension_counts_from_its_own_moment() -> None:
    held = job(condition("Suspended", at=11), spec={"suspend": True})
    assert isinstance(looked(held, [], 7_210), str)
    assert isinstance(looked(held, [], 7_211), Why)


# -- why a Job failed -----------------------------------------------------------------------------------------------

AGAIN = "correct what the pod's lines say, then clear this task: it makes a new Job"


def exited(code: int, **more: Any) -> Json:
    return {"terminated": {"exitCode": code, **more}}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (pod(container(state=exited(3, reason="Error"))),
         Why("job_failed", "pod p: container reindex ended with exit code 3 (Error)", AGAIN)),
        (pod(container(state=exited(3, message="bad\n  table " + "x" * 400))),
         Why("job_failed", "pod p: container reindex ended with exit code 3 (Error): bad table " + "x" * 290, AGAIN)),
        (pod(container(state=exited(137, reason="OOMKilled"))),
         Why("oom_killed", "pod p: container reindex ended with exit code 137 (OOMKilled)",
             "raise resources.limits.memory in the CronJob's template, or cut the windows smaller; then clear this"
             " task")),
        # It runs again, and ended before: that is the reason.
        (pod(container(state=RUNNING, lastState=exited(4))),
         Why("job_failed", "pod p: container reindex ended with exit code 4 (Error)", AGAIN)),
        # The program first, then what stands in the pod's own order.
        (pod(container("a", state=exited(1)), container(state=exited(2)),
             initContainerStatuses=[container("b", state=exited(9))]),
         Why("job_failed", "pod p: container reindex ended with exit code 2 (Error)", AGAIN)),
        (pod(container("a", state=exited(1)), initContainerStatuses=[container("b", state=exited(9))]),
         Why("job_failed", "pod p: container b ended with exit code 9 (Error)", AGAIN)),
        # A pod that was taken away says why before its containers do.
        (pod(container(state=exited(143)), phase="Failed", reason="Evicted", message="disk pressure"),
         Why("job_failed", "pod p: Evicted: disk pressure",
             "look at the node and the namespace's limits, then clear this task")),
        (pod(phase="Failed", reason="NodeLost"),
         Why("job_failed", "pod p: NodeLost: no message",
             "look at the node and the namespace's limits, then clear this task")),
        ({"status": {"phase": "Failed", "reason": "NodeLost", "message": "gone"}},
         Why("job_failed", "pod ?: NodeLost: gone",
             "look at the node and the namespace's limits, then clear this task")),
        (pod(phase="Failed"), None),
        (pod(phase="Running", reason="Evicted"), None),
        (pod(container(state=exited(0)), container(state=None, lastState=None), container()), None),
    ],
)  # fmt: skip
def test_what_pods_say_about_their_end(found: Json, why: Why | None) -> None:
    assert pod_reason([found], "reindex") == why
    assert pod_reason([*BARE, found, *BARE], "reindex") == why


def test_a_pod_that_was_taken_away_speaks_for_a_pod_before_it() -> None:
    first = pod(container(state=exited(1)), name="p-1")
    evicted = pod(phase="Failed", reason="Evicted", message="m", name="p-2")
    found = pod_reason([first, evicted], "reindex")
    assert found is not None
    assert found.text == "pod p-2: Evicted: m"
    found = pod_reason([first, pod(container(state=exited(2)), name="p-3")], "reindex")
    assert found is not None
    assert found.text == "pod p-1: container reindex ended with exit code 1 (Error)"


LOOK = "look at the lines of the pod's log above, then clear this task: it makes a new Job"


@pytest.mark.parametrize(
    ("outcome", "pods", "tail", "left", "why"),
    [
        (JobOutcome("failed"), [], [], [], Why("job_failed", "it failed", LOOK)),
        (JobOutcome("failed", "R", "m"), [], ["x", "  "], [], Why("job_failed", "R: m; its last line: x", LOOK)),
        (JobOutcome("failed", "R"), [], ["y" * 400], [],
         Why("job_failed", "R; its last line: " + "y" * 300, LOOK)),
        (JobOutcome("failed", "R", "m"), [pod(container(state=exited(2)))], ["x"], ["proxy"],
         Why("job_failed", "pod p: container reindex ended with exit code 2 (Error); its last line: x (R: m)", AGAIN)),
        (JobOutcome("failed", "DeadlineExceeded", "too long"), [pod(container(state=exited(2)))], ["x"], ["proxy"],
         Why("sidecar_left",
             "container reindex has ended, but proxy still runs and keeps the pod alive (DeadlineExceeded: too long)",
             SIDECAR_REMEDY)),
        (JobOutcome("failed", "DeadlineExceeded"), [], [], [], Why("job_failed", "DeadlineExceeded", LOOK)),
    ],
)  # fmt: skip
def test_why_a_job_failed_in_one_line(outcome: JobOutcome, pods: Any, tail: Any, left: Any, why: Why) -> None:
    assert failure(outcome, pods, "reindex", tail, left) == why


def test_what_a_person_does_about_a_sidecar() -> None:
    assert SIDECAR_REMEDY == (
        "let it end with the program (its own switch, for example a call to its quit address), make it a native sidecar"
        " (an initContainer with restartPolicy: Always), or keep it out of these pods (for Istio the label"
        " sidecar.istio.io/inject: 'false' in the CronJob's template); otherwise the next Job ends the same way"
    )


def test_a_warning_without_its_metadata_is_the_oldest() -> None:
    named = {"type": "Warning", "message": "named", "reason": "R", "metadata": {"creationTimestamp": "1"}}
    bare = {"type": "Warning", "message": "bare", "reason": "R", "metadata": None}
    assert warning_of([bare, named, {"type": "Normal", "message": "x"}, {}]) == "R: named"

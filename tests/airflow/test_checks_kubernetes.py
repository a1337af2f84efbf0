"""What preflight asks of Kubernetes and what it says of each answer: whole sentences, over an API of told answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from backfill.hooks.kubernetes import KubeCallError
from backfill.operators.checks import kubernetes as module
from backfill.operators.checks.kubernetes import kubernetes
from include.scorecard_backfill import names
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import merge
from include.scorecard_backfill.job import JobError

Json = dict[str, Any]
Said = tuple[list[str], list[str]]
Change = Callable[[Json], object]

BASE: Json = {
    "name": "demo",
    "clickhouse": {"conn_id": "ch_demo"},
    "kubernetes": {
        "context": "demo_dev",
        "namespace": "cron",
        "cronjob": "reindex-daily",
        "poll_seconds": 10,
        "ttl_seconds_after_finished": 7_200,
        "deadline_seconds": 5_000,
        "extra_env": {"LOG_LEVEL": "debug"},
        "container": "reindex",
    },
}

CRONJOB: Json = {
    "metadata": {"name": "reindex-daily"},
    "spec": {
        "jobTemplate": {
            "spec": {
                "template": {
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "reindex", "image": "reindex:1"}]}
                }
            }
        }
    },
}

ALL = [
    "get cronjobs", "list jobs", "get jobs", "create jobs", "patch jobs", "delete jobs", "list pods", "get pods/log",
]  # fmt: skip


@dataclass
class Api:
    """Answers as the client does; ``change``: what admission makes of the Job that is sent."""

    denied: Sequence[str] = ()
    change: Change = bool
    refusal: Exception | None = None
    cron: Json = field(default_factory=lambda: copy.deepcopy(CRONJOB))
    config: Any = None
    reviews: list[tuple[str, ...]] = field(default_factory=list)
    sent: list[Json] = field(default_factory=list)

    async def allowed(self, verb: str, group: str, resource: str, subresource: str = "") -> bool:
        """Answer a review of rights."""
        self.reviews.append((verb, group, resource, subresource))
        return f"{verb} {resource}{'/' * bool(subresource)}{subresource}" not in self.denied

    async def cronjob(self) -> Json:
        """Return the CronJob."""
        return self.cron

    async def create_job(self, manifest: Json, *, dry_run: bool) -> Json:
        """Take the Job as admission leaves it, or refuse it."""
        assert dry_run
        self.sent.append(manifest)
        if self.refusal:
            raise self.refusal
        answer = copy.deepcopy(manifest)
        self.change(answer)
        return answer


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    """An API server that takes everything."""
    made = Api()

    def for_worker(config: ClusterConfig) -> Api:
        made.config = config.kubernetes
        return made

    monkeypatch.setattr(module, "KubernetesJobs", SimpleNamespace(for_worker=for_worker))
    return made


def look(**fields: Any) -> Said:
    """The problems and the notes of a cluster whose file has these fields of its section `kubernetes`."""
    problems: list[str] = []
    notes: list[str] = []
    kubernetes(ClusterConfig.model_validate(merge(BASE, {"kubernetes": fields})), problems, notes)
    return problems, notes


def pod(job: Json) -> Json:
    """The pod's part of a Job."""
    found: Json = job["spec"]["template"]["spec"]
    return found


def test_a_job_of_a_day_is_tried_that_is_like_those_of_the_windows(api: Api) -> None:
    assert look() == ([], [])
    (job,) = api.sent
    assert job["metadata"]["name"] == f"reindex-preflight-20260101-{'0' * 16}-a1"
    assert (job["spec"]["ttlSecondsAfterFinished"], job["spec"]["activeDeadlineSeconds"]) == (7_200, 5_000)
    assert {one["name"]: one["value"] for one in pod(job)["containers"][0]["env"]} == {
        "REINDEX_START_TIME": "2026-01-01T00:00:00Z",
        "REINDEX_END_TIME": "2026-01-02T00:00:00Z",
        "RUN_ONLY_FOR_CUSTOMER_IDS": "preflight",
        "REINDEX_SCORECARDS_CLEAN_UP_BEFORE_WRITE": "false",
        "LOG_LEVEL": "debug",
    }
    assert job["metadata"]["labels"] == {
        names.LABEL_WINDOW: "0" * 16,
        names.LABEL_ATTEMPT: "1",
        names.LABEL_CLUSTER: "demo",
        names.LABEL_CUSTOMER: "preflight",
        names.LABEL_RUN: "preflight",
    }


def test_every_right_of_the_stages_is_asked_for(api: Api) -> None:
    look()
    assert api.reviews == [
        ("get", "batch", "cronjobs", ""),
        ("list", "batch", "jobs", ""),
        ("get", "batch", "jobs", ""),
        ("create", "batch", "jobs", ""),
        ("patch", "batch", "jobs", ""),
        ("delete", "batch", "jobs", ""),
        ("list", "", "pods", ""),
        ("get", "", "pods", "log"),
        ("list", "", "events", ""),
    ]


@pytest.mark.parametrize("denied", [[one] for one in ALL] + [ALL])
def test_a_right_that_is_denied_is_named_and_nothing_else_is_tried(api: Api, denied: list[str]) -> None:
    api.denied = denied
    assert look() == (
        [
            f"kubernetes: this account may not {one} in namespace cron (context demo_dev): ask for the role"
            for one in denied
        ],
        [],
    )
    assert api.sent == []


def test_events_that_may_not_be_listed_are_noted_alone(api: Api) -> None:
    api.denied = ["list events"]
    assert look() == ([], ["kubernetes: events may not be listed: why a pod is not made will not be told"])
    assert len(api.sent) == 1


def test_what_of_the_cronjob_is_not_taken_over_is_noted(api: Api) -> None:
    api.cron["spec"]["suspend"] = True
    spec = api.cron["spec"]["jobTemplate"]["spec"]
    spec["parallelism"] = 3
    spec["template"]["spec"]["containers"].insert(0, {"name": "proxy", "image": "proxy:1"})
    problems, notes = look()
    assert problems == []
    assert notes[0] == "CronJob reindex-daily is suspended; Jobs made from its template run all the same"
    assert notes[1].startswith("CronJob reindex-daily: spec.jobTemplate.spec.parallelism is 3: ")
    assert notes[2:] == [
        "CronJob reindex-daily: of its containers proxy, reindex the program is taken to be in reindex"
        " (kubernetes.container says otherwise)"
    ]


def test_a_template_that_cannot_serve_is_refused_before_it_is_tried(api: Api) -> None:
    with pytest.raises(JobError, match="there is no container 'other'"):
        look(container="other")
    assert api.sent == []


def refused(status: int | None, detail: str) -> KubeCallError:
    """The API's answer to a creation."""
    return KubeCallError(f"cannot create Job: {detail}", status, "Forbidden", detail)


def test_a_quota_without_room_is_noted(api: Api) -> None:
    api.refusal = refused(403, "exceeded quota: jobs, used 10")
    assert look() == (
        [],
        ["kubernetes: the namespace's quota has no room for a Job now: exceeded quota: jobs, used 10; Jobs will wait"],
    )


@pytest.mark.parametrize("status", [None, 503])
def test_an_api_server_that_does_not_answer_is_told_as_it_is(api: Api, status: int | None) -> None:
    api.refusal = refused(status, "no")
    with pytest.raises(KubeCallError, match="cannot create Job: no"):
        look()


@pytest.mark.parametrize("status", [403, 422])
def test_a_job_that_is_not_taken_is_refused_with_the_servers_words(api: Api, status: int) -> None:
    api.refusal = refused(status, "image must be signed")
    with pytest.raises(JobError) as found:
        look()
    assert str(found.value) == (
        "the API server does not take the Job of a window (dry run): cannot create Job: image must be signed"
    )


def other_window(job: Json) -> None:
    """Send the Job to everybody."""
    env = pod(job)["containers"][0]["env"]
    next(one for one in env if one["name"] == "RUN_ONLY_FOR_CUSTOMER_IDS")["value"] = ""


def put_beside(job: Json) -> None:
    """Put a sidecar into the pod."""
    pod(job)["containers"].append({"name": "mesh", "image": "mesh:1"})


def spec_of(**fields: Any) -> Change:
    """Change fields of the Job's spec."""
    return lambda job: job["spec"].update(fields)


WEBHOOK = "kubernetes: an admission webhook"


@pytest.mark.parametrize(
    ("change", "problems", "notes"),
    [
        (
            other_window,
            [f"{WEBHOOK} changes the Job: container reindex: RUN_ONLY_FOR_CUSTOMER_IDS is [''], not 'preflight'"],
            [],
        ),
        (
            spec_of(parallelism=2),
            [
                f"{WEBHOOK} sets spec.parallelism to 2: more than one pod could write the window; exempt these Jobs"
                " from it"
            ],
            [],
        ),
        (spec_of(activeDeadlineSeconds=60), [], [f"{WEBHOOK} ends a Job after 60 s (ours: 5000 s)"]),
        (
            put_beside,
            [],
            [
                "kubernetes: admission adds mesh to the pods; one that does not end by itself keeps the Job alive after"
                " reindex until its deadline"
            ],
        ),
        (spec_of(suspend=True), [], ["kubernetes: admission suspends the Job: it waits for its turn in a queue"]),
        (spec_of(suspend=False), [], []),
    ],
)
def test_what_admission_makes_of_the_job_is_told(
    api: Api, change: Change, problems: list[str], notes: list[str]
) -> None:
    api.change = change
    assert look() == (problems, notes)


@pytest.mark.parametrize(("seconds", "is_problem"), [(19, True), (20, False)])
def test_a_job_that_is_removed_before_a_look_is_a_problem(api: Api, seconds: int, is_problem: bool) -> None:
    api.change = spec_of(ttlSecondsAfterFinished=seconds)
    text = f"{WEBHOOK} removes a Job {seconds} s after its end, before it is looked at; exempt these Jobs from it"
    assert look()[0] == [text] * is_problem


def test_a_template_that_is_suspended_itself_waits_by_its_own_will(api: Api) -> None:
    template = api.cron["spec"]["jobTemplate"]
    template["metadata"] = {"labels": {"kueue.x-k8s.io/queue-name": "night"}}
    template["spec"]["suspend"] = True
    assert [note for note in look()[1] if "admission" in note] == []

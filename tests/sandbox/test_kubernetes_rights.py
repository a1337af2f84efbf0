"""The documented Role is enough for the whole stage, and each verb of it is needed; what admission says is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from airflow.sdk.exceptions import AirflowException
from kubernetes import client as sync_client
from kubernetes import config as sync_config
from kubernetes.client.rest import ApiException

from backfill import settings
from backfill.operators.checks.kubernetes import EVENTS, RIGHTS
from backfill.operators.checks.kubernetes import kubernetes as preflight
from standins.controlplane.access import grants
from standins.kubernetes.client import NAMESPACE, PROJECT, is_real
from standins.kubernetes.rbac import USER
from tests.sandbox.test_faults_kubernetes import NAME, Json, Scene, event_of, scene
from tests.standins.kubernetes_fixtures import Kube, kube, server, unique, wait_for

__all__ = ["kube", "scene", "server"]

Right = tuple[str, str, str, str]
ROLE = PROJECT / "deploy" / "kubernetes" / "role.yaml"


def written(path: Path = ROLE) -> tuple[Json, Json]:
    """Role and RoleBinding as an administrator is given them."""
    role, binding = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return role, binding


def documented(path: Path = ROLE) -> set[Right]:
    """The rights of the Role that an administrator is given."""
    role, _ = written(path)
    return {
        (verb, group, *(f"{resource}/".split("/")[:2]))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


PROBE = f"scorecard-backfill/window={'0' * 16}"
"""The Job that preflight has judged."""


def without(*wanted: Right) -> list[Json]:
    """Deny rules that leave just these rights of a service account."""
    kept = {(group, f"{resource}/{sub}" if sub else resource, verb) for verb, group, resource, sub in wanted}
    return [
        {"verbs": [verb], "groups": [kind.group], "resources": [resource]}
        for kind, resource, verb in grants()
        if (kind.group, resource, verb) not in kept
    ]


def look(scene: Scene) -> list[str]:
    """What preflight finds missing."""
    problems: list[str] = []
    preflight(settings.cluster_config(NAME), problems, [])
    return problems


def refused(scene: Scene, since: int) -> set[tuple[str, str]]:
    """Method and path of the requests that were refused with 403 since a request, reviews of rights aside."""
    rows = scene.kube.sandbox.requests(since_id=since)
    return {(row["method"], row["path"].split(f"/{NAMESPACE}/")[-1]) for row in rows if row["status"] == 403}


def whole_stage(scene: Scene) -> None:
    """Make a Job, have it fail, read its log; adopt another one's, and end it as a person's clear does."""
    scene.kube.sandbox.set_faults({"kind": "fail_container", "match": scene.match, "times": 1, "log": "boom"})
    event_of(scene.start())
    scene.customer = unique("globex")
    scene.kube.sandbox.set_faults({"kind": "hang_container", "match": scene.match})
    scene.start()
    scene.try_number += 1
    scene.start()
    scene.kill()


def test_what_is_documented_is_what_preflight_asks_for() -> None:
    assert documented() - {EVENTS} == set(RIGHTS)


def test_the_documented_role_is_enough(scene: Scene) -> None:
    scene.kube.sandbox.deny(*without(*documented()))
    since = scene.kube.sandbox.last_request_id()
    assert look(scene) == []
    record = scene.go()
    assert record["status"] == "reindexed"
    whole_stage(scene)
    assert len(scene.ended()) == 1
    assert refused(scene, since) <= {("GET", "events")}


@pytest.mark.parametrize("right", sorted(RIGHTS), ids=lambda right: f"{right[0]}-{right[2]}{right[3]}")
def test_one_verb_less_is_not_enough(scene: Scene, right: Right) -> None:
    scene.kube.sandbox.deny(*without(*(set(RIGHTS) - {right} | {EVENTS})))
    verb, _, resource, sub = right
    [problem] = look(scene)
    assert f"may not {verb} {resource}{'/' + sub if sub else ''} in namespace {NAMESPACE}" in problem
    since = scene.kube.sandbox.last_request_id()
    # How the stage ends without it is shown elsewhere; here it counts that it was asked for and refused.
    with contextlib.suppress(AirflowException, AssertionError, RuntimeError):
        whole_stage(scene)
    assert refused(scene, since), f"nothing in the stage needs the right to {verb} {resource} {sub}"


def test_without_the_right_to_list_events_the_stage_works_and_says_what_will_be_missing(scene: Scene) -> None:
    scene.kube.sandbox.deny(*without(*RIGHTS))
    problems: list[str] = []
    notes: list[str] = []
    preflight(settings.cluster_config(NAME), problems, notes)
    assert problems == []
    assert [note for note in notes if "events may not be listed" in note]
    assert scene.go()["status"] == "reindexed"


# Roles as they are written, and admission policies: only a real API server has them.


def administrator(kube: Kube) -> sync_client.ApiClient:
    """A client with all rights. Skips the test on the stand-in."""
    if not is_real():
        pytest.skip("the stand-in reads neither Roles nor policies; SANDBOX_KUBERNETES=real has them")
    return sync_config.new_client_from_config(str(kube.sandbox.folder / "data" / "administrator.yaml"))


def less(role: Json, right: Right | None) -> Json:
    """The Role without one verb on one resource; nothing else in it changes, names of objects included."""
    rules: list[Json] = []
    for rule in role["rules"]:
        for resource in rule["resources"]:
            gone = {right[0]} if right and "/".join(filter(None, right[2:])) == resource else set()
            rules.append(
                rule | {"resources": [resource], "verbs": [verb for verb in rule["verbs"] if verb not in gone]}
            )
    return role | {"rules": [rule for rule in rules if rule["verbs"]]}


@contextlib.contextmanager
def in_force(kube: Kube, right: Right | None = None, path: Path = ROLE) -> Iterator[None]:
    """Give the user the documented Role, without one right of it if one is named, and nothing else."""
    rbac = sync_client.RbacAuthorizationV1Api(administrator(kube))
    role, binding = written(path)
    namespace = role["metadata"]["namespace"]
    _, _, account_namespace, account = USER.split(":")
    subject = {"kind": "ServiceAccount", "namespace": account_namespace, "name": account}
    rbac.create_namespaced_role(namespace, less(role, right))
    rbac.create_namespaced_role_binding(namespace, binding | {"subjects": [subject]})
    try:
        kube.sandbox.deny({})
        yield
    finally:
        rbac.delete_namespaced_role_binding(binding["metadata"]["name"], namespace)
        rbac.delete_namespaced_role(role["metadata"]["name"], namespace)


def test_preflight_is_content_with_the_role_as_it_is_written(scene: Scene) -> None:
    """A Role may name the one CronJob; whoever asks for its rights without the name is told no."""
    with in_force(scene.kube):
        wait_for(lambda: not look(scene), "preflight content with the Role")
        assert scene.go()["status"] == "reindexed"


@pytest.mark.parametrize("right", sorted(RIGHTS), ids=lambda right: f"{right[0]}-{right[2]}{right[3]}")
def test_the_role_as_it_is_written_without_one_verb_is_not_enough(scene: Scene, right: Right) -> None:
    verb, _, resource, sub = right
    with in_force(scene.kube, right):
        wait_for(lambda: len(look(scene)) == 1, "preflight misses one right only")
        [problem] = look(scene)
        assert f"may not {verb} {resource}{'/' + sub if sub else ''} in namespace {NAMESPACE}" in problem
        since = scene.kube.sandbox.last_request_id()
        with contextlib.suppress(AirflowException, AssertionError, RuntimeError):
            whole_stage(scene)
        assert refused(scene, since), f"nothing in the stage needs the right to {verb} {resource} {sub}"


@pytest.fixture
def policy(kube: Kube) -> Iterator[Callable[[str, str], None]]:
    """Put a ValidatingAdmissionPolicy on new Jobs in force, as the cluster's administrator does."""
    admission = sync_client.AdmissionregistrationV1Api(administrator(kube))
    names: list[str] = []

    def make(expression: str, message: str) -> None:
        name = unique("policy")
        rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
        spec: Json = {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": expression, "message": message}],
        }
        admission.create_validating_admission_policy({"metadata": {"name": name}, "spec": spec})
        binding = {"policyName": name, "validationActions": ["Deny"]}
        admission.create_validating_admission_policy_binding({"metadata": {"name": name}, "spec": binding})
        names.append(name)

        def in_force() -> bool:
            manifest = kube.manifest(unique("probe"))
            try:
                kube.batch.create_namespaced_job(NAMESPACE, manifest, dry_run="All")
            except ApiException as error:
                return message in str(error.body)
            return False

        wait_for(in_force, f"policy {name} in force")

    yield make
    for name in names:
        admission.delete_validating_admission_policy_binding(name)
        admission.delete_validating_admission_policy(name)


def test_a_policy_that_refuses_our_jobs_is_found_by_preflight(scene: Scene, policy: Callable[..., None]) -> None:
    policy("has(object.metadata.labels) && 'team' in object.metadata.labels", "each Job needs the label team")
    with pytest.raises(Exception, match="each Job needs the label team"):
        look(scene)
    assert scene.kube.batch.list_namespaced_job(NAMESPACE, label_selector=PROBE).items == []


def test_a_policy_that_refuses_our_jobs_fails_the_stage_with_its_words(
    scene: Scene, policy: Callable[..., None]
) -> None:
    policy("has(object.metadata.labels) && 'team' in object.metadata.labels", "each Job needs the label team")
    with pytest.raises(AirflowException, match="each Job needs the label team"):
        scene.start()
    assert {row["status"] for row in scene.posted()} == {422}

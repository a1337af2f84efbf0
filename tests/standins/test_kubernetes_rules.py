"""Selectors, fault rules, the record and the validation of the Kubernetes stand-in, without a server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import psutil
import pytest

from standins.faults import FaultRuleError
from standins.kubernetes.calls import merge_patch
from standins.kubernetes.errors import StatusError
from standins.kubernetes.faults import FaultBook, Subject
from standins.kubernetes.guard import VARIABLE, Guard, end_marked
from standins.kubernetes.recorder import HIDDEN, Choice, Recorder
from standins.kubernetes.resources import PODS, parse_path, verb_of
from standins.kubernetes.selectors import fields_match, labels_match
from standins.kubernetes.validation import check_rules

ACME = Subject("job-acme", "cresta-cron", {"customer": "acme"})
SANDBOX = Subject("job-acme-sandbox", "cresta-cron", {"customer": "acme-sandbox"})


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("a=1", True),
        ("a==1,b=", True),
        ("a!=1", False),
        ("c!=1", True),
        ("a,!c", True),
        ("x.io/y", False),
    ],
)
def test_label_selectors(selector: str, matches: bool) -> None:
    assert labels_match(selector)({"a": "1", "b": ""}) is matches


@pytest.mark.parametrize("selector", ["a in (1,2)", "a=1,", "=1", "a b", "a=b c"])
def test_bad_label_selectors_are_refused(selector: str) -> None:
    with pytest.raises(StatusError) as error:
        labels_match(selector)
    assert error.value.code == 400


def test_field_selectors() -> None:
    event = {"metadata": {"name": "e"}, "involvedObject": {"uid": "u"}}
    assert fields_match("metadata.name=e,involvedObject.uid==u")(event)
    assert not fields_match("involvedObject.name=e")(event)
    for selector in ("status.nothing=1", "metadata.name!=e"):
        with pytest.raises(StatusError, match="field label not supported"):
            fields_match(selector)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/apis/batch/v1/namespaces/n/jobs/j", ("jobs", "n", "j", None)),
        ("/apis/batch/v1/jobs", None),
        ("/api/v1/namespaces/n/pods/p/log", ("pods", "n", "p", "log")),
        ("/api/v1/namespaces/n", ("namespaces", None, "n", None)),
        ("/apis/apps/v1/namespaces/n/deployments", None),
        ("/api/v1/namespaces/n/pods/p/exec", None),
    ],
)
def test_paths(path: str, expected: tuple[Any, ...] | None) -> None:
    target = parse_path(path)
    found = target and (target.resource.plural, target.namespace, target.name, target.subresource)
    assert found == expected


def test_a_get_with_watch_is_another_right() -> None:
    target = parse_path("/apis/batch/v1/namespaces/n/jobs")
    assert target is not None
    assert (verb_of("GET", target, True), verb_of("GET", target, False)) == ("watch", "list")


def test_merge_patch() -> None:
    assert merge_patch({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": None}, "d": [2]}) == {"a": {"c": 2}, "d": [2]}


def test_a_pattern_must_match_the_whole_value() -> None:
    book = FaultBook()
    book.add({"kind": "no_pod", "match": {"labels": {"customer": "acme"}}})
    assert book.take_object("no_pod", SANDBOX, "u2") is None
    assert book.take_object("no_pod", ACME, "u1") is not None


def test_a_rule_keeps_what_it_caught_and_counts_it_once() -> None:
    now = [0.0]
    book = FaultBook(lambda: now[0])
    book.add({"kind": "no_pod", "times": 1, "for_seconds": 10, "seconds": 5})
    assert book.holds("no_pod", ACME, "u1")
    now[0] = 4.0
    assert book.holds("no_pod", ACME, "u1")
    assert not book.strikes("no_pod", ACME, "u1")
    assert book.take_object("no_pod", SANDBOX, "u2") is None
    now[0] = 5.0
    assert not book.holds("no_pod", ACME, "u1")
    assert book.strikes("no_pod", ACME, "u1")
    now[0] = 10.0
    assert book.take_object("no_pod", ACME, "u1") is None
    assert book.listing()[0]["hits"] == 1


def test_mutations_come_before_one_other_rule() -> None:
    book = FaultBook()
    for rule in (
        {"kind": "error"},
        {"kind": "stored_then_500", "match": {"name": "job-.*"}},
        {"kind": "mutate", "patch": {"spec": {"suspend": True}}},
    ):
        book.add(rule)
    taken = book.take_requests(ACME, "POST", "/apis/batch/v1/namespaces/n/jobs")
    assert [rule.kind for rule in taken] == ["mutate", "error"]
    assert [row["hits"] for row in book.listing()] == [1, 0, 1]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"kind": "error", "status": "500"}, "'status' cannot be '500'"),
        ({"kind": "error", "status": 200}, "'status' cannot be 200"),
        ({"kind": "fail_container", "exit_code": 256}, "'exit_code' cannot be 256"),
        ({"kind": "error", "match": {"label": {}}}, "looks at no 'label'"),
        ({"kind": "pod_gone", "match": {"method": "GET"}}, "looks at no 'method'"),
        ({"kind": "mutate"}, "'patch' is missing"),
        ({"kind": "error", "patch": {"a": 1}}, "'patch' is unknown"),
    ],
)
def test_bad_rules_are_refused_with_their_field(rule: dict[str, Any], text: str) -> None:
    with pytest.raises(FaultRuleError, match=text):
        FaultBook().add({"kind": "error"}, rule)


@pytest.mark.parametrize(
    ("value", "good"), [("a" * 63, True), ("a" * 64, False), ("a:b", False), ("", True), ("-a", False)]
)
def test_label_values(value: str, good: bool) -> None:
    pod = {"metadata": {"name": "p", "labels": {"k": value}}}
    if good:
        check_rules(PODS, pod)
        return
    with pytest.raises(StatusError) as error:
        check_rules(PODS, pod)
    assert [cause["field"] for cause in error.value.details["causes"]] == ["metadata.labels"]


def test_the_record_is_read_again_and_hides_secrets(tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    first = Recorder(file)
    secret = {"metadata": {"name": "s"}, "data": {"key": "c2VjcmV0"}, "stringData": {"other": "secret"}}
    first.add({"method": "POST", "path": "/api/v1/namespaces/n/secrets", "status": 201, "body": secret})
    env = [{"name": "API_TOKEN", "value": "secret"}, {"name": "MODE", "value": "process"}]
    first.add({"method": "POST", "path": "/apis/batch/v1/namespaces/n/jobs", "status": 201, "body": {"env": env}})
    first.close()
    with file.open("a", encoding="utf-8") as out:
        out.write('{"id": 3, "cut off by a ki')
    second = Recorder(file)
    assert [row["id"] for row in second.select(Choice(path_contains="/jobs"))] == [2]
    bodies = [row["body"] for row in second.select(Choice(mutating=True))]
    assert bodies[0]["data"] == {"key": HIDDEN}
    assert bodies[0]["stringData"] == {"other": HIDDEN}
    assert [item["value"] for item in bodies[1]["env"]] == [HIDDEN, "process"]
    second.add({"method": "GET", "path": "/version", "status": 200})
    second.close()
    third = Recorder(file)
    assert [row["id"] for row in third.select(Choice())] == [1, 2, 3]
    assert third.select(Choice(mutating=True, since_id=2)) == []
    third.close()
    assert "secret" not in file.read_text(encoding="utf-8").replace("/secrets", "")


def test_only_what_a_server_of_this_folder_has_started_is_ended(tmp_path: Path) -> None:
    first, other = Guard(tmp_path / "first"), Guard(tmp_path / "first-and-more")
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid, flush=True)"
    argv = [sys.executable, "-c", f"{script}; sys.stdin.read()"]
    with (
        subprocess.Popen(argv, env={**os.environ, **first.env}, stdin=PIPE, stdout=PIPE, text=True) as marked,
        subprocess.Popen(["sleep", "60"], env={**os.environ, **other.env}) as spared,
    ):
        try:
            assert marked.stdout is not None
            child = psutil.Process(int(marked.stdout.readline()))
            # The guard of a later server's life has another mark; its start ends what the earlier life left.
            assert end_marked(Guard(tmp_path / "first").env[VARIABLE]) == 0
            later = Guard(tmp_path / "first")
            assert later.start() == 2
            later.stop()
            assert marked.wait(10) == -signal.SIGKILL
            psutil.wait_procs([child], timeout=10)
            assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
            assert spared.poll() is None
        finally:
            marked.kill()
            spared.kill()

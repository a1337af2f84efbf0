"""Preflight's look at Temporal: every question of the waits, asked before anything is deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from backfill.operators import preflight
from include.scorecard_backfill.config import ClusterConfig
from standins.ports import free_port
from tests.sandbox.faults_temporal_fixtures import Server, cluster_file, connect_to, impatient, server

__all__ = ["server"]


@pytest.fixture
def cluster(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClusterConfig:
    """The cluster's file with its connection to the proxy."""
    server.set_rules()
    impatient(monkeypatch)
    return cluster_file(tmp_path, monkeypatch, server.proxy)


def asked(config: ClusterConfig) -> tuple[list[str], list[str]]:
    """Problems and notes of preflight's look at Temporal."""
    problems: list[str] = []
    notes: list[str] = []
    preflight.temporal(config, problems, notes)
    return problems, notes


def test_preflight_sends_the_queries_that_the_waits_will_send(server: Server, cluster: ClusterConfig) -> None:
    since = len(server.calls())
    problems, _ = asked(cluster)
    assert problems == []
    queries = [call["subject"] for call in server.calls("ListWorkflowExecutions", since)]
    assert len(queries) == 2
    assert "ExecutionStatus = 'Running'" in queries[0]
    assert "STARTS_WITH" in queries[1]


def test_preflight_asks_everything_that_the_waits_will_ask(server: Server, cluster: ClusterConfig) -> None:
    since = len(server.calls())
    assert asked(cluster) == ([], [])
    methods = [call["method"] for call in server.calls(since=since)]
    for method in ("ListWorkflow", "CountWorkflow", "DescribeWorkflow", "GetWorkflow", "DescribeNamespace"):
        assert any(called.startswith(method) for called in methods), method
    assert not [called for called in methods if called.startswith(("Start", "Signal", "Terminate", "Reset"))]


def test_a_store_without_prefixes_is_only_a_note(server: Server, cluster: ClusterConfig) -> None:
    server.set_rules({"kind": "invalid_query"})
    problems, notes = asked(cluster)
    assert problems == []
    assert any("refuses STARTS_WITH" in note for note in notes)


def test_preflight_names_a_query_that_the_store_does_not_take(server: Server, cluster: ClusterConfig) -> None:
    server.set_rules({"kind": "invalid_query", "match": "StartTime"})
    problems, _ = asked(cluster)
    assert len(problems) == 1
    assert "INVALID_ARGUMENT" in problems[0]
    assert 'WorkflowType = "ReindexConversations" AND StartTime >=' in problems[0]


def test_a_store_that_does_not_count_is_only_a_note(server: Server, cluster: ClusterConfig) -> None:
    server.set_rules({"kind": "code", "code": "UNIMPLEMENTED", "match": {"method": "CountWorkflowExecutions"}})
    problems, notes = asked(cluster)
    assert problems == []
    assert [note for note in notes if "cannot be counted (UNIMPLEMENTED)" in note]


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("ListWorkflowExecutions", "the list of workflows is refused for"),
        ("DescribeWorkflowExecution", "workflows cannot be described"),
        ("GetWorkflowExecutionHistory", "histories cannot be read"),
    ],
)
def test_a_right_that_a_wait_will_need_is_missed_now(
    server: Server, cluster: ClusterConfig, method: str, text: str
) -> None:
    server.set_rules({"kind": "permission_denied", "match": {"method": method}})
    problems, _ = asked(cluster)
    assert len(problems) == 1
    assert text in problems[0]
    assert f"connection {cluster.temporal.conn_id}" in problems[0]


def test_a_namespace_that_does_not_exist_is_a_problem_with_its_field(cluster: ClusterConfig) -> None:
    wrong = cluster.temporal.model_copy(update={"namespace": "ingestoin"})
    problems, _ = asked(cluster.model_copy(update={"temporal": wrong}))
    assert len(problems) == 1
    assert "temporal.namespace in the cluster's file ('ingestoin')" in problems[0]


def test_an_extra_that_nobody_reads_is_noted(
    cluster: ClusterConfig, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_to(monkeypatch, server.proxy, clientcert="x", color="red")
    problems, notes = asked(cluster)
    assert problems == []
    assert any("extra.clientcert is read by nobody; did you mean client_cert?" in note for note in notes)
    assert any(note.endswith("extra.color is read by nobody") for note in notes)


def test_a_key_that_may_not_see_namespaces_is_only_a_note(server: Server, cluster: ClusterConfig) -> None:
    server.set_rules({"kind": "permission_denied", "match": {"method": "DescribeNamespace"}})
    problems, notes = asked(cluster)
    assert problems == []
    assert len(notes) == 1
    assert "retention of namespace ingestion cannot be read" in notes[0]


def test_a_retention_shorter_than_the_wait_is_noted(cluster: ClusterConfig) -> None:
    assert asked(cluster)[1] == []
    longer = cluster.temporal.model_copy(update={"deadline_seconds": 10**9})
    _, notes = asked(cluster.model_copy(update={"temporal": longer}))
    assert "keeps closed workflows for" in notes[0]


def test_preflight_names_temporal_that_is_not_there(cluster: ClusterConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    connect_to(monkeypatch, address)
    problems: list[str] = []
    preflight.guarded(preflight.temporal, cluster, problems, [])
    assert len(problems) == 1
    assert f"Temporal at {address} cannot be reached without TLS" in problems[0]


def test_preflight_without_a_connection_names_it_and_fails_for_good(
    cluster: ClusterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn_id = cluster.temporal.conn_id
    monkeypatch.delenv(f"AIRFLOW_CONN_{conn_id.upper()}")
    problems: list[str] = []
    preflight.guarded(preflight.temporal, cluster, problems, [])
    assert problems == [
        f"temporal: connection {conn_id!r} is not defined in Airflow; create it (see README, Connections)"
    ]

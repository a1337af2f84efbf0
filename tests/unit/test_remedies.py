"""The table of a check: remedies by the sentence, clocks, order."""

from __future__ import annotations

import doctest

import pytest

from include.scorecard_backfill.planning import schedule
from include.scorecard_backfill.tracking import words
from include.scorecard_backfill.verdicts import agreement, remedies
from include.scorecard_backfill.verdicts.remedies import Line, markdown, remedy_of, skew_line


@pytest.mark.parametrize(
    ("problem", "remedy"),
    [
        ("clickhouse: connection 'c' is not defined in Airflow; create it", "Create the connection"),
        ("connection c: this is a port of the native protocol; use the HTTP(S) port", "Set the connection's port"),
        ("Code: 516. DB::Exception: admin: Authentication failed", "Correct user and password"),
        ("ClickHouse knows no cluster 'x' (see system.clusters)", "Correct clickhouse.cluster"),
        ("the user of 'c' has no ALTER DELETE (SHOW GRANTS: )", "Grant the right"),
        ("3 tables are read-only on node-1 (Keeper session lost)", "Repair the replica"),
        ("connection 'k' names no cluster; set one of in_cluster", "Put kube_config"),
        ("Invalid kube-config file. Expected object with name x in /f/contexts list", "Correct kubernetes.context"),
        ("cannot read CronJob x: 404 NotFound: not found (connection 'k')", "Correct kubernetes.namespace"),
        ("this account may not create jobs in namespace n (context c)", "Bind the Role"),
        ("cannot list jobs: 403 Forbidden: no (connection 'k')", "Bind the Role"),
        ("cannot list jobs: 401 Unauthorized: no", "Renew the credentials"),
        ("the list is refused: NOT_FOUND: Namespace moon is not found.", "Correct temporal.namespace"),
        ("codec at http://h:1 cannot be reached (ConnectError)", "Correct codec_endpoint"),
        ("Temporal at h:7233 does not accept this connection", "Renew the API key"),
        ("port-forward to a/b:1 (connection 'k', context c): no pod is ready", "Correct port_forward"),
        ("connection t: extra.port_forward 'x' is not namespace/service:port", "Correct port_forward"),
        ("Secret a/b, key 'c' (connection 'k'): 404 Not Found", "Correct password_secret"),
        ("Secret a/b, key 'c' (connection 'k'): 403 Forbidden; grant *get*", "Correct password_secret"),
        ("port-forward to a/b:1 (connection 'k', context c): 403 Forbidden; it needs", "Correct port_forward"),
        ("Temporal at h:1 cannot be reached without TLS: x", "Correct host, port"),
        ("something new", "See the text"),
    ],
)
def test_each_problem_has_its_remedy(problem: str, remedy: str) -> None:
    assert remedy_of(problem).startswith(remedy)


@pytest.mark.parametrize(("ahead", "state", "words"), [(4.9, "works", "ahead of"), (-90, "broken", "90.0 s behind")])
def test_clocks(ahead: float, state: str, words: str) -> None:
    line = skew_line("c", "clickhouse", ahead, 5)
    assert line.state == state
    assert words in line.text


def test_what_is_broken_stands_first_and_cells_stay_cells() -> None:
    lines = [
        Line("a", "temporal", "works", "x"),
        Line("b", "kubernetes", "look", "y|z\nw"),
        Line("c", "clickhouse", "broken", "q", "r"),
    ]
    rows = markdown(lines).splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == ["| broken", "| look", "| works"]
    assert rows[1] == "| look | b | kubernetes | y/z w |  |"


@pytest.mark.parametrize("module", [remedies, agreement, schedule, words], ids=lambda module: module.__name__)
def test_examples_in_the_docstrings(module: object) -> None:
    failures, tried = doctest.testmod(module)  # type: ignore[arg-type]
    assert tried
    assert failures == 0

"""Rows in a Distributed table's spool, mutations that were killed and stay listed."""

from __future__ import annotations

import pytest

from standins.clickhouse.client import ClickHouseSandbox, SandboxError
from tests.standins.clickhouse_fixtures import CLUSTER, cluster, counts, fill, mutations, new_database, nodes, until

__all__ = ["cluster", "nodes"]

WAITING = f"""
    SELECT hostName(), table, sum(data_files), max(last_exception)
    FROM clusterAllReplicas('{CLUSTER}', system.distribution_queue)
    WHERE database = '{{database}}' GROUP BY hostName(), table
"""


def spool(nodes: ClickHouseSandbox, database: str, **fields: object) -> int:
    return nodes.nodes()[0].add_faults({"kind": "spool", "match": f"{database}.t_d$", **fields})[0]


def test_rows_wait_in_the_spool_until_the_rule_is_over(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    number = spool(nodes, database)
    fill(nodes.nodes()[0], database, 20)
    assert sum(counts(nodes, f"{database}.t").values()) == 0
    asked = WAITING.format(database=database)
    assert nodes.node("node-2-2").query(asked) == [["node-1-1", "t_d", "2", ""]]
    nodes.nodes()[0].clear_faults(number)
    until(lambda: sum(counts(nodes, f"{database}.t").values()) == 40, "the rows arrive")
    assert nodes.node("node-2-2").query(asked) == []


def test_rows_that_waited_arrive_after_a_delete(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.nodes()[0], database, 10)
    spool(nodes, database, times=1)
    fill(nodes.nodes()[0], database, 20)
    first = nodes.nodes()[0]
    first.query(f"ALTER TABLE {database}.t ON CLUSTER {CLUSTER} DELETE WHERE 1")
    until(lambda: sum(counts(nodes, f"{database}.t").values()) == 0, "what was there is deleted")
    first.clear_faults()
    until(lambda: sum(counts(nodes, f"{database}.t").values()) == 40, "the spooled rows are in the table")


@pytest.mark.parametrize("scope", ["", f" ON CLUSTER {CLUSTER}"])
def test_flush_sends_what_is_spooled(nodes: ClickHouseSandbox, scope: str) -> None:
    database = new_database(nodes)
    spool(nodes, database)
    fill(nodes.nodes()[0], database, 20)
    nodes.nodes()[0].query(f"SYSTEM FLUSH DISTRIBUTED{scope} {database}.t_d")
    until(lambda: sum(counts(nodes, f"{database}.t").values()) == 40, "the rows arrive")


def test_a_spool_that_cannot_be_sent_says_why(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    spool(nodes, database, reason="Connection refused")
    fill(nodes.nodes()[0], database, 20)
    [row] = nodes.nodes()[0].query(WAITING.format(database=database))
    assert row[-1] == "Connection refused"
    with pytest.raises(SandboxError, match=r"Code: 279.*Connection refused"):
        nodes.nodes()[0].query(f"SYSTEM FLUSH DISTRIBUTED {database}.t_d")


def test_the_spool_survives_its_node(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    spool(nodes, database)
    fill(nodes.nodes()[0], database, 20)
    nodes.restart("node-1-1", kill=True)
    assert sum(counts(nodes, f"{database}.t").values()) == 0
    nodes.nodes()[0].clear_faults()
    until(lambda: sum(counts(nodes, f"{database}.t").values()) == 40, "the rows arrive")


def test_a_killed_mutation_may_stay_listed(nodes: ClickHouseSandbox) -> None:
    database = new_database(nodes)
    fill(nodes.nodes()[0], database, 20)
    for node in nodes.nodes():
        node.add_faults({"kind": "mutation", "match": "DELETE"}, {"kind": "kill_lists", "match": "DELETE"})
    first = nodes.nodes()[0]
    first.query(f"ALTER TABLE {database}.t ON CLUSTER {CLUSTER} DELETE WHERE v > 0")
    until(lambda: all(mutations(nodes, database).values()), "taken on every host")
    first.query(f"KILL MUTATION ON CLUSTER {CLUSTER} WHERE database = '{database}'")
    until(
        lambda: all(
            [(row["is_killed"], row["is_done"]) for row in rows] == [("1", "0")]
            for rows in mutations(nodes, database).values()
        ),
        "listed as killed on every host",
    )
    assert sum(counts(nodes, f"{database}.t").values()) == 40

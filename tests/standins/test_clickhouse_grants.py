"""CHECK GRANT: what GRANT and REVOKE lines give, roles, levels and scopes included."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from standins.clickhouse import grants
from standins.clickhouse.client import ClickHouseSandbox
from standins.clickhouse.engine import Engine
from standins.clickhouse.errors import ClickHouseError
from standins.clickhouse.topology import NodeAddress, Topology
from tests.standins.clickhouse_fixtures import cluster, connected, nodes

__all__ = ["cluster", "nodes"]

USER = "admin"


@pytest.fixture(scope="module")
def privileges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grants.Privileges]:
    node = NodeAddress(name="n", shard=1, replica=1, host="127.0.0.1", port=1)
    topology = Topology(cluster="c", nodes=(node,))
    engine = Engine(tmp_path_factory.mktemp("engine"), topology)
    yield grants.Privileges(engine)
    engine.close()


@pytest.mark.parametrize(
    ("lines", "asked", "expected"),
    [
        ("GRANT ALL ON *.* TO admin WITH GRANT OPTION", "ALTER DELETE, SELECT ON a.b", True),
        ("GRANT ALL ON *.* TO admin", "CLUSTER ON *.*", True),
        ("GRANT SELECT ON *.* TO admin", "ALTER DELETE ON a.b", False),
        ("GRANT SELECT, ALTER DELETE ON *.* TO admin", "ALTER DELETE ON a.b", True),
        ("GRANT ALTER ON a.* TO admin", "ALTER DELETE ON a.b", True),
        ("GRANT ALTER TABLE ON a.* TO admin", "ALTER DELETE ON a.*", True),
        ("GRANT DELETE ON a.* TO admin", "ALTER DELETE ON a.b", True),
        ("GRANT ALTER UPDATE ON *.* TO admin", "ALTER DELETE ON a.b", False),
        ("GRANT ALTER DELETE ON other.* TO admin", "ALTER DELETE ON a.b", False),
        ("GRANT ALTER DELETE ON a.b TO admin", "ALTER DELETE ON a.*", False),
        ("GRANT ALTER DELETE ON a.b TO admin", "ALTER ON a.b", False),
        ("GRANT ALTER DELETE ON *.* TO somebody", "ALTER DELETE ON a.b", False),
        ("GRANT ALTER DELETE ON *.* TO admin\nREVOKE ALTER DELETE ON a.b FROM admin", "ALTER DELETE ON a.b", False),
        ("GRANT ALTER DELETE ON *.* TO admin\nREVOKE ALTER DELETE ON a.b FROM admin", "ALTER DELETE ON a.c", True),
        ("GRANT ALTER DELETE ON *.* TO admin\nREVOKE ALTER DELETE ON a.b FROM admin", "ALTER DELETE ON *.*", False),
        ("REVOKE ALTER DELETE ON *.* FROM admin\nGRANT ALTER DELETE ON *.* TO admin", "ALTER DELETE ON a.b", True),
        ("GRANT cleaner TO admin\nGRANT ALTER DELETE ON *.* TO cleaner", "ALTER DELETE ON a.b", True),
        (
            "GRANT a_role TO admin\nGRANT b_role TO a_role\nGRANT CLUSTER ON *.* TO b_role",
            "CLUSTER ON *.*",
            True,
        ),
        ("GRANT cleaner TO somebody\nGRANT ALTER DELETE ON *.* TO cleaner", "ALTER DELETE ON a.b", False),
    ],
)
def test_what_is_given(privileges: grants.Privileges, lines: str, asked: str, expected: bool) -> None:
    assert grants.may(USER, lines, f"CHECK GRANT {asked}", privileges) is expected


@pytest.mark.parametrize("asked", ["SELECT", "NO SUCH THING ON *.*", "SELECT ON"])
def test_what_cannot_be_asked(privileges: grants.Privileges, asked: str) -> None:
    with pytest.raises(ClickHouseError) as refused:
        grants.may(USER, "GRANT ALL ON *.* TO admin", f"CHECK GRANT {asked}", privileges)
    assert refused.value.code == 62


def test_each_node_answers_by_the_rights_that_were_set(nodes: ClickHouseSandbox) -> None:
    node = nodes.node("node-2-1")
    assert node.query("CHECK GRANT ALTER DELETE ON a.b") == [["1"]]
    node.add_faults({"kind": "grants", "text": "GRANT cleaner TO admin\nGRANT ALTER UPDATE ON *.* TO cleaner"})
    assert node.query("CHECK GRANT ALTER DELETE ON a.b") == [["0"]]
    assert node.query("CHECK GRANT ALTER UPDATE ON a.b") == [["1"]]
    assert node.query("SHOW GRANTS") == [["GRANT cleaner TO admin"]]
    assert nodes.node("node-1-1").query("CHECK GRANT ALTER DELETE ON a.b") == [["1"]]


def test_the_driver_reads_the_answer(nodes: ClickHouseSandbox) -> None:
    with connected(nodes) as client:
        assert client.query("CHECK GRANT SELECT ON *.*").first_row == [1]

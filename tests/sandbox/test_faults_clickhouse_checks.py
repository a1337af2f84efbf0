"""What is wrong before a DELETE is found before it; what is wrong after a reindex is found by counts."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from backfill.hooks import clickhouse_clients
from backfill.hooks.clickhouse import BackfillClickHouse
from backfill.operators.checks.clickhouse import clickhouse
from backfill.operators.plan import PlanOperator, read_inventory
from backfill.operators.preflight import guarded
from include.scorecard_backfill.params import effective
from include.scorecard_backfill.params.form import RunParams
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.records import Window
from include.scorecard_backfill.spoiled import OpenDebts
from sandbox.data.tables import create_statements
from standins.clickhouse.client import SandboxError
from tests.sandbox.faults_clickhouse_fixtures import NAME, Scene, failed, rows_before, scene, verified
from tests.standins.clickhouse_fixtures import cluster, nodes

__all__ = ["cluster", "nodes", "scene"]


def problems(scene: Scene) -> list[str]:
    """The problems that preflight finds in ClickHouse."""
    found: list[str] = []
    guarded(clickhouse, scene.config, found, [])
    return found


def preflight(scene: Scene) -> list[str]:
    """The same; nothing may have been changed by it."""
    found = problems(scene)
    assert scene.sent("") == []
    return found


def plan(scene: Scene, monkeypatch: pytest.MonkeyPatch, customer: str = "") -> list[Window]:
    """The January windows of the scene's customer, or of another. Raises AirflowFailException when they are refused."""
    monkeypatch.setenv(f"AIRFLOW_VAR_SCORECARD_BACKFILL_LEARNED__{NAME.upper()}", "{}")
    form = {
        "customers": [customer or scene.customer],
        "start_date": "2026-01-01",
        "end_date": "2026-02-01",
        "window": "month",
    }
    run = effective(
        RunParams.read({**form, "mode": "cleanup"}),
        run_type="manual",
        run_after=datetime(2026, 6, 1, tzinfo=UTC),
        cluster=scene.config,
        given=tuple(form),
    )
    operator = PlanOperator(task_id="plan", cluster=NAME, max_windows=10)
    return list(operator._plan(scene.context("plan"), scene.config, run, OpenDebts()).windows)


def test_healthy_cluster_passes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert preflight(scene) == []
    scene.fill("2026-01-05")
    (window,) = plan(scene, monkeypatch)
    scene.delete(window)
    assert scene.wait_mutations().status == "gone"


@contextmanager
def native_port() -> Iterator[int]:
    """A port that answers HTTP as ClickHouse's native port does; its text names 9000, whatever the port is."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(
                b"HTTP/1.0 400 Bad Request\r\n\r\nPort 9000 is for clickhouse-client program\r\n"
                b"You must use port 8123 for HTTP.\r\n"
            )

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_native_port_is_named_with_the_right_one(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    with native_port() as port:
        scene.connect(monkeypatch, port)
        (problem,) = preflight(scene)
    assert "native protocol; use the HTTP(S) port, for example 8443" in problem


def test_read_only_replica(scene: Scene) -> None:
    scene.fault("node-2-1", kind="overlay", table="replicas", set={"is_readonly": 1})
    (problem,) = preflight(scene)
    assert "read-only on node-2-1 (Keeper session lost)" in problem


@pytest.mark.parametrize("mode", ["error", "omit"])
def test_host_that_does_not_answer_is_named(scene: Scene, mode: str) -> None:
    scene.fault("node-2-2", kind="silent", mode=mode)
    (problem,) = preflight(scene)
    assert "node-2-2" in problem


def test_host_that_is_down_is_named(scene: Scene) -> None:
    scene.sandbox.stop("node-2-2")
    try:
        (problem,) = problems(scene)
    finally:
        scene.sandbox.start("node-2-2")
    assert "node-2-2" in problem


def test_unknown_cluster_and_missing_right(scene: Scene) -> None:
    scene.fault(kind="grants", text="GRANT SELECT ON *.* TO admin")
    lacks = preflight(scene)
    assert any("lacks the right ALTER DELETE ON" in problem for problem in lacks)
    assert any("lacks the right CLUSTER ON *.*" in problem for problem in lacks)
    scene.heal()
    scene.fault("node-1-1", kind="overlay", table="clusters", match=".", drop=True)
    (problem,) = preflight(scene)
    assert "knows no cluster 'conversations'" in problem


def test_distributed_table_is_refused_by_the_plan(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fill("2026-01-05")
    twin: dict[str, Any] = {
        "tables": ["scorecard_d"],
        "volume_table": "scorecard_d",
        "id_columns": {"scorecard_d": "scorecard_id"},
    }
    scene.configure(monkeypatch, **twin)
    with pytest.raises(AirflowFailException, match=r"scorecard_d has engine Distributed: name the local MergeTree"):
        plan(scene, monkeypatch)
    assert scene.sent("ALTER") == []


def test_table_that_a_host_lacks_is_refused_by_the_plan(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fill("2026-01-05")
    scene.fault("node-2-2", kind="overlay", table="tables", match=f"{scene.database}.*scorecard", drop=True)
    with pytest.raises(AirflowFailException, match=r"scorecard is missing on node-2-2"):
        plan(scene, monkeypatch)


def test_rows_without_a_profile_are_refused_by_the_plan(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fill("2026-01-05")
    scene.row_without_profile("2026-01-07")
    text = rf"holds rows of {scene.customer}/NULL, {scene.customer}/voice: exactly one"
    with pytest.raises(AirflowFailException, match=text):
        plan(scene, monkeypatch)
    assert scene.sent() == []


def test_column_of_time_cannot_be_null(scene: Scene) -> None:
    with pytest.raises(SandboxError, match=r"allow_nullable_key|Nullable"):
        scene.sandbox.nodes()[0].query(
            f"CREATE TABLE `{scene.database}`.n (t Nullable(DateTime)) ENGINE = MergeTree PARTITION BY toYYYYMM(t)"
            " ORDER BY tuple()"
        )


def test_nasty_customer_loses_exactly_its_own_rows(scene: Scene) -> None:
    other = scene.other(f"O'Neil\"; DROP TABLE `x` -- \\' %s {{y}} é {scene.customer}")
    other.fill("2026-01-05")
    other.fill("2026-01-05", 3, customer=other.customer.replace("O'", "O"), first=1000)
    assert rows_before(other.delete(other.window())) == {"scorecard": 40}
    assert other.wait_mutations().status == "gone"
    assert other.total() == 3


def test_last_millisecond_belongs_to_the_window(scene: Scene) -> None:
    node, table = scene.sandbox.nodes()[0], f"`{scene.database}`.scorecard_d"
    for number, moment in enumerate(("2025-12-31 23:59:59.999", "2026-01-31 23:59:59.999", "2026-02-01 00:00:00.000")):
        node.query(
            f"INSERT INTO {table} (scorecard_id, customer_id, profile_id, conversation_id, scorecard_time)"
            f" VALUES ('{number}', '{scene.customer}', 'voice', '{number}', '{moment}')",
            distributed_foreground_insert=1,
        )
    assert rows_before(scene.delete(scene.window())) == {"scorecard": 1}
    assert scene.wait_mutations().status == "gone"
    assert scene.total() == 2


def test_requests_carry_no_session_and_their_own_settings(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.fill("2026-01-05")
    port = scene.sandbox.topology.node("node-1-1").port
    scene.connect(monkeypatch, port, session_settings={"mutations_sync": 2, "skip_unavailable_shards": 1})
    scene.sandbox.clear()
    scene.delete(scene.window())
    assert scene.wait_mutations().status == "gone"
    rows = scene.sandbox.node("node-1-1").statements(queries=True)
    product = [row for row in rows if "airflow" in row["user_agent"]]
    assert len(product) > 5
    assert {row["session_id"] for row in product} == {""}
    (delete,) = [row for row in product if row["changes"]]
    assert delete["settings"]["mutations_sync"] == "0"
    assert delete["settings"]["replication_wait_for_inactive_replica_timeout"] == "0"
    counts = [row for row in product if " FINAL " in row["statement"]]
    assert counts
    assert {row["settings"]["skip_unavailable_shards"] for row in counts} == {"0"}
    assert {row["settings"]["optimize_use_projections"] for row in counts} == {"0"}
    assert all(int(row["settings"]["max_execution_time"]) > 0 for row in counts)


def test_projection_does_not_count_what_a_lightweight_delete_hid(scene: Scene) -> None:
    scene.fill("2026-01-05")
    node, table = scene.sandbox.nodes()[0], f"`{scene.database}`.scorecard ON CLUSTER 'conversations'"
    node.query(
        f"ALTER TABLE {table} MODIFY SETTING lightweight_mutation_projection_mode = 'rebuild',"
        " deduplicate_merge_projection_mode = 'rebuild'"
    )
    node.query(f"ALTER TABLE {table} ADD PROJECTION by_customer (SELECT customer_id, count() GROUP BY customer_id)")
    node.query(f"ALTER TABLE {table} MATERIALIZE PROJECTION by_customer", mutations_sync=2)
    node.query(f"DELETE FROM {table} WHERE scorecard_id < '2026-01-05-2'", lightweight_deletes_sync=2)
    left = scene.total()
    assert 0 < left < 40
    assert rows_before(scene.delete(scene.window())) == {"scorecard": left}


def cleaned(scene: Scene) -> None:
    """A window of 40 rows whose DELETE is done."""
    scene.fill("2026-01-05")
    scene.delete(scene.window())
    scene.wait_mutations()


def test_rows_written_twice_are_counted_once(scene: Scene) -> None:
    cleaned(scene)
    for node in scene.sandbox.nodes():
        node.query(f"SYSTEM STOP MERGES `{scene.database}`.scorecard")
    scene.fill("2026-01-05", version=2)
    scene.fill("2026-01-05", version=3)
    plain = scene.sandbox.nodes()[0].query(f"SELECT count() FROM `{scene.database}`.scorecard_d")
    assert plain == [["80"]]
    found = verified(scene.verify())
    assert found.proof is not None
    (table,) = found.proof.tables
    assert (table.before, table.after, table.doubled, table.short) == (40, 40, 0, 0)


def test_rows_that_came_back_on_two_days_fail_the_window(scene: Scene) -> None:
    """The other shard has them on the next day: each day for itself has every id once."""
    cleaned(scene)
    scene.fill("2026-01-05", version=2)
    scene.sandbox.node("node-1-1").query(
        f"INSERT INTO `{scene.database}`.scorecard SELECT * REPLACE (scorecard_time + INTERVAL 1 DAY AS scorecard_time,"
        f" updated_at - 1 AS updated_at) FROM cluster('conversations', `{scene.database}`.scorecard) FINAL"
    )
    record = failed(scene.verify())
    assert record.cause == "doubled_rows"
    assert "rows are there on another day, too (the same id)" in record.reason


def test_rows_that_an_insert_lost_fail_the_window_with_the_numbers(scene: Scene) -> None:
    cleaned(scene)
    scene.fault("node-1-1", kind="insert_drop", match="scorecard_d", times=1)
    scene.fill("2026-01-05", 20)
    scene.fill("2026-01-05", 20, first=20)
    record = failed(scene.verify())
    assert record.cause == "lost_rows"
    assert "20 rows of 2026-01-05 < 70% of 40 before" in record.reason


def test_rows_that_were_not_deleted_and_came_again_fail_the_window(scene: Scene) -> None:
    cleaned(scene)
    scene.fill("2026-01-05")
    scene.fill("2026-01-06", first=500)
    assert failed(scene.verify()).cause == "too_many_rows"


@pytest.mark.parametrize(
    ("rule", "node"),
    [
        ({"kind": "cut", "bytes": 20, "times": 2}, "node-1-1"),
        ({"kind": "silent", "mode": "omit", "times": 2}, "node-2-2"),
        ({"kind": "reply", "code": 241, "times": 2}, "node-1-1"),
    ],
    ids=["cut", "silent", "241"],
)
def test_broken_count_is_never_a_smaller_count(scene: Scene, rule: dict[str, Any], node: str) -> None:
    cleaned(scene)
    scene.fill("2026-01-05")
    scene.fault(node, match="FINAL|scorecard", **rule)
    proof = verified(scene.verify()).proof
    assert proof is not None
    assert [table.after for table in proof.tables] == [40]
    assert [rule["hits"] for rule in scene.sandbox.node(node).faults()] == [2]


def test_replica_that_is_behind_is_waited_for(scene: Scene) -> None:
    cleaned(scene)
    scene.fault("node-1-2", kind="replica_hold", match=f"INSERT INTO {scene.database}")
    scene.fill("2026-01-05")
    looks = []

    def look_then_heal() -> None:
        looks.append(scene.rows())
        scene.heal()

    assert verified(scene.verify(look_then_heal)).status == "verified"
    assert looks[0]["node-1-2"] == 0 < looks[0]["node-1-1"]


def test_who_looks_again_and_again_connects_once_and_a_delete_has_a_connection_of_its_own(scene: Scene) -> None:
    scene.fill("2026-01-05")
    node = scene.sandbox.node("node-1-1")
    clickhouse_clients.shared.close()
    scene.sandbox.clear()
    scene.delete(scene.window())
    for _ in range(3):
        assert scene.wait_mutations().status == "gone"
    product = [row["statement"] for row in node.statements(queries=True) if "airflow" in row["user_agent"]]
    assert len([text for text in product if "system.mutations" in text]) > 3
    assert len([text for text in product if text.startswith("ALTER")]) == 1
    assert len([text for text in product if text.startswith("SELECT version()")]) == 2


def test_a_database_without_the_volume_table_is_not_passed_over(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.configure(monkeypatch, tables=["scorecard", "score"])
    bare = Scene(scene.sandbox, scene.folder, f"{scene.customer}bare")
    node = scene.sandbox.nodes()[0]
    for statement in create_statements(bare.spec):
        if "`scorecard`" not in statement and "`scorecard_d`" not in statement:
            node.query(statement)
    node.query(
        f"INSERT INTO `{bare.database}`.score_d (score_id, scorecard_id, customer_id, profile_id, conversation_id,"
        f" scorecard_time) VALUES ('s', 'c', '{bare.customer}', 'voice', 'c', '2026-01-05 00:00:00')",
        distributed_foreground_insert=1,
    )
    stock, _ = read_inventory(BackfillClickHouse(scene.config), DateRange(date(2026, 1, 1), date(2026, 2, 1)))
    assert [(v.customer_id, v.table, v.rows) for v in stock.volumes if v.database == bare.database] == [
        (bare.customer, "score", 1)
    ]
    with pytest.raises(AirflowFailException, match=rf"{bare.customer}.*lacks the tables \['scorecard'\]"):
        plan(scene, monkeypatch, bare.customer)

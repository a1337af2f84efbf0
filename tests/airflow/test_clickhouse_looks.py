"""What the ClickHouse hook makes of the rows that it reads, and that a silent host is never taken for a zero."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from backfill.hooks import clickhouse as module
from backfill.hooks.clickhouse import BackfillClickHouse, TopologyError, worst_readings
from include.scorecard_backfill import sql
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import merge
from include.scorecard_backfill.config.rules import census_part, names_of, written
from include.scorecard_backfill.planning.columns import wanted_columns
from include.scorecard_backfill.records import Counted, Deleted, Sent
from include.scorecard_backfill.sql import health as sql_health
from include.scorecard_backfill.sql.census import BUCKETS, census_statement, host_counts_statement, not_rewritten
from include.scorecard_backfill.sql.spool import spooled_statement
from include.scorecard_backfill.verdicts.counts import Host
from include.scorecard_backfill.verdicts.health import Reading
from include.scorecard_backfill.verdicts.mutations import Mutation
from tests.kit.waits import KEY, window

Json = dict[str, Any]

HOSTS = (Host("node-1-1", 1), Host("node-2-1", 2))
NAMES = [host.name for host in HOSTS]
PART = sql.Slice("acme_voice", "acme", "voice", date(2026, 1, 1), date(2026, 2, 1))
CARDS = ("acme_voice", "scorecard")
BASE: Json = {
    "name": "demo",
    "kubernetes": {"context": "demo"},
    "clickhouse": {"conn_id": "ch_demo", "cluster": "talk", "tables": ["scorecard"]},
}


class Hook(BackfillClickHouse):
    """Answers statements from memory; one that nobody has told of is a mistake of the hook."""

    told: dict[str, Any]
    asked: list[str]

    def rows(self, statement: str, settings: Any = None) -> list[Json]:
        """Return what was told."""
        self.asked.append(statement)
        found: list[Json] = self.told[statement]
        return found


def hook_of(**clickhouse: Any) -> Hook:
    """The hook of a cluster whose file has these fields."""
    made = Hook(ClusterConfig.model_validate(merge(BASE, {"clickhouse": clickhouse})))
    made.told, made.asked = {}, []
    return made


@pytest.fixture
def hook() -> Hook:
    """The hook of a usual cluster."""
    return hook_of()


def test_a_cluster_is_asked_for_by_its_name(hook: Hook) -> None:
    hook.told[sql.topology_statement("talk")] = []
    with pytest.raises(TopologyError, match=r"ClickHouse knows no cluster 'talk' \(see system.clusters\)"):
        hook.topology()


def test_the_servers_time_has_milliseconds(hook: Hook) -> None:
    hook.told[sql_health.SERVER_TIME] = [{"now": "1772431200500"}]
    assert hook.server_time() == datetime(2026, 3, 2, 6, 0, 0, 500_000, tzinfo=UTC)


LEG = (
    [{"leg": 0, "host": name, "days": [("2026-01-05", [rows])]} for name, rows in zip(NAMES, (7, 5), strict=True)]
)  # fmt: skip


def tally(*figures: int) -> list[int]:
    """The numbers of one day."""
    return [*figures, *([0] * BUCKETS)]


def test_a_census_counts_each_table_on_every_host_and_over_all(hook: Hook) -> None:
    parts = [census_part(hook.config, "scorecard", PART, {"scorecard"}, None)]
    statement = census_statement(cluster="talk", parts=parts, names=names_of(hook.config))
    whole = {"leg": 1, "host": "", "days": [("2026-01-05", tally(12, 6, 12, 0, 9)), ("", tally(12, 6, 12, 0, 9))]}
    hook.told[statement] = [*LEG, whole]
    found = hook.census([("scorecard", PART)], HOSTS)
    assert found.unsettled == ""
    assert found.total[CARDS].rows == 12
    assert found.tables[CARDS].hosts == {"node-1-1": {"2026-01-05": 7}, "node-2-1": {"2026-01-05": 5}}
    assert found.total[CARDS].meant is None

    hook.told[statement] = [LEG[0], whole]
    with pytest.raises(TopologyError, match="no count from node-2-1: unknown is not zero"):
        hook.census([("scorecard", PART)], HOSTS)


def test_a_census_knows_what_was_meant_to_go_and_what_was_written_again() -> None:
    rules = {"scorecard": {"column": "is_stale", "equals": 1}, "score": {"by": "scorecard", "id_column": "card_id"}}
    hook = hook_of(
        tables=["scorecard", "score"], meant_to_go=rules, written_columns={"scorecard": {"column": "updated_at"}}
    )
    since = datetime(2026, 3, 2, tzinfo=UTC)
    other = sql.Slice("acme_chat", "acme", "chat", PART.start, PART.end)
    asked = [("scorecard", PART), ("score", PART), ("score", other)]
    # The score table of the other database has no scorecard table beside it, by which a rule could tell.
    both: set[str] = {"scorecard", "score"}
    parts = [
        census_part(hook.config, "scorecard", PART, both, since),
        census_part(hook.config, "score", PART, both, since),
        census_part(hook.config, "score", other, {"score"}, since),
    ]
    assert [part.meant is None for part in parts] == [False, False, True]
    statement = census_statement(cluster="talk", parts=parts, names=names_of(hook.config))
    hook.told[statement] = []
    for leg in range(3):
        hook.told[statement] += [{"leg": 2 * leg, "host": name, "days": []} for name in NAMES]
        hook.told[statement].append({"leg": 2 * leg + 1, "host": "", "days": []})
    found = hook.census(asked, HOSTS, since)
    assert {name: total.meant for name, total in found.total.items()} == {
        CARDS: 0, ("acme_voice", "score"): 0, ("acme_chat", "score"): None,
    }  # fmt: skip


def test_nothing_is_asked_for_no_tables(hook: Hook) -> None:
    assert (hook.census([], HOSTS).tables, hook.census([], HOSTS).unsettled) == ({}, "")
    assert hook.host_counts([], HOSTS) == []


def test_rows_are_counted_by_host_and_day(hook: Hook) -> None:
    parts = [("scorecard", PART, "`is_stale` = 1")]
    hook.told[host_counts_statement(cluster="talk", parts=parts, names=names_of(hook.config))] = LEG
    assert hook.host_counts(parts, HOSTS) == [{"node-1-1": {"2026-01-05": 7}, "node-2-1": {"2026-01-05": 5}}]
    hook.told = {statement: rows[1:] for statement, rows in hook.told.items()}
    with pytest.raises(TopologyError, match="no count from node-1-1"):
        hook.host_counts(parts, HOSTS)


ITEM = ["acme_voice", "scorecard", "mutation_7.txt", "DELETE WHERE 1", "1772431200", 0, "3", None, [0, 0]]


def listed(host: str, *items: Any, expected: int = 2) -> Json:
    """What one host says of its mutations."""
    return {"host": host, "expected": expected, "listed": list(items)}


@pytest.mark.parametrize(("killed", "is_killed"), [([0, 0], False), ([], False), ([0, 1], True)])
def test_mutations_are_read_with_their_host(hook: Hook, killed: list[int], is_killed: bool) -> None:
    item = [*ITEM[:-1], killed]
    hook.told[sql.mutations_statement("talk")] = [listed("node-1-1"), listed("node-2-1", item)]
    assert hook.mutations() == [
        Mutation("node-2-1", "acme_voice", "scorecard", "mutation_7.txt", "DELETE WHERE 1", 1_772_431_200, False, 3, "",
                 is_killed)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], r"0 of some hosts have listed their mutations \(none\)"),
        ([listed("node-2-1")], r"1 of 2 hosts have listed their mutations \(node-2-1\)"),
        ([listed("node-2-1"), listed("node-1-1", expected=3)], r"2 of 2 hosts .* \(node-1-1, node-2-1\)"),
    ],
)
def test_a_host_that_lists_no_mutations_is_missed(hook: Hook, rows: list[Json], said: str) -> None:
    hook.told[sql.mutations_statement("talk")] = rows
    with pytest.raises(TopologyError, match=f"{said}: unknown is not none"):
        hook.mutations()


def test_tables_are_usable_on_every_host_with_fitting_columns() -> None:
    hook = hook_of(volume_table="conversations", tables=["scorecard"])
    wanted = wanted_columns(hook.config)
    columns = sorted({name for of_table in wanted.values() for name in of_table})
    engine = {"engine": "ReplacingMergeTree", "partition_key": "", "engine_full": ""}

    def row(database: str, table: str = "scorecard", hosts: Any = NAMES, **more: Any) -> list[Json]:
        return [{"host": host, "database": database, "table": table, **engine, **more} for host in hosts]

    rows = [
        *row("acme_voice"), *row("acme_voice", "conversations", engine="MergeTree"), *row("bare_voice"),
        *row("far_voice", hosts=NAMES[:1]), *row("plain_voice", engine="MergeTree"), *row("self_voice"),
    ]  # fmt: skip
    kinds = [
        {"host": r["host"], "database": r["database"], "table": r["table"],
         "columns": [(name, "DateTime" if name == "scorecard_time" else "String") for name in columns
                     if r["database"] != "bare_voice" or name != "customer_id"]}
        for r in rows
    ]  # fmt: skip
    hook.told = {
        sql.tables_statement("talk", wanted): rows,
        sql.columns_statement("talk", wanted, columns): kinds,
        sql_health.replicated_databases_statement("talk"): [{"host": "node-1-1", "database": "self_voice"}],
    }
    usable, problems, all_rows = hook.tables(HOSTS)
    assert usable == {"acme_voice": ("conversations", "scorecard")}
    assert all_rows == rows
    assert {database: [text.split(":")[0] for text in said] for database, said in problems.items()} == {
        "bare_voice": ["table bare_voice.scorecard has no column 'customer_id' on every host"],
        "far_voice": ["table far_voice.scorecard is missing on node-2-1"],
        "plain_voice": ["table plain_voice.scorecard has engine MergeTree"],
        "self_voice": ["table self_voice.scorecard"],
    }


def test_partitions_are_asked_of_every_host(hook: Hook) -> None:
    statement = sql_health.partition_statement(
        cluster="talk", database="acme_voice", table="scorecard", partition_ids=["202601"], parts=[PART],
        names=names_of(hook.config),
    )  # fmt: skip
    hook.told[statement] = [
        {"host": "node-1-1", "partitions": [("202601", "9", "1"), (202602, 2, 0)]},
        {"host": "node-2-1", "partitions": []},
    ]
    assert hook.held_partitions("scorecard", PART, ["202601"], HOSTS) == {
        "node-1-1": [("202601", 9, 1), ("202602", 2, 0)], "node-2-1": [],
    }  # fmt: skip
    hook.told[statement].pop()
    with pytest.raises(TopologyError, match="no look at the partitions of node-2-1: unknown is not empty"):
        hook.held_partitions("scorecard", PART, ["202601"], HOSTS)


def test_partition_keys_are_those_of_the_one_database(hook: Hook) -> None:
    hook.told[sql.tables_statement("talk", ["scorecard"])] = [
        {"database": "acme_voice", "partition_key": "toYYYYMM(t)"},
        {"database": "acme_voice", "partition_key": "toMonday(t)"},
        {"database": "acme_voice", "partition_key": "toYYYYMM(t)"},
        {"database": "globex_voice", "partition_key": "tuple()"},
    ]
    assert hook.partition_keys("acme_voice", "scorecard") == ["toMonday(t)", "toYYYYMM(t)"]


def measured(measure: str, host: str, value: Any) -> Json:
    """One row of the question for health."""
    return {"measure": measure, "host": host, "value": value}


def test_the_worst_host_of_each_measure_counts(hook: Hook) -> None:
    rows = [
        *(measured("answers", name, 1) for name in NAMES),
        measured("unfinished_mutations", "node-1-1", "2"), measured("unfinished_mutations", "node-2-1", "11"),
        measured("free_disk_bytes", "node-1-1", 500), measured("free_disk_bytes", "node-2-1", 400),
        measured("active_parts", "node-1-1", 30), measured("active_parts", "node-2-1", 4),
    ]  # fmt: skip
    hook.told[sql_health.health_statement("talk")] = rows
    assert hook.health(HOSTS) == {
        "unfinished_mutations": Reading(11, "node-2-1"),
        "active_parts": Reading(30, "node-1-1"),
        "replication_queue": Reading(0, ""),
        "free_disk_bytes": Reading(400, "node-2-1"),
    }
    del rows[1]
    with pytest.raises(TopologyError, match="no answer from node-2-1: unknown is not well"):
        hook.health(HOSTS)


def test_a_disk_that_nobody_has_read_is_not_an_empty_one() -> None:
    assert "free_disk_bytes" not in worst_readings({})
    assert set(worst_readings({})) == {"unfinished_mutations", "active_parts", "replication_queue"}


@pytest.mark.parametrize(
    ("ask", "statement"),
    [
        (lambda hook: hook.queued_ddl("a", "b"), sql.ddl_queue_statement("talk", "a", "b")),
        (lambda hook: hook.running_ddl("a", "b"), sql.running_statement("talk", "a", "b")),
    ],
)
def test_hosts_of_the_ddl_queue_are_named_once(hook: Hook, ask: Callable[[Hook], Any], statement: str) -> None:
    hook.told[statement] = [{"host": name} for name in ("node-2-1", "node-1-1", "node-2-1")]
    assert ask(hook) == ["node-1-1", "node-2-1"]


def test_whether_a_statement_was_ever_queued(hook: Hook) -> None:
    statement = sql.ddl_trace_statement("talk", "a", "b")
    hook.told[statement] = []
    assert hook.was_queued("a", "b") is False
    hook.told[statement] = [{"host": "node-1-1"}]
    assert hook.was_queued("a", "b") is True


RULE = {"table": "scorecard", "column": "state", "equals": "stale"}


def deleted(**fields: Any) -> Deleted:
    """What the delete stage has left."""
    counted = Counted(key=KEY, now=(), before=(), server_time=1_772_431_200.0)
    sent = Sent(database="acme_voice", table="scorecard", at=0.0)
    base = Deleted(key=KEY, window=window(), status="deleted", counted=counted, sent=(sent,))
    return base.model_copy(update=fields)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is counted, which is 3 rows on the second host."""
    asked: list[Any] = []

    def host_counts(self: Hook, parts: Any, hosts: Any) -> Any:
        assert hosts == HOSTS
        asked.extend(parts)
        return [{"node-1-1": {}, "node-2-1": {"2026-01-05": 1, "2026-01-06": 2}} for _ in parts]

    monkeypatch.setattr(Hook, "host_counts", host_counts)
    monkeypatch.setattr(Hook, "drain_spool", lambda self, window, hosts: [f"{window.customer_id} {len(hosts)}"])
    return asked


GONE = "3 rows of acme_voice.scorecard on node-2-1 were written before 2026-03-02 05:59:00 UTC (updated_at) and should be gone"  # noqa: E501
STALE = "3 rows of acme_voice.scorecard with state = 'stale' are there on node-2-1"


@pytest.mark.parametrize(
    ("fields", "proven", "said"),
    [
        ({}, False, [STALE, GONE]),
        ({}, True, [STALE]),
        ({"sent": ()}, False, [STALE]),
        ({"counted": None}, False, [STALE]),
        ({"bound": 1_772_431_260.0}, False, [STALE, GONE.replace("05:59:00", "06:00:00")]),
        ({"counted": None, "bound": 1_772_431_200.0}, False, [STALE, GONE]),
    ],
)
def test_rows_that_may_not_be_there_any_more_are_named(
    counts: list[Any], fields: Json, proven: bool, said: list[str]
) -> None:
    hook = hook_of(must_be_zero=[RULE], written_columns={"scorecard": {"column": "updated_at"}})
    assert hook.stale_rows(deleted(**fields), HOSTS, proven_gone=proven) == [*said, "acme 2"]
    part = next(iter(window().slices()))[1]
    assert counts[0] == ("scorecard", part, "`state` = 'stale'")
    if len(said) > 1:
        old = written(hook.config, "scorecard", datetime.fromtimestamp(fields.get("bound", 1_772_431_200), UTC))
        assert old is not None
        assert counts[1] == ("scorecard", part, not_rewritten(old))


def test_a_rule_is_about_its_own_table_and_a_table_without_a_time_has_no_old_rows(counts: list[Any]) -> None:
    hook = hook_of(tables=["scorecard", "score"], must_be_zero=[{**RULE, "table": "score"}])
    assert hook.stale_rows(deleted(), HOSTS, proven_gone=False) == ["acme 2"]
    assert counts == []


def test_what_waits_is_looked_for_in_the_windows_databases(hook: Hook) -> None:
    hook.told[spooled_statement("talk", ["acme_voice"])] = [{"host": name, "waiting": []} for name in NAMES]
    assert hook.drain_spool(window(), HOSTS) == []
    hook.told[spooled_statement("talk", ["acme_voice"])].pop()
    with pytest.raises(TopologyError, match="node-2-1"):
        hook.drain_spool(window(), HOSTS)


class Client:
    """Keeps what it is sent with which settings."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.sent: list[tuple[str, Json, str | None]] = []
        self.own: Json = {}
        self.closed = 0
        self.server_settings: Json = {}

    def set_client_setting(self, name: str, value: Any) -> None:
        """Keep a setting of the client."""
        self.own[name] = value

    def raw_query(self, statement: str, settings: Json, fmt: str | None) -> bytes:
        """Answer one statement."""
        self.sent.append((statement, settings, fmt))
        if isinstance(self.answer, Exception):
            raise self.answer
        return bytes(self.answer)

    def command(self, statement: str) -> int:
        """Answer a statement that takes no FORMAT."""
        return len(statement)

    def close(self) -> None:
        """Be closed."""
        self.closed += 1


def clients(monkeypatch: pytest.MonkeyPatch, answer: Any) -> Client:
    """The one client that every hook makes."""
    made = Client(answer)
    monkeypatch.setattr(BackfillClickHouse, "get_client", lambda self: made)
    monkeypatch.setattr(BackfillClickHouse, "_get_client_kwargs", lambda self: {"host": str(id(made))})
    monkeypatch.setattr(module, "pinned_settings", lambda client, conn_id: {"limit": f"0 of {conn_id}"})
    return made


SETTINGS = {
    "mutations_sync": 0,
    "replication_wait_for_inactive_replica_timeout": 0,
    "distributed_ddl_task_timeout": 44,
    "distributed_ddl_output_mode": "null_status_on_timeout",
}


@pytest.mark.parametrize(
    ("statement", "fmt"),
    [
        ("ALTER TABLE t DELETE WHERE 1", "TabSeparated"),
        ("SYSTEM FLUSH DISTRIBUTED t", None),
        ("SYSTEMS", "TabSeparated"),
    ],
)
def test_a_statement_on_the_cluster_has_a_client_and_limits_of_its_own(
    monkeypatch: pytest.MonkeyPatch, statement: str, fmt: str | None
) -> None:
    client = clients(monkeypatch, b"node-1-1\t9000\t0\t\nnode-2-1\t9000\t0\t\n")
    answer = hook_of(ddl_timeout_seconds=44).send_ddl(statement, HOSTS)
    assert (answer.outcome, answer.hosts) == ("done", frozenset(NAMES))
    assert client.sent == [(statement, SETTINGS, fmt)]
    assert client.own == {"max_execution_time": 74}
    assert client.closed == 1


def test_an_error_of_such_a_statement_is_what_it_means(monkeypatch: pytest.MonkeyPatch) -> None:
    clients(monkeypatch, DatabaseError("Too many mutations", code=692))
    assert hook_of().send_ddl("ALTER TABLE t DELETE WHERE 1", HOSTS).outcome == "refused"
    clients(monkeypatch, ConnectionResetError("reset"))
    assert hook_of().send_ddl("ALTER TABLE t DELETE WHERE 1", HOSTS).outcome == "unknown"


def test_the_settings_are_tried_with_a_harmless_question(monkeypatch: pytest.MonkeyPatch) -> None:
    client = clients(monkeypatch, b"1\n")
    hook_of(ddl_timeout_seconds=44).try_ddl_settings()
    assert client.sent == [("SELECT 1", SETTINGS, "TabSeparated")]


def test_other_statements_share_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    client = clients(monkeypatch, "a\tb\n\u00fc\t2\n".encode())
    hook = hook_of()
    assert hook.raw("INSERT") == "a\tb\n\u00fc\t2\n"
    assert hook.answers(["one", "three"]) == ["3", "5"]
    assert client.sent == [("INSERT", {"limit": "0 of ch_demo"}, "TabSeparatedWithNames")]
    assert (client.own, client.closed) == ({}, 0)


def test_a_password_that_was_rotated_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    given: Any = SimpleNamespace(password="old")
    clients(monkeypatch, DatabaseError("Authentication failed", code=516))
    refusals: list[str] = []

    def refused(password: str) -> bool:
        refusals.append(password)
        return len(refusals) == 1

    monkeypatch.setattr(module, "refused", refused)
    hook = BackfillClickHouse(ClusterConfig.model_validate(BASE), given)
    with pytest.raises(ConnectionError, match="refuses the password that was read from the Secret; it is read again"):
        hook.try_ddl_settings()
    with pytest.raises(DatabaseError, match="Authentication failed"):
        hook.try_ddl_settings()
    assert refusals == ["old", "old"]

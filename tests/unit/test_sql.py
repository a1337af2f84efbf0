"""Every statement, taken apart by a parser: one statement each, the right tables, one predicate, nothing let in."""

from __future__ import annotations

import doctest
import re
from datetime import date
from typing import Any

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from include.scorecard_backfill import sql
from include.scorecard_backfill.sql import Names, Slice
from include.scorecard_backfill.sql import health as sql_health
from include.scorecard_backfill.sql.census import CensusPart, Value, census_statement, host_counts_statement

NAMES = Names("scorecard_time", "customer_id", "profile_id", "conversation_id")
PART = Slice("acme_voice", "acme", "voice", date(2026, 1, 1), date(2026, 2, 1))
KEY = "0123456789abcdef"
CLUSTER = "conversations"
HOSTILE = [
    "acme",
    "O'Neil",
    "a`b",
    'a"b',
    "a\\",
    "a\\'b",
    "' OR 1=1 --",
    "'; DROP TABLE x; --",
    "*/ a /*",
    "{a:String}",
    "%s %(a)s",
    "$$a$$",
    "a\nb\tc\0",
    "日本é",
    f"backfill:{KEY}:9",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(HOSTILE)


def parsed(statement: str) -> Any:
    """The only statement in this text."""
    (tree,) = sqlglot.parse(statement, dialect="clickhouse")
    return tree


def conditions(node: Any) -> list[str]:
    """The parts of a WHERE that are joined by AND."""
    where = node.find(exp.Where)
    return [part.sql("clickhouse") for part in where.this.flatten()]


def predicate(part: Slice = PART) -> list[str]:
    return conditions(parsed(f"SELECT 1 FROM t WHERE {sql.window_predicate(NAMES, part)}"))


def delete(part: Slice = PART, **changes: Any) -> str:
    asked: dict[str, Any] = {"cluster": CLUSTER, "table": "scorecard", "names": NAMES, "key": KEY, "generation": 1}
    return sql.delete_statement(part=part, **asked | changes)


def sources(tree: Any) -> list[tuple[str, str, list[str]]]:
    """Table functions of all SELECTs: name, cluster, and the arguments behind it."""
    found = []
    for table in tree.find_all(exp.Table):
        if isinstance(table.this, exp.Anonymous):
            first, *rest = table.this.expressions
            found.append((table.this.name, first.name, [arg.sql("clickhouse") for arg in rest]))
    return found


@pytest.mark.parametrize("module", [sql, sql_health])
def test_doctests_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_the_predicate_is_half_open_and_names_customer_and_profile() -> None:
    assert predicate() == [
        """"scorecard_time" >= toDateTime64('2026-01-01 00:00:00', 3, 'UTC')""",
        """"scorecard_time" < toDateTime64('2026-02-01 00:00:00', 3, 'UTC')""",
        """"customer_id" = 'acme'""",
        """"profile_id" = 'voice'""",
    ]


def test_delete_is_one_alter_of_the_local_table_on_the_cluster() -> None:
    tree = parsed(delete())
    assert isinstance(tree, exp.Alter)
    assert (tree.this.db, tree.this.name) == ("acme_voice", "scorecard")
    assert tree.args["cluster"].this.name == CLUSTER
    (action,) = tree.args["actions"]
    assert isinstance(action, exp.Delete)
    assert tree.find(exp.Or) is None


def test_delete_and_the_look_at_partitions_share_the_predicate() -> None:
    *shared, marker = conditions(parsed(delete()))
    assert shared == predicate()
    assert marker == f"'backfill:{KEY}:1' <> ''"
    [(_, _, [view])] = sources(parsed(partition_statement([PART])))
    inside = parsed(view.removeprefix("view(").removesuffix(")")).find(exp.Not).this.unnest().unnest()
    assert [part.sql("clickhouse") for part in inside.flatten()] == predicate()


def test_the_text_of_the_predicate_is_the_same_letter_by_letter() -> None:
    text = sql.window_predicate(NAMES, PART)
    counted = CensusPart("scorecard", PART, "scorecard_id", Value("review", "column"))
    assert census_statement(cluster=CLUSTER, parts=[counted], names=NAMES).count(text) == 2
    stale = host_counts_statement(cluster=CLUSTER, parts=[("scorecard", PART, "review = 1")], names=NAMES)
    assert f"{text} AND review = 1" in stale
    for statement in (delete(), partition_statement([PART])):
        assert text in statement


@pytest.mark.parametrize(("generation", "chunk"), [(1, 0), (2, 0), (10, 3)])
def test_the_marker_is_a_comparison_of_literals_that_is_always_true(generation: int, chunk: int) -> None:
    literal = sql.marker_literal(KEY, generation, chunk)
    statement = delete(generation=generation, chunk=chunk)
    marker = parsed(statement).find(exp.Where).this.right
    assert isinstance(marker, exp.NEQ)
    assert all(isinstance(side, exp.Literal) and side.is_string for side in (marker.left, marker.right))
    assert (marker.right.name, f"'{marker.left.name}'") == ("", literal)
    assert marker.left.name != ""
    assert sql.parse_marker(statement) == (KEY, generation, chunk)


@pytest.mark.parametrize("key", ["", "0" * 15, "0" * 17, "G" * 16, "0123456789ABCDEF", "' OR 1=1 OR '1234"])
def test_a_key_that_is_no_key_makes_no_statement(key: str) -> None:
    for make in (lambda: delete(key=key), lambda: kill(key=key)):
        with pytest.raises(ValueError, match="cannot be a marker"):
            make()


def test_a_generation_that_is_no_number_makes_no_statement() -> None:
    for generation in (-1, "1' OR '1", None):
        with pytest.raises(ValueError, match="cannot be a marker"):
            delete(generation=generation)


@given(st.integers(0, 16**16 - 1).map(lambda n: f"{n:016x}"), st.integers(0, 500), st.integers(0, 40), TEXTS, TEXTS)
def test_a_marker_is_read_back_whatever_the_customer_is_called(
    key: str, generation: int, chunk: int, customer: str, profile: str
) -> None:
    part = Slice("db", customer, profile, PART.start, PART.end)
    statement = delete(part, key=key, generation=generation, chunk=chunk)
    assert sql.parse_marker(statement) == (key, generation, chunk)
    assert [mark in statement for mark in sql.generation_marks(key, generation)] == [not chunk, bool(chunk)]


@pytest.mark.parametrize(
    "command",
    [
        "DELETE WHERE id = 1",
        "UPDATE _row_exists = 0 WHERE 1",
        "DELETE WHERE a = 'backfill:0123'",
        f"DELETE WHERE a = 'x{KEY}:1'",
        f"DELETE WHERE a = 'backfill:{KEY}:'",
        f"DELETE WHERE a = 'backfill:{KEY}:1.'",
        f"DELETE WHERE a = 'backfill:{KEY}:1x'",
    ],
)
def test_a_mutation_of_others_has_no_marker(command: str) -> None:
    assert sql.parse_marker(command) is None


@given(TEXTS, TEXTS)
def test_a_hostile_customer_stays_one_literal_of_one_statement(customer: str, profile: str) -> None:
    tree = parsed(delete(Slice("db", customer, profile, PART.start, PART.end)))
    shape = [type(node).__name__ for node in tree.walk()]
    assert shape == [type(node).__name__ for node in parsed(delete()).walk()]
    texts = [node.this for node in tree.find_all(exp.EQ)]
    assert sorted(column.name for column in texts) == ["customer_id", "profile_id"]


@given(TEXTS)
def test_a_quoted_text_holds_no_bare_quote_and_unquotes_to_itself(text: str) -> None:
    quoted = sql.quote_string(text)
    assert re.fullmatch(r"'(?:[^'\\]|\\.)*'", quoted, re.DOTALL)
    assert not re.search(r"[\0\b\f\n\r\t]", quoted)
    back = {"0": "\0", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
    assert re.sub(r"\\(.)", lambda m: back.get(m[1], m[1]), quoted[1:-1], flags=re.DOTALL) == text


@pytest.mark.parametrize("name", ["", "a\0", "a\nb", "\t", "\x1f"])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        sql.quote_identifier(name)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_a_quoted_name_unquotes_to_itself(name: str) -> None:
    quoted = sql.quote_identifier(name)
    assert re.fullmatch(r"`(?:[^`\\]|\\.)*`", quoted, re.DOTALL)
    assert re.sub(r"\\(.)", r"\1", quoted[1:-1], flags=re.DOTALL) == name


def test_drop_partition_names_one_partition_of_the_local_table_by_its_id() -> None:
    tree = parsed(
        sql.drop_partition_statement(cluster=CLUSTER, database="acme_voice", table="score", partition_id="202601")
    )
    assert (tree.this.db, tree.this.name, tree.args["cluster"].this.name) == ("acme_voice", "score", CLUSTER)
    (action,) = tree.args["actions"]
    assert isinstance(action, exp.DropPartition)
    assert [literal.name for literal in action.find_all(exp.Literal)] == ["202601"]
    assert tree.find(exp.Where) is None


def test_mutations_are_the_unfinished_of_all_and_the_own_with_a_row_of_every_host() -> None:
    tree = parsed(sql.mutations_statement(CLUSTER))
    [(function, cluster, [view])] = sources(tree)
    assert (function, cluster, view[:12]) == ("clusterAllReplicas", CLUSTER, "view(SELECT ")
    inner = parsed(view[5:-1])
    assert inner.find(exp.Group) is None
    where = inner.find(exp.Where).this
    assert isinstance(where, exp.Or)
    assert where.left.sql("clickhouse") == "is_done = 0"
    assert "'backfill:'" in where.right.sql("clickhouse")


def kill(**changes: Any) -> str:
    asked: dict[str, Any] = {"cluster": CLUSTER, "database": "acme_voice", "table": "score", "key": KEY}
    return sql.kill_mutation_statement(**asked | {"generation": 1, "test": True} | changes)


def test_kill_takes_only_the_own_mutations_of_one_generation_on_one_table() -> None:
    # The parser knows no KILL MUTATION: its condition is looked at alone.
    head, _, condition = kill(test=False).partition(" WHERE ")
    assert head == f"KILL MUTATION ON CLUSTER '{CLUSTER}'"
    parts = conditions(parsed(f"SELECT 1 FROM system.mutations WHERE {condition}"))
    assert parts[:2] == ["database = 'acme_voice'", "table = 'score'"]
    assert len(parts) == 3
    assert kill() == f"{kill(test=False)} TEST"


@pytest.mark.parametrize("name", HOSTILE)
def test_statements_about_the_cluster_quote_what_they_are_given(name: str) -> None:
    statements = {
        sql.topology_statement: "SELECT",
        sql.answering_hosts_statement: "SELECT",
        sql.mutations_statement: "SELECT",
        sql.replicas_statement: "SELECT",
        sql_health.health_statement: "UNION",
    }
    for make, kind in statements.items():
        usual, hostile = parsed(make(CLUSTER)), parsed(make(name))
        assert hostile.key.upper() == kind
        assert [type(node) for node in hostile.walk()] == [type(node) for node in usual.walk()]
    queue = parsed(sql.ddl_queue_statement(name, name))
    assert [type(n) for n in queue.walk()] == [type(n) for n in parsed(sql.ddl_queue_statement("c", "n")).walk()]
    running = parsed(sql.running_statement(name, name))
    assert [type(n) for n in running.walk()] == [type(n) for n in parsed(sql.running_statement("c", "n")).walk()]
    tables = parsed(sql.tables_statement(name, [name, name]))
    assert len(tables.find(exp.In).expressions) == 2


def test_tables_leaves_the_servers_own_databases_out() -> None:
    text = " ".join(conditions(parsed(sql.tables_statement(CLUSTER, ["scorecard", "score"]))))
    assert "name IN ('scorecard', 'score')" in text
    assert "'system'" in text


def test_pairs_and_volumes_ask_each_shard_once_for_all_databases() -> None:
    pairs = parsed(sql.pairs_statement(cluster=CLUSTER, databases=["a", "b.c"], table="scorecard", names=NAMES))
    volumes = parsed(
        sql.volumes_statement(
            cluster=CLUSTER, databases=["a"], tables=["scorecard", "score"], names=NAMES, start=PART.start, end=PART.end
        )
    )
    for tree, columns in (
        (pairs, ["database", "customer_id", "profile_id"]),
        (volumes, ["database", "table", "customer_id", "profile_id", "day", "rows", "conversations"]),
    ):
        (source,) = sources(tree)[:1]
        assert source[:2] == ("cluster", CLUSTER)
        assert [column.alias_or_name for column in tree.expressions] == columns
    assert pairs.find(exp.Where) is None
    assert conditions(volumes) == predicate()[:2]


def partition_statement(parts: list[Slice]) -> str:
    return sql_health.partition_statement(
        cluster=CLUSTER, database="acme_voice", table="score", partition_ids=["202601", "x'y"], parts=parts, names=NAMES
    )


def test_a_partitions_foreign_rows_are_all_that_no_slice_holds() -> None:
    other = Slice("acme_voice", "acme", "voice", date(2026, 2, 1), date(2026, 3, 1))
    [(function, cluster, [view])] = sources(parsed(partition_statement([PART, other])))
    assert (function, cluster) == ("clusterAllReplicas", CLUSTER)
    tree = parsed(view.removeprefix("view(").removesuffix(")"))
    assert isinstance(tree.find(exp.Not).this.unnest(), exp.Or)
    assert len(tree.find(exp.In).expressions) == 2
    assert tree.find(exp.Table).sql() == '"acme_voice"."score"'
    sizes = parsed(sql_health.partition_sizes_statement(cluster=CLUSTER, database="a'b", table="score"))
    assert conditions(sizes)[1:] == ["database = 'a''b'", "table = 'score'"]


def test_health_has_a_leg_for_each_measure() -> None:
    union = parsed(sql_health.health_statement(CLUSTER))
    measures = re.findall(r"'(\w+)' AS measure", union.sql("clickhouse"))
    assert measures == ["answers", "unfinished_mutations", "active_parts", "replication_queue", "free_disk_bytes"]
    assert {(name, cluster) for name, cluster, _ in sources(union)} == {("clusterAllReplicas", CLUSTER)}


@given(st.dates())
def test_a_day_is_midnight_utc_in_four_digit_years(day: date) -> None:
    assert sql.day_literal(day) == f"toDateTime64('{day.isoformat()} 00:00:00', 3, 'UTC')"
    assert len(day.isoformat()) == 10

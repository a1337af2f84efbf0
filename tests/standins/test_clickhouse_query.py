"""The outline of a SELECT: clauses, projection, sources, set operations."""

from __future__ import annotations

import pytest

from standins.clickhouse.lexer import render, tokens_of
from standins.clickhouse.query import Select, replace_calls, rewrite_queries, sources, split_clauses


def select(sql: str) -> Select:
    """A SELECT without subqueries, split."""
    return split_clauses(list(tokens_of(sql)))


def test_clauses_in_order() -> None:
    found = select(
        "WITH 1 AS one SELECT a FROM t FINAL PREWHERE b WHERE c GROUP BY d HAVING e ORDER BY f LIMIT 1 SETTINGS g = 1"
    )
    assert [clause.name for clause in found.clauses] == [
        "WITH",
        "SELECT",
        "FROM",
        "PREWHERE",
        "WHERE",
        "GROUP BY",
        "HAVING",
        "ORDER BY",
        "LIMIT",
        "SETTINGS",
    ]
    assert render(found.get("GROUP BY")) == "d"


@pytest.mark.parametrize("word", ["format", "settings", "limit", "offset", "having"])
def test_clause_words_as_names(word: str) -> None:
    found = select(f"SELECT t.{word}, 1 AS {word} FROM t")
    assert [clause.name for clause in found.clauses] == ["SELECT", "FROM"]


@pytest.mark.parametrize(
    ("sql", "replaced"),
    [
        ("SELECT DISTINCT hostName(), a", "SELECT DISTINCT 'n' AS `hostName()`, a"),
        ("SELECT HOSTNAME() AS h", "SELECT 'n' AS h"),
        ("SELECT upper(hostName()) WHERE hostName() = 'x'", "SELECT upper('n') WHERE 'n' = 'x'"),
        ("SELECT t.hostName, hostName", "SELECT t.hostName, hostName"),
    ],
)
def test_calls_are_replaced_and_keep_their_name(sql: str, replaced: str) -> None:
    assert replace_calls(select(sql), {"hostname": "'n'"}).sql() == replaced


def test_sources_of_joins() -> None:
    found = sources(list(tokens_of("db.t AS a FINAL INNER JOIN cluster('c', x.y) b ON a.i = b.i, z ARRAY JOIN l")))
    assert [(source.table, source.function, source.alias, source.final) for source in found] == [
        (("db", "t"), None, "a", True),
        (None, "cluster", "b", False),
        ((None, "z"), None, None, False),
    ]


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("SELECT 1", 1),
        ("SELECT 1 UNION ALL SELECT 2 EXCEPT SELECT 3", 3),
        ("(SELECT 1) UNION DISTINCT (SELECT 2)", 2),
        ("SELECT * EXCEPT (a) FROM t", 1),
        ("SELECT a FROM (SELECT b FROM (SELECT c)) WHERE a IN (SELECT d)", 4),
        ("WITH x AS (SELECT 1) SELECT * FROM x", 2),
        ("SELECT 1 IN (1, 2)", 1),
    ],
)
def test_every_select_is_rewritten_once(sql: str, count: int) -> None:
    seen: list[str] = []

    def note(found: Select) -> str:
        seen.append(found.sql())
        return found.sql()

    assert [t.text for t in tokens_of(rewrite_queries(list(tokens_of(sql)), note))] == [t.text for t in tokens_of(sql)]
    assert len(seen) == count

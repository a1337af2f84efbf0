"""SQL that sqlglot has read: what is not touched means what it meant, and calls get what stands for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from standins.clickhouse.errors import ClickHouseError, from_text
from standins.clickhouse.sqltext import quote_name, quote_string, replace_calls, settings_of, sql_of, tokens_of, tree_of


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(), sum(v), uniqExactIfResample(0, 64, 1)(a, NOT b, c % 64), if(a, 1, 2), toDate(a, 'UTC') FROM t",
        "SELECT CAST(array(COLUMNS('^is_killed$')) AS Array(UInt8)), groupArraySorted(3)(a), tuple(a, [b]).1 FROM d.t",
        "WITH 3 AS three SELECT a FROM t AS x FINAL PREWHERE b WHERE a = three GROUP BY a WITH ROLLUP ORDER BY ALL",
        "SELECT a GLOBAL NOT IN (SELECT b FROM `d`.t) FROM (SELECT 1 AS a UNION ALL SELECT 2 AS a) SETTINGS x = 1",
        "SELECT position(a, 'it''s\\\\') > 0, startsWith(b, '\\n'), a LIKE '%', version() FROM t LIMIT 2 BY a",
        "(SELECT 1) UNION DISTINCT (SELECT 2)",
        "SELECT * FROM t WHERE a >= {low: UInt32}",
    ],
)
def test_a_query_comes_back_as_it_was_read(sql: str) -> None:
    tree = tree_of(sql)
    assert tree is not None
    assert sql_of(tree) == sql


@pytest.mark.parametrize("sql", ["SELECT a FROM", "SELECT 'open", "SELEC 1", "DROP TABLE t"])
def test_what_is_no_query_has_no_tree(sql: str) -> None:
    assert tree_of(sql) is None


@pytest.mark.parametrize(
    ("sql", "replaced"),
    [
        ("SELECT DISTINCT hostName(), a", "SELECT DISTINCT 'n' AS `hostName()`, a"),
        ("SELECT HOSTNAME() AS h", "SELECT 'n' AS h"),
        ("SELECT upper(hostName()) WHERE hostName() = 'x'", "SELECT upper('n') WHERE 'n' = 'x'"),
        ("SELECT t.hostName, hostName, hostName(1)", "SELECT t.hostName, hostName, hostName(1)"),
    ],
)
def test_calls_are_replaced_and_keep_their_name(sql: str, replaced: str) -> None:
    tree = tree_of(sql)
    assert tree is not None
    assert replace_calls(tree.walk(), {"hostname": "'n'"}) is (sql != replaced)
    assert sql_of(tree) == replaced


def test_settings_have_their_values() -> None:
    assert settings_of(tree_of("SELECT 1 SETTINGS a = 1, b = 'x y', c = -2")) == {"a": "1", "b": "x y", "c": "-2"}
    assert settings_of(tree_of("SELECT 1")) == {}


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
def test_quoted_string_is_one_token_with_its_value(value: str) -> None:
    (token,) = tokens_of(quote_string(value))
    assert token.text == value


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30))
def test_quoted_name_is_one_token_with_its_name(name: str) -> None:
    (token,) = tokens_of(quote_name(name))
    assert token.text == name


@pytest.mark.parametrize("sql", ["SELECT 'open", "SELECT `open", 'SELECT "open'])
def test_open_quote_is_a_syntax_error(sql: str) -> None:
    with pytest.raises(ClickHouseError, match="quote is not closed") as caught:
        tokens_of(sql)
    assert caught.value.code == 62


def test_error_text_round_trip() -> None:
    error = ClickHouseError(159, "too late")
    assert "Code: 159. DB::Exception: too late (TIMEOUT_EXCEEDED) (version " in error.body()
    again = from_text(error.body())
    assert (again.code, again.message) == (159, "too late (TIMEOUT_EXCEEDED)")
    assert from_text("no code in here").code == 1001

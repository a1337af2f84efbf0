"""Tokens: what is not touched stays as it was sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from standins.clickhouse.errors import ClickHouseError, from_text
from standins.clickhouse.lexer import closing, quote_name, quote_string, render, split_commas, tokens_of, unquote


def texts(sql: str) -> list[str]:
    """Texts of the tokens."""
    return [token.text for token in tokens_of(sql)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a.b >= 'it''s' -- rest\n+ 1.5e3", ["a", ".", "b", ">=", "'it''s'", "+", "1.5e3"]),
        ('`we``ird`."x" /* no */ != 0xFF', ["`we``ird`", ".", '"x"', "!=", "0xFF"]),
        ("x::UInt8 || $tag$ ' $tag$", ["x", "::", "UInt8", "||", "$tag$ ' $tag$"]),
        ("{p:String}", ["{", "p", ":", "String", "}"]),
    ],
)
def test_tokens(sql: str, expected: list[str]) -> None:
    assert texts(sql) == expected


@pytest.mark.parametrize("sql", ["SELECT 'open", "SELECT `open", 'SELECT "open'])
def test_open_quote_is_a_syntax_error(sql: str) -> None:
    with pytest.raises(ClickHouseError, match="quote is not closed") as caught:
        list(tokens_of(sql))
    assert caught.value.code == 62


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30))
def test_quoted_string_is_one_token_with_its_value(value: str) -> None:
    (token,) = tokens_of(quote_string(value))
    assert (token.kind, unquote(token.text)) == ("string", value)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_quoted_name_is_one_token_with_its_name(name: str) -> None:
    (token,) = tokens_of(quote_name(name))
    assert token.name == name


@given(st.lists(st.sampled_from(["a", "'x, y'", "(", ")", "1", "+", "f(1, 2)", "[3, 4]"]), max_size=12))
def test_rendered_tokens_read_back_alike(parts: list[str]) -> None:
    sql = " ".join(parts)
    assert texts(render(tokens_of(sql))) == texts(sql)


def test_commas_inside_brackets_do_not_split() -> None:
    parts = split_commas(list(tokens_of("f(a, b), [c, d], 'e, f', (g)")))
    assert [render(part) for part in parts] == ["f(a, b)", "[c, d]", "'e, f'", "(g)"]


def test_closing_bracket() -> None:
    tokens = list(tokens_of("f(a[1], (b))"))
    assert closing(tokens, 1) == len(tokens) - 1
    with pytest.raises(ClickHouseError, match="Unmatched"):
        closing(list(tokens_of("f(a")), 1)


def test_error_text_round_trip() -> None:
    error = ClickHouseError(159, "too late")
    assert "Code: 159. DB::Exception: too late (TIMEOUT_EXCEEDED) (version " in error.body()
    again = from_text(error.body())
    assert (again.code, again.message) == (159, "too late (TIMEOUT_EXCEEDED)")
    assert from_text("no code in here").code == 1001

"""The language of fault rules is one for all stand-ins: one frame, one set of refusals, one meaning of a pattern."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from standins.clickhouse import faults as clickhouse
from standins.faults import COUNT, SECONDS, FaultRuleError, Field, Kind, Language, fits, is_over
from standins.kubernetes import faults as kubernetes
from standins.temporal import proxy_rules as temporal

LANGUAGES = {
    "clickhouse": (clickhouse.LANGUAGE, {"kind": "reset"}),
    "kubernetes": (kubernetes.LANGUAGE, {"kind": "error"}),
    "temporal": (temporal.LANGUAGE, {"id": "a", "kind": "unavailable"}),
}
OWN = Language(
    {
        "slow": Kind({"seconds": SECONDS, "how": Field(str, choices=("fast", "slow"))}, ("seconds",)),
        "code": Kind({"code": Field(int, 400, 599)}, match={"method": "GET"}),
        "object": Kind({"patch": Field(dict), "on": Field(bool), "n": COUNT}, without=("method",)),
    },
    ("method", "name", "labels.*"),
    main="name",
)


@pytest.mark.parametrize("name", LANGUAGES)
@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"kind": "nothing"}, "kind 'nothing' is unknown; known kinds: "),
        ({"tims": 1}, "field 'tims' is unknown; known fields: kind, match, times, for_seconds"),
        ({"times": -1}, "field 'times' cannot be -1"),
        ({"times": True}, "field 'times' cannot be True"),
        ({"for_seconds": "5"}, "field 'for_seconds' cannot be '5'"),
        ({"match": {"nothing": "x"}}, "match looks at no 'nothing'; it looks at "),
        ({"match": "("}, "is no regular expression"),
        ({"match": 5}, "match cannot be 5"),
    ],
)
def test_all_refuse_the_same_with_the_same_words(name: str, more: dict[str, Any], text: str) -> None:
    language, good = LANGUAGES[name]
    language.check(good)
    with pytest.raises(FaultRuleError) as refused:
        language.check(good | more)
    assert text in str(refused.value)


@pytest.mark.parametrize("name", LANGUAGES)
def test_all_take_the_frame(name: str) -> None:
    language, good = LANGUAGES[name]
    assert language.check(good | {"times": 2, "for_seconds": 0.5, "match": "a|b"})[language.main] == "a|b"


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"kind": "slow"}, "slow: field 'seconds' is missing"),
        ({"kind": "slow", "seconds": 1, "how": "later"}, "it must be one of fast, slow"),
        ({"kind": "code", "code": 600}, "it must be 400 to 599"),
        ({"kind": "code", "code": "500"}, "it must be a whole number"),
        ({"kind": "code", "patch": {}}, "code: field 'patch' is unknown"),
        ({"kind": "object", "match": {"method": "GET"}}, "match looks at no 'method'; it looks at labels, name"),
        ({"kind": "object", "match": {"labels": {"a": "("}}}, "is no regular expression"),
        ({"kind": "object", "on": 1}, "it must be true or false"),
        (["kind"], "kind None is unknown"),
    ],
)
def test_what_a_kind_refuses(rule: Any, text: str) -> None:
    with pytest.raises(FaultRuleError) as refused:
        OWN.check(rule)
    assert text in str(refused.value)


def test_patterns_of_the_kind_hold_unless_the_rule_has_others() -> None:
    assert OWN.check({"kind": "code"}) == {"method": "GET"}
    assert OWN.check({"kind": "code", "match": {"method": "POST", "labels": {"a": "b"}}}) == {
        "method": "POST",
        "labels": {"a": "b"},
    }
    assert OWN.check({"kind": "slow", "seconds": 0, "times": None}) == {}


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_text_fits_the_pattern_made_of_it(text: str, around: str) -> None:
    assert fits(re.escape(text), around + text + around)
    assert fits(re.escape(text), text, whole=True)
    assert fits(None, text)
    assert not fits(re.escape(text), None)


def test_a_rule_is_over_by_time_or_by_hits() -> None:
    rule = {"kind": "x", "times": 2, "for_seconds": 5}
    assert not is_over(rule, 1, 4.9)
    assert is_over(rule, 2, 0)
    assert is_over(rule, 0, 5)
    assert not is_over({"kind": "x"}, 100, 1e9)

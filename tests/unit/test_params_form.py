"""The trigger form: its schema is valid for Airflow's Param, and what is sent is read strictly."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.scorecard_backfill.params.form import ParamsError, RunParams, params_schema

FORM = params_schema()


def problem(sent: dict[str, Any]) -> str:
    with pytest.raises(ParamsError) as caught:
        RunParams.read(sent)
    return str(caught.value)


def test_the_form_has_every_parameter_of_the_design_in_order() -> None:
    assert list(FORM) == [
        "mode",
        "customers",
        "all_customers",
        "start_date",
        "end_date",
        "skip_imported",
        "order",
        "window",
        "max_parallel",
        "overlap",
        "dry_run",
        "require_approval",
        "max_failures",
        "kill_stalled_mutations",
    ]


@pytest.mark.parametrize("name", list(FORM))
def test_a_field_has_a_valid_default_title_text_and_section(name: str) -> None:
    schema = {key: value for key, value in FORM[name].items() if key != "default"}
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(FORM[name]["default"], schema)
    assert schema["title"]
    assert schema["description_md"]
    # What is needed first stands in no section: Airflow shows sections closed.
    needed = ("mode", "customers", "all_customers", "start_date", "end_date")
    assert schema.get("section") in ([None] if name in needed else ["How", "Limits and safety"])


def test_defaults_of_the_form_read_back_are_the_models_defaults() -> None:
    assert RunParams.read({name: schema["default"] for name, schema in FORM.items()}) == RunParams()
    assert (RunParams().mode, RunParams().all_customers, RunParams().require_approval) == ("reindex", False, True)


def test_optional_fields_are_flat_and_take_null() -> None:
    for name in (
        "start_date",
        "end_date",
        "order",
        "window",
        "overlap",
        "dry_run",
        "max_parallel",
        "require_approval",
        "max_failures",
        "customers",
    ):
        assert FORM[name]["type"][0] == "null"
        jsonschema.validate(None, FORM[name])
    assert all("anyOf" not in schema for schema in FORM.values())
    assert FORM["window"]["enum"] == [None, "auto", "month", "10d", "5d", "1d"]
    assert FORM["start_date"]["format"] == "date"


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("max_parallel", [1, 200, None], [0, 201, "5", 1.5]),
        ("max_failures", [1, 1_000, None], [0, 1_001, "5"]),
        ("mode", ["cleanup", "reindex"], ["delete", None, ""]),
        ("window", ["auto", "1d", None], ["2d", "", 1]),
        ("all_customers", [True, False, None], ["true", 1]),
        ("order", ["delete_first", "reindex_first", None], ["sweep", "", 1]),
        ("customers", [["acme"], [], None], ["acme", [1]]),
    ],
)
def test_form_and_model_take_and_refuse_the_same_values(name: str, good: list[Any], bad: list[Any]) -> None:
    schema = {key: value for key, value in FORM[name].items() if key != "default"}
    for value in good:
        jsonschema.validate(value, schema)
        RunParams.read({name: value})
    for value in bad:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, schema)
        assert problem({name: value}).startswith(f"{name}: ")


@pytest.mark.parametrize("value", [None, "", [], [""], (), ["", ""]])
def test_an_emptied_list_of_customers_is_nobody(value: object) -> None:
    assert RunParams.read({"customers": value}).customers == ()


def test_a_text_of_customers_is_not_cut_into_letters() -> None:
    assert "write a list with one id in each place, such as ['acme']" in problem({"customers": "acme"})
    assert "(place 2)" in problem({"customers": ["acme", 3]})


@pytest.mark.parametrize("value", ["", None])
def test_an_emptied_date_is_no_date(value: object) -> None:
    assert RunParams.read({"start_date": value}).start_date is None
    assert "write it as YYYY-MM-DD" in problem({"start_date": 20260101})


@pytest.mark.parametrize("name", ["all_customers", "skip_imported", "overlap", "dry_run", "kill_stalled_mutations"])
def test_an_emptied_switch_is_off(name: str) -> None:
    assert getattr(RunParams.read({name: None}), name) is False


def test_what_the_clusters_file_says_is_shown_where_a_field_may_stay_empty() -> None:
    shown = params_schema({"max_parallel": 7, "window": "5d"})
    assert "Empty: 7 (the cluster's file)." in shown["max_parallel"]["description_md"]
    assert "Empty: 5d (the cluster's file)." in shown["window"]["description_md"]
    assert shown["order"] == FORM["order"]
    for name in ("order", "window", "max_parallel", "max_failures"):
        changed = params_schema({name: "SHOWN"})[name]["description_md"]
        assert "SHOWN" in changed, f"{name}: an empty field does not say what it stands for"


def test_unknown_parameters_are_named_with_the_closest_one() -> None:
    assert problem({"customer": ["acme"]}) == "customer: is not a parameter of a run; did you mean customers?"
    assert "valid: mode, customers, all_customers" in problem({"xyz": 1})


def test_there_is_no_way_to_force_a_verified_window_again() -> None:
    # Doing a verified window again is a new run.
    assert "force" not in FORM
    assert problem({"force": True}).startswith("force: is not a parameter of a run")


def test_all_problems_come_at_once() -> None:
    assert len(problem({"mode": "x", "max_parallel": 0, "zzz": 1}).splitlines()) == 3


JUNK = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.text(max_size=3))


@given(st.dictionaries(st.sampled_from([*FORM, "xyz"]), JUNK, max_size=5))
def test_whatever_is_sent_is_read_or_refused_with_a_sentence_for_each_field(sent: dict[str, Any]) -> None:
    try:
        read = RunParams.read(sent)
    except ParamsError as error:
        named = {text.split(":")[0] for text in error.problems}
    else:
        named = set()
        assert RunParams.read(read.model_dump(mode="json")) == read
    assert named <= set(sent)


def test_known_customers_are_offered_and_others_are_not_refused() -> None:
    field = params_schema(customers=("acme", "globex"))["customers"]
    assert field["examples"] == ["acme", "globex"]
    assert field["type"] == ["null", "array"], "what Airflow's form makes a choice of several of"
    assert "enum" not in field
    assert "enum" not in field["items"]
    assert "*Configuration JSON*" in field["description_md"]
    assert "examples" not in FORM["customers"]

"""The trigger form of a run: one pydantic model, its JSON schema for Airflow, and reading what was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any

from pydantic import Field, Strict, ValidationError, field_validator

from include.scorecard_backfill.config.fields import MAX_FAILURES_LIMIT, Frozen, Order, Parallel, RunMode
from include.scorecard_backfill.planning.windows import WindowMode

_HOW, _SAFETY = "How", "Limits and safety"
"""Sections that Airflow shows closed; what stands in none of them is shown first and open."""


def _form(section: str = "", **extra: Any) -> dict[str, Any]:
    return {"section": section, **extra} if section else extra


FROM_FILE = "Empty: what the cluster's file says."


class ParamsError(ValueError):
    """Parameters that cannot be used; `problems` are sentences with field, value and what would be right."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class RunParams(Frozen):
    """What a person chooses. Every field has a default, so that a schedule can start a run without any."""

    mode: RunMode = Field(
        default="reindex",
        title="Mode",
        description="`cleanup` deletes the rows and reindexes; `reindex` writes again and deletes nothing.",
        json_schema_extra=_form(
            values_display={"cleanup": "cleanup: delete, then reindex", "reindex": "reindex: delete nothing"},
        ),
    )
    customers: Annotated[tuple[str, ...], Strict(False)] = Field(
        default=(),
        title="Customers",
        description="Customer ids, **one in each line**. Empty chooses nobody: see *All customers*.",
        json_schema_extra=_form(),
    )
    all_customers: bool = Field(
        default=False,
        title="All customers",
        description="Every customer of the cluster. Then *Customers* must be empty.",
        json_schema_extra=_form(),
    )
    start_date: str | None = Field(
        default=None,
        title="Start date",
        description="First UTC day, inclusive, as YYYY-MM-DD. Both dates empty: the previous calendar month.",
        json_schema_extra=_form(format="date"),
    )
    end_date: str | None = Field(
        default=None,
        title="End date (exclusive)",
        description="The UTC day **after** the last one, as YYYY-MM-DD: January is 2026-01-01 to 2026-02-01.",
        json_schema_extra=_form(format="date"),
    )
    skip_imported: bool = Field(
        default=False,
        title="Leave out what the scripts did",
        description="With *All customers*: without those of whom the old scripts' imported history calls every day"
        " done. It proves nothing; the plan names them.",
        json_schema_extra=_form(_HOW),
    )
    order: Order | None = Field(
        default=None,
        title="Order",
        description="`delete_first`: rows go, then are written again. `reindex_first`: rows are written again, then"
        " only those that were not go. Empty: what the cluster's file says.",
        json_schema_extra=_form(_HOW),
    )
    window: WindowMode | None = Field(
        default=None,
        title="Window",
        description="Size of a window. `auto`: by volume. Empty: what the cluster's file says.",
        json_schema_extra=_form(_HOW, values_display={"null": "as the cluster's file says"}),
    )
    max_parallel: Parallel | None = Field(
        default=None,
        title="Windows at once",
        description="Windows in flight. Empty: what the cluster's file says.",
        json_schema_extra=_form(_HOW),
    )
    overlap: bool = Field(
        default=False,
        title="Overlap",
        description="Reindex once every host *has* the mutations, not only when they are done; only where "
        "`written_columns` tell old rows from new ones.",
        json_schema_extra=_form(_HOW),
    )
    dry_run: bool = Field(
        default=False,
        title="Dry run",
        description="Plan and show, change nothing.",
        json_schema_extra=_form(_SAFETY),
    )
    require_approval: bool | None = Field(
        default=True,
        title="Ask before deleting",
        description="A person approves the plan before rows are deleted. No effect if nothing is deleted.",
        json_schema_extra=_form(_SAFETY),
    )
    max_failures: Annotated[int, Field(ge=1, le=MAX_FAILURES_LIMIT)] | None = Field(
        default=None,
        title="Stop after failures",
        description="No new window once this many have failed. Empty: what the cluster's file says.",
        json_schema_extra=_form(_SAFETY),
    )
    kill_stalled_mutations: bool = Field(
        default=False,
        title="Kill stalled mutations",
        description="Run KILL MUTATION for an own mutation that has stalled; otherwise it is only shown.",
        json_schema_extra=_form(_SAFETY),
    )

    @field_validator("customers", mode="before")
    @classmethod
    def _nothing_is_nothing(cls, value: object) -> object:
        """None, '', [] and [''] are what an untouched or emptied form sends: nobody."""
        if value is None or value == "":
            return ()
        if isinstance(value, str):
            raise ValueError(f"is a text; write a list with one id in each place, such as [{value!r}]")
        if isinstance(value, (list, tuple)) and all(item == "" for item in value):
            return ()
        return value

    @field_validator("all_customers", "skip_imported", "overlap", "dry_run", "kill_stalled_mutations", mode="before")
    @classmethod
    def _emptied_switch_is_off(cls, value: object) -> object:
        return False if value is None else value

    @field_validator("start_date", "end_date", mode="before")
    @classmethod
    def _empty_date_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @classmethod
    def read(cls, sent: Mapping[str, Any]) -> RunParams:
        """The parameters from a run's conf or from Airflow's merged params.

        Raises:
            ParamsError: unknown fields, wrong types, numbers out of bounds: all of them at once.
        """
        try:
            return cls.model_validate(dict(sent))
        except ValidationError as error:
            problems = error.errors(include_url=False)
            raise ParamsError([_sentence(dict(problem)) for problem in problems]) from None


LISTED = (
    "Customers of the last plan. One that is newer is written into *Configuration JSON*. Empty chooses nobody: see"
    " *All customers*."
)


def params_schema(
    cluster: Mapping[str, object] | None = None, customers: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """For each field, in the form's order, the keywords of an Airflow `Param`: `default` and its JSON schema.

    ``cluster`` are the values of the cluster's file that an empty field stands for; the help shows them. ``customers``
    are those to choose from; without them the form takes ids as text. Optional
    fields have the type ["null", ...], so that the form shows no star, and every default is valid, as a DAG with a
    schedule demands. The dates refuse '' here (format "date"; the form sends null for an emptied date), `RunParams`
    takes it.
    """
    form = {name: _param(schema) for name, schema in deepcopy(_properties()).items()}
    for name, value in (cluster or {}).items():
        shown = f"Empty: {value} (the cluster's file)."
        form[name]["description_md"] = form[name]["description_md"].replace(FROM_FILE, shown)
    if customers:
        # Examples are what Airflow's form offers, and unlike an enum they refuse nothing else.
        form["customers"] |= {"examples": list(customers), "description_md": LISTED}
    return form


@cache
def _properties() -> dict[str, dict[str, Any]]:
    """The model's JSON schema by field: made once, since a DAG file may hold hundreds of forms."""
    properties: dict[str, dict[str, Any]] = RunParams.model_json_schema()["properties"]
    return properties


def _param(schema: dict[str, Any]) -> dict[str, Any]:
    """One field's JSON schema of pydantic in the flat form that Airflow's trigger form understands."""
    branches = schema.pop("anyOf", None)
    if branches is not None:
        value = next(branch for branch in branches if branch.get("type") != "null")
        schema |= {key: content for key, content in value.items() if key != "type"}
        schema["type"] = ["null", value["type"]]
        if "enum" in schema:
            schema["enum"] = [None, *schema["enum"]]
    if schema["type"] in ("array", "boolean"):
        # The form sends null for a list that was emptied again, and shows a star at what may not be null.
        schema["type"] = ["null", schema["type"]]
    schema["description_md"] = schema.pop("description")
    default = schema.pop("default")
    schema["default"] = list(default) if isinstance(default, tuple) else default
    return schema


def _sentence(problem: Mapping[str, Any]) -> str:
    """One problem of pydantic as a sentence with field, value and what would be right."""
    field, *rest = (str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        close = get_close_matches(field, RunParams.model_fields, n=1)
        hint = f"did you mean {close[0]}?" if close else f"valid: {', '.join(RunParams.model_fields)}."
        return f"{field}: is not a parameter of a run; {hint}"
    reason = problem["msg"].removeprefix("Value error, ")
    place = f" (place {int(rest[0]) + 1})" if rest and rest[0].isdigit() else ""
    return f"{field}: {problem['input']!r}{place}: {reason[:1].lower()}{reason[1:]}{_example(field)}."


def _example(field: str) -> str:
    if field in {"start_date", "end_date"}:
        return "; write it as YYYY-MM-DD"
    return ""

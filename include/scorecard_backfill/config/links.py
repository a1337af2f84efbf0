"""Where people look at what a window has started: addresses of other systems' pages, shown as links."""

from __future__ import annotations

import string
from typing import Annotated

from pydantic import AfterValidator, Field

from include.scorecard_backfill.config.fields import Frozen


def _address(*allowed: str) -> AfterValidator:
    def check(value: str) -> str:
        if not value:
            return value
        if not value.startswith(("http://", "https://")):
            raise ValueError("is not an http(s) address")
        named = {name for _, name, _, _ in string.Formatter().parse(value) if name is not None}
        if named - set(allowed):
            raise ValueError(f"names {', '.join(sorted(named - set(allowed)))}; allowed are {', '.join(allowed)}")
        return value

    return AfterValidator(check)


class LinksConfig(Frozen):
    """Addresses with placeholders; empty = the page shows the names instead."""

    temporal_ui: Annotated[str, _address("namespace", "workflow_id")] = Field(
        default="",
        max_length=500,
        description="A workflow in Temporal's UI, with {namespace} and {workflow_id}.",
    )
    mutations: Annotated[str, _address("query")] = Field(
        default="",
        max_length=500,
        description="Where a query of ClickHouse is shown, with {query}: a SQL page, or the HTTP interface itself"
        " (https://host:8443/?query={query}).",
    )
    job: Annotated[str, _address("namespace", "job")] = Field(
        default="", max_length=500, description="A Job in a Kubernetes UI, with {namespace} and {job}."
    )

"""Whom a run tells what, over which of Airflow's connections; nobody by default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict, model_validator

from include.scorecard_backfill.config.fields import ConnId, Frozen, Text

About = Literal["approval", "failed", "breaker", "waits", "finished"]
"""approval: the plan waits for a person. failed: a window has failed for good. breaker: no further window is started.
waits: something is waited for longer than waits_longer_than_minutes. finished: the run has ended, with its totals."""

EVERYTHING: tuple[About, ...] = ("approval", "failed", "breaker", "waits", "finished")


class Channel(Frozen):
    """One way to people. Address, tokens and passwords are in the connection, never here."""

    kind: Literal["webhook", "slack", "smtp"] = Field(
        description="webhook: JSON by HTTP POST. slack: an incoming webhook of Slack. smtp: the notifier of Airflow's"
        " provider."
    )
    conn_id: Annotated[ConnId, Field(min_length=1)] = Field(description="Airflow connection.")
    about: Annotated[tuple[About, ...], Strict(False)] = Field(
        default=EVERYTHING, min_length=1, max_length=5, description="What it is told."
    )
    to: Annotated[tuple[Text, ...], Strict(False)] = Field(
        default=(), max_length=50, description="Addresses of kind smtp; the sender is in its connection."
    )

    @model_validator(mode="after")
    def _addressed(self) -> Channel:
        if self.kind == "smtp" and not self.to:
            raise ValueError("kind smtp has nobody to write to; name addresses in `to`")
        if self.kind != "smtp" and self.to:
            raise ValueError(f"kind {self.kind} knows no addresses; remove `to`, the connection says where")
        return self


class NotifyConfig(Frozen):
    """Messages about runs: one for each cause and run, not for each window."""

    channels: Annotated[tuple[Channel, ...], Strict(False)] = Field(
        default=(), max_length=10, description="Ways to people; empty = nobody is told anything."
    )
    waits_longer_than_minutes: int = Field(
        default=240, ge=1, le=10_080, description="A wait that takes longer is told, once for each stage and reason."
    )

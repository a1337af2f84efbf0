"""What every record is: frozen, with a kind, a version and one JSON form.

A record travels as an XCom, in the task state store, in a trigger's arguments or in an asset's state. Its JSON form
names its ``kind`` and its version ``v``. A record of another version is refused with its version and never read half:
a deferred run may have been begun by another release.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from include.scorecard_backfill.config.fields import Order as Order
from include.scorecard_backfill.jsontext import from_text

VERSION = 1
"""Version of every record's form; a change of any field's meaning or name raises it."""

Stage = Literal["admit", "delete", "wait_mutations", "reindex", "wait_workflows", "verify"]
STAGES: tuple[Stage, ...] = get_args(Stage)

TableName = tuple[str, str]
"""(database, local table)."""

Settled = Literal["", "verified", "cut"]
"""Why a window needs nothing more in this run: it is verified, or its parts do its work."""


class RecordError(ValueError):
    """A value is not the record that is wanted; the text says what it is instead."""


class Part(BaseModel):
    """What records are made of: frozen, no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(Part):
    """Base of what is handed on. Subclasses have a ``kind`` of their own."""

    kind: str
    v: int = VERSION

    @field_validator("v")
    @classmethod
    def _readable(cls, value: int) -> int:
        # Also of a record within a record, which from_json does not see.
        if value != VERSION:
            raise ValueError(f"version {value} of the record cannot be read (this release reads {VERSION})")
        return value

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Return the record of a value of :meth:`to_json`, which may have become JSON text on its way.

        Raises:
            RecordError: nothing there, another kind, another version, or a field that is wrong.
        """
        found = plain(value)
        wanted = cls.model_fields["kind"].default
        if not isinstance(found, Mapping):
            raise RecordError(f"{wanted}: a record is wanted, {type(found).__name__} is there")
        kind, version = found.get("kind"), found.get("v")
        if kind != wanted:
            raise RecordError(f"{wanted}: a record of this kind is wanted, one of kind {kind!r} is there")
        if version != VERSION:
            raise RecordError(
                f"{wanted}: version {version!r} of the record cannot be read (this release reads {VERSION}); finish the"
                " run with the release that began it, or start a new run"
            )
        try:
            return cls.model_validate(dict(found))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
            raise RecordError(f"{wanted}: {wrong}") from None


def plain(value: Any) -> Any:
    """Return a value that may have come as JSON text, encoded once or twice; '' and 'None' (empty templates) are None.

    What a trigger pushes when it ends its task is stored as JSON text, what a worker pushes is not; rendered into a
    trigger's argument the first one has been encoded twice.

    Raises:
        RecordError: text that is not JSON.
    """
    while isinstance(value, str):
        if value in ("", "None"):
            return None
        try:
            value = from_text(value)
        except ValueError as error:
            raise RecordError(f"{value[:80]!r} is not JSON: {error}") from None
    return value

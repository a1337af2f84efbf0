"""Answers that are not a success, as the API server words them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from standins.kubernetes.resources import Obj, ResourceType, Target


class StatusError(Exception):
    """A request that ends with a Status object.

    ``code`` is the HTTP status, ``reason`` the machine-readable word (NotFound, Invalid), ``headers`` are
    added to the answer.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    def body(self) -> Obj:
        """The Status object of this error."""
        status: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        return status


@dataclass(frozen=True)
class Cause:
    """One field error: ``reason`` such as FieldValueInvalid, ``message`` without the field's name."""

    field: str
    reason: str
    message: str


def required(field: str, text: str = "") -> Cause:
    """The cause "Required value" of a missing field."""
    return Cause(field, "FieldValueRequired", "Required value" + (f": {text}" if text else ""))


def invalid_value(field: str, value: object, text: str) -> Cause:
    """The cause "Invalid value" of a field; strings are shown in quotes, other values as they are."""
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown}: {text}")


def _details(resource: ResourceType, name: str | None) -> Obj:
    details: Obj = {"kind": resource.plural}
    if resource.group:
        details["group"] = resource.group
    if name:
        details["name"] = name
    return details


def not_found(resource: ResourceType, name: str) -> StatusError:
    """404 for an object that does not exist."""
    text = f'{resource.qualified} "{name}" not found'
    return StatusError(404, "NotFound", text, _details(resource, name))


def no_such_path() -> StatusError:
    """404 for a path that the server does not know."""
    return StatusError(404, "NotFound", "the server could not find the requested resource")


def method_not_allowed() -> StatusError:
    """405 for a method that the path does not have."""
    text = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", text)


def already_exists(resource: ResourceType, name: str) -> StatusError:
    """409 for the creation of an object whose name is taken."""
    text = f'{resource.qualified} "{name}" already exists'
    return StatusError(409, "AlreadyExists", text, _details(resource, name))


def conflict(resource: ResourceType, name: str) -> StatusError:
    """409 for a change of an object that is not the expected version."""
    text = "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {text}'
    return StatusError(409, "Conflict", message, _details(resource, name))


def unmet(resource: ResourceType, name: str, text: str) -> StatusError:
    """409 for a deletion whose preconditions do not hold; the real server names the kind here, not the resource."""
    message = f'Operation cannot be fulfilled on {resource.qualified_kind} "{name}": {text}'
    return StatusError(409, "Conflict", message, {**_details(resource, name), "kind": resource.kind})


def invalid(resource: ResourceType, name: str, causes: Sequence[Cause]) -> StatusError:
    """422 with one or more field errors."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    details: Obj = {"name": name, "kind": resource.kind}
    if resource.group:
        details["group"] = resource.group
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    message = f'{resource.qualified_kind} "{name}" is invalid: {joined}'
    return StatusError(422, "Invalid", message, details)


def bad_request(message: str) -> StatusError:
    """400 with a text of its own."""
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    """401 for a missing or wrong token."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def forbidden(target: Target, user: str, verb: str) -> StatusError:
    """403 for a right that is missing."""
    resource, name = target.resource, target.name
    what = f'{resource.qualified} "{name}"' if name else resource.qualified
    where = f'in the namespace "{target.namespace}"' if target.namespace else "at the cluster scope"
    text = f'User "{user}" cannot {verb} resource "{target.shown}" in API group "{resource.group}" {where}'
    return StatusError(403, "Forbidden", f"{what} is forbidden: {text}", _details(resource, name))

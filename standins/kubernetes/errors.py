"""Answers that are not a success, as the API server words them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from standins.kubernetes.resources import Obj, ResourceType, Target


class StatusError(Exception):
    """A request that ends with a Status object: the HTTP status, the machine-readable word (NotFound), the text."""

    def __init__(self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = {key: value for key, value in (details or {}).items() if value}

    def response(self) -> Response:
        """The answer with the Status object."""
        status: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status |= {"message": self.message, "reason": self.reason, "code": self.code}
        return JSONResponse(status | ({"details": self.details} if self.details else {}), self.code)


def invalid_value(field: str, value: object, text: str) -> Obj:
    """The cause "Invalid value" of a field; strings are shown in quotes, other values as they are."""
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return {"field": field, "reason": "FieldValueInvalid", "message": f"Invalid value: {shown}: {text}"}


def _about(resource: ResourceType, name: str | None) -> Obj:
    return {"kind": resource.plural, "group": resource.group, "name": name}


def not_found(resource: ResourceType, name: str) -> StatusError:
    """404 for an object that does not exist."""
    return StatusError(404, "NotFound", f'{resource.qualified} "{name}" not found', _about(resource, name))


def already_exists(resource: ResourceType, name: str) -> StatusError:
    """409 for the creation of an object whose name is taken."""
    return StatusError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', _about(resource, name))


def conflict(resource: ResourceType, name: str, text: str, *, of_kind: bool = False) -> StatusError:
    """409 for an object that is not the expected one; ``of_kind``: named by its kind, as a deletion does."""
    what, kind = (resource.qualified_kind, resource.kind) if of_kind else (resource.qualified, resource.plural)
    message = f'Operation cannot be fulfilled on {what} "{name}": {text}'
    return StatusError(409, "Conflict", message, {**_about(resource, name), "kind": kind})


def invalid(resource: ResourceType, name: str, causes: Sequence[Obj]) -> StatusError:
    """422 with one or more field errors."""
    texts = [f"{cause['field']}: {cause['message']}" for cause in causes]
    joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    message = f'{resource.qualified_kind} "{name}" is invalid: {joined}'
    details = {**_about(resource, name), "kind": resource.kind, "causes": list(causes)}
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
    return StatusError(403, "Forbidden", f"{what} is forbidden: {text}", _about(resource, name))

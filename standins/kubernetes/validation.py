"""Which objects the server takes: the published schema, the rules beyond it, and what no Job is run with here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import kubernetes_validate
from jsonschema import Draft202012Validator

from standins.kubernetes import errors
from standins.kubernetes.defaults import selector_of
from standins.kubernetes.errors import invalid_value
from standins.kubernetes.resources import CRONJOBS, JOBS, Obj, ResourceType

SCHEMA_VERSION = "1.37"
"""The Kubernetes version whose schema is used: the newest in kubernetes-validate 1.37."""
_IMMUTABLE_JOB_FIELDS = ("completions", "selector", "template", "completionMode")
_COUNTS = ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"
_NAME_PART = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = {"pattern": rf"^({_SUBDOMAIN}/)?{_NAME_PART}\Z"}
_LABELS = {"propertyNames": _KEY, "additionalProperties": {"pattern": rf"^({_NAME_PART})?\Z"}}


def _nested(*path: str, last: Obj) -> Obj:
    """A schema that holds for what lies at a path of properties."""
    for part in reversed(path):
        last = {"properties": {part: last}}
    return last


_CONTAINER = {"required": ["image"], "properties": {"name": {"pattern": rf"^{_DNS_LABEL}\Z", "maxLength": 63}}}
_JOB_SPEC = {
    "allOf": [
        {"properties": {key: {"minimum": 0} for key in _COUNTS}},
        _nested("template", "metadata", "labels", last=_LABELS),
        _nested("template", "spec", "restartPolicy", last={"enum": ["OnFailure", "Never"]}),
        _nested("template", "spec", "containers", last={"minItems": 1, "items": _CONTAINER}),
    ]
}
_RULES = {
    "allOf": [
        _nested("metadata", last={"required": ["name"]}),
        _nested("metadata", "name", last={"pattern": rf"^{_SUBDOMAIN}\Z", "maxLength": 253}),
        _nested("metadata", "labels", last=_LABELS),
        _nested("metadata", "annotations", last={"propertyNames": _KEY}),
    ]
}
_RULES_OF = {JOBS: _nested("spec", last=_JOB_SPEC), CRONJOBS: _nested("spec", "jobTemplate", "spec", last=_JOB_SPEC)}
_NOT_SIMULATED = ("podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "maxFailedIndexes")
_RUN = {
    "allOf": [
        {"properties": {key: {"type": "null"} for key in _NOT_SIMULATED}},
        _nested("manualSelector", last={"enum": [None, False]}),
        _nested("managedBy", last={"enum": [None, "kubernetes.io/job-controller"]}),
        _nested("completionMode", last={"const": "NonIndexed"}),
        _nested("template", "spec", "restartPolicy", last={"enum": ["Always", "Never"]}),
        _nested("template", "spec", "initContainers", last={"maxItems": 0}),
        _nested("template", "spec", "containers", last={"items": _nested("restartPolicy", last={"type": "null"})}),
    ]
}
"""What a CronJob's template may lack, and a Job may not."""


def check_schema(resource: ResourceType, obj: Obj) -> None:
    """Check the raw object against the published schema; unknown fields are errors.

    Raises StatusError 400 (cannot be decoded) or 422 (a rule is broken).
    """
    version, kind = obj.get("apiVersion", resource.api_version), obj.get("kind", resource.kind)
    what = f'{kind} in version "{str(version).rpartition("/")[2]}" cannot be handled as a {resource.kind}'
    if (version, kind) != (resource.api_version, resource.kind):
        raise errors.bad_request(f'{what}: no kind "{kind}" is registered for version "{version}"')
    document = {**obj, "apiVersion": resource.api_version, "kind": resource.kind}
    try:
        kubernetes_validate.validate(document, SCHEMA_VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        field = _dotted(error.absolute_path)
        if error.validator in ("additionalProperties", "type"):
            raise errors.bad_request(f"{what}: {field}: {error.message}") from error
        cause = invalid_value(field, error.instance, error.message)
        raise errors.invalid(resource, str(obj.get("metadata", {}).get("name") or ""), [cause]) from error


def _dotted(path: Iterable[object]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def broken(schema: Obj, obj: Obj) -> Iterator[Obj]:
    """The broken rules of an object; a label is named by the field of all labels, as the server does."""
    for error in Draft202012Validator(schema).iter_errors(obj):
        field = re.sub(r"(labels|annotations)\..*", r"\1", _dotted(error.absolute_path))
        yield invalid_value(field.replace("template.metadata.labels", "template.labels"), error.instance, error.message)


def check_rules(resource: ResourceType, obj: Obj) -> None:
    """Check a completed object against the rules beyond the schema.

    Raises StatusError 422 with every broken rule.
    """
    causes = [*broken(_RULES, obj), *broken(_RULES_OF.get(resource, {}), obj)]
    if resource is JOBS:
        causes += _job_causes(obj)
        text = "Forbidden: the sandbox does not simulate this field"
        not_run = broken(_nested("spec", last=_RUN), obj)
        causes += [{**cause, "reason": "FieldValueForbidden", "message": text} for cause in not_run]
    if causes:
        raise errors.invalid(resource, obj["metadata"].get("name", ""), causes)


def _job_causes(job: Obj) -> Iterator[Obj]:
    if job["spec"]["selector"] != selector_of(job):
        yield invalid_value("spec.selector", job["spec"]["selector"], "`selector` not auto-generated")
    names = [container["name"] for container in job["spec"]["template"]["spec"].get("containers") or []]
    for name in {name for name in names if names.count(name) > 1}:
        yield invalid_value("spec.template.spec.containers", name, "is the name of more than one container")


def check_update(resource: ResourceType, current: Obj, new: Obj) -> None:
    """Refuse a change of a field that cannot be changed. Raises StatusError 422."""
    causes = [
        invalid_value(f"spec.{field}", new["spec"].get(field), "field is immutable")
        for field in _IMMUTABLE_JOB_FIELDS
        if resource is JOBS and current["spec"].get(field) != new["spec"].get(field)
    ]
    if causes:
        raise errors.invalid(resource, current["metadata"]["name"], causes)

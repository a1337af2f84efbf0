"""Which objects the server takes: the published schema and the rules beyond it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import kubernetes_validate

from standins.kubernetes import errors
from standins.kubernetes.defaults import PREFIX, job_labels
from standins.kubernetes.errors import Cause, StatusError, invalid_value, required
from standins.kubernetes.resources import CRONJOBS, JOBS, Obj, ResourceType

SCHEMA_VERSION = "1.37"
"""The Kubernetes version whose schema is used: the newest in kubernetes-validate 1.37."""
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NOT_SIMULATED = ("podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "maxFailedIndexes", "manualSelector")
_IMMUTABLE_JOB_FIELDS = ("completions", "selector", "template", "completionMode")
_COUNTS = ("parallelism", "completions", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished")


@dataclass(frozen=True)
class Format:
    """How a name or a label must be written."""

    what: str
    pattern: str
    length: int = 63

    def causes(self, field: str, value: str, part: str = "") -> Iterator[Cause]:
        """What is wrong with a value; ``part`` stands before the text."""
        if len(value) > self.length:
            yield invalid_value(field, value, f"{part}must be no more than {self.length} bytes")
        if not re.fullmatch(self.pattern, value):
            yield invalid_value(field, value, f"{part}{self.what} (regex used for validation is '{self.pattern}')")


NAME = Format("a lowercase RFC 1123 subdomain", rf"{_DNS_LABEL}(\.{_DNS_LABEL})*", length=253)
CONTAINER_NAME = Format("a lowercase RFC 1123 label", _DNS_LABEL)
LABEL_KEY = Format("must be a qualified name", r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
LABEL_VALUE = Format("a valid label", r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


def check_schema(resource: ResourceType, obj: Obj) -> None:
    """Check the raw object against the schema; unknown fields are errors.

    Raises StatusError 400 (cannot be decoded) or 422 (a rule is broken).
    """
    version, kind = obj.get("apiVersion", resource.api_version), obj.get("kind", resource.kind)
    if (version, kind) != (resource.api_version, resource.kind):
        raise errors.bad_request(
            f'{kind} in version "{str(version).rpartition("/")[2]}" cannot be handled as a {resource.kind}: '
            f'no kind "{kind}" is registered for version "{version}" in scheme "pkg/runtime/scheme.go:111"'
        )
    document = {**obj, "apiVersion": resource.api_version, "kind": resource.kind}
    try:
        kubernetes_validate.validate(document, SCHEMA_VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise _schema_error(resource, obj, error) from error


def _schema_error(resource: ResourceType, obj: Obj, error: Any) -> StatusError:
    field = _dotted(error.absolute_path)
    decode = f'{resource.kind} in version "v1" cannot be handled as a {resource.kind}: '
    if error.validator == "additionalProperties":
        path = ".".join(filter(None, (field, re.findall(r"'([^']*)'", error.message)[-1])))
        return errors.bad_request(f'{decode}strict decoding error: unknown field "{path}"')
    if error.validator == "type":
        found = {"str": "string", "int": "number", "float": "number", "list": "array", "dict": "object"}
        kind = found.get(type(error.instance).__name__, type(error.instance).__name__)
        text = f"cannot unmarshal {kind} into Go struct field .{field} of type {error.validator_value}"
        return errors.bad_request(f"{decode}json: {text}")
    name = str(obj.get("metadata", {}).get("name") or "")
    return errors.invalid(resource, name, [invalid_value(field, error.instance, error.message)])


def _dotted(path: Iterable[object]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def check_rules(resource: ResourceType, obj: Obj) -> None:
    """Check a completed object against the rules beyond the schema.

    Raises StatusError 422 with every broken rule.
    """
    causes = list(_meta_causes(obj["metadata"]))
    if resource is JOBS:
        causes += [*_job_causes(obj), *_not_run_causes(obj["spec"])]
    elif resource is CRONJOBS:
        causes += _job_spec_causes(obj["spec"]["jobTemplate"]["spec"], "spec.jobTemplate.spec")
    if causes:
        raise errors.invalid(resource, obj["metadata"].get("name", ""), causes)


def _meta_causes(meta: Obj) -> Iterator[Cause]:
    if not meta.get("name"):
        yield required("metadata.name", "name or generateName is required")
    else:
        yield from NAME.causes("metadata.name", meta["name"])
    yield from label_causes("metadata.labels", meta.get("labels", {}))
    for key in meta.get("annotations", {}):
        yield from _key_causes("metadata.annotations", key)


def _key_causes(field: str, key: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if slash:
        yield from NAME.causes(field, prefix, "prefix part ")
    yield from LABEL_KEY.causes(field, name, "name part ")


def label_causes(field: str, labels: Obj) -> Iterator[Cause]:
    """The broken rules of a set of labels: keys are qualified names, values have 63 characters at most."""
    for key, value in labels.items():
        yield from _key_causes(field, key)
        yield from LABEL_VALUE.causes(field, value)


def _job_causes(job: Obj) -> Iterator[Cause]:
    spec, meta = job["spec"], job["metadata"]
    yield from _job_spec_causes(spec, "spec")
    labels = spec["template"].get("metadata", {}).get("labels", {})
    for key, value in job_labels(meta.get("name", ""), meta["uid"]).items():
        if labels.get(key) != value:
            yield invalid_value("spec.template.metadata.labels", labels, f"must be '{value}'")
    if spec["selector"] != {"matchLabels": {PREFIX + "controller-uid": meta["uid"]}}:
        yield invalid_value("spec.selector", spec["selector"], "`selector` not auto-generated")


def _job_spec_causes(spec: Obj, path: str) -> Iterator[Cause]:
    for field in _COUNTS:
        if spec.get(field) is not None and spec[field] < 0:
            yield invalid_value(f"{path}.{field}", spec[field], "must be greater than or equal to 0")
    template = spec.get("template", {})
    yield from label_causes(f"{path}.template.labels", template.get("metadata", {}).get("labels", {}))
    pod = template.get("spec", {})
    if pod.get("restartPolicy") == "Always":
        yield required(f"{path}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    yield from _pod_causes(pod, f"{path}.template.spec")


def _not_run_causes(spec: Obj) -> Iterator[Cause]:
    """Fields that a CronJob's template may hold, but that no Job is run with here."""
    fields = [field for field in _NOT_SIMULATED if spec.get(field)]
    pod = spec["template"]["spec"]
    if pod["restartPolicy"] not in ("Never", "Always"):
        fields.append("template.spec.restartPolicy")
    if pod.get("initContainers"):
        fields.append("template.spec.initContainers")
    if any("restartPolicy" in container for container in pod.get("containers") or []):
        fields.append("template.spec.containers[*].restartPolicy")
    if spec["completionMode"] != "NonIndexed":
        fields.append("completionMode")
    if spec.get("managedBy", "kubernetes.io/job-controller") != "kubernetes.io/job-controller":
        fields.append("managedBy")
    for field in fields:
        yield Cause(f"spec.{field}", "FieldValueForbidden", "Forbidden: the sandbox does not simulate this field")


def _pod_causes(spec: Obj, path: str) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    seen: set[str] = set()
    for index, container in enumerate(spec.get("containers") or []):
        field, name = f"{path}.containers[{index}]", container["name"]
        yield from CONTAINER_NAME.causes(f"{field}.name", name)
        if name in seen:
            yield Cause(f"{field}.name", "FieldValueDuplicate", f'Duplicate value: "{name}"')
        seen.add(name)
        if not container.get("image"):
            yield required(f"{field}.image")


def check_update(resource: ResourceType, current: Obj, new: Obj) -> None:
    """Refuse a change of a field that cannot be changed. Raises StatusError 422."""
    causes = [
        invalid_value(f"spec.{field}", new["spec"].get(field), "field is immutable")
        for field in _IMMUTABLE_JOB_FIELDS
        if resource is JOBS and current["spec"].get(field) != new["spec"].get(field)
    ]
    if causes:
        raise errors.invalid(resource, current["metadata"]["name"], causes)

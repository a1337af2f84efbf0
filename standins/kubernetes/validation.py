"""Which objects the server takes: the published schema and the rules beyond it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import kubernetes_validate

from standins.kubernetes import errors
from standins.kubernetes.defaults import job_labels
from standins.kubernetes.errors import Cause, StatusError, invalid_value, required, unsupported
from standins.kubernetes.resources import CRONJOBS, JOBS, NAMESPACES, PODS, SECRETS, Obj, ResourceType

SCHEMA_VERSION = "1.37"
"""The Kubernetes version whose schema is used: the newest in kubernetes-validate 1.37."""
LABEL_LENGTH = 63
NAME_LENGTH = 253
CRONJOB_NAME_LENGTH = 52  # 63 less the 11 characters that the CronJob controller adds
_LABEL_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '"
    + _SUBDOMAIN
    + "')"
)
_DNS_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character "
    "(e.g. 'my-name',  or '123-abc', regex used for validation is '" + _DNS_LABEL + "')"
)
_LABEL_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character "
    "(e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '" + _LABEL_VALUE + "')"
)
_QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '" + _QUALIFIED + "')"
)
_NOT_SIMULATED = ("podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "maxFailedIndexes")
_IMMUTABLE_JOB_FIELDS = ("completions", "selector", "template", "completionMode", "manualSelector")


def check_schema(resource: ResourceType, obj: Obj, strict: bool) -> None:
    """Check the raw object against the schema.

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
        kubernetes_validate.validate(document, SCHEMA_VERSION, strict=strict)
    except kubernetes_validate.ValidationError as error:
        raise _schema_error(resource, obj, error) from error


def _schema_error(resource: ResourceType, obj: Obj, error: Any) -> StatusError:
    field = _dotted(error.absolute_path)
    decode = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
    if error.validator == "additionalProperties":
        name = re.findall(r"'([^']*)'", error.message)[-1]
        path = f"{field}.{name}" if field else name
        return errors.bad_request(f'{decode}strict decoding error: unknown field "{path}"')
    if error.validator == "type":
        found = {"str": "string", "int": "number", "float": "number", "list": "array", "dict": "object"}
        kind = found.get(type(error.instance).__name__, type(error.instance).__name__)
        wanted = error.validator_value
        return errors.bad_request(
            f"{decode}json: cannot unmarshal {kind} into Go struct field .{field} of type {wanted}"
        )
    name = str(obj.get("metadata", {}).get("name") or "")
    if error.validator == "required":
        missing = re.findall(r"'([^']*)'", error.message)[0]
        return errors.invalid(resource, name, [required(f"{field}.{missing}" if field else missing)])
    if error.validator == "enum":
        allowed = [str(value) for value in error.validator_value]
        return errors.invalid(resource, name, [unsupported(field, error.instance, allowed)])
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
    causes = list(_meta_causes(resource, obj["metadata"]))
    if resource is JOBS:
        causes += [*_job_causes(obj), *_not_run_causes(obj["spec"])]
    elif resource is CRONJOBS:
        causes += _cronjob_causes(obj)
    elif resource is PODS:
        causes += _pod_causes(obj["spec"], "spec")
    elif resource is SECRETS:
        causes += [required(f"data[{key}]") for key in obj.get("data", {}) if not re.fullmatch(r"[-._a-zA-Z0-9]+", key)]
    if causes:
        raise errors.invalid(resource, obj["metadata"].get("name", ""), causes)


def _meta_causes(resource: ResourceType, meta: Obj) -> Iterator[Cause]:
    name = meta.get("name", "")
    if not name:
        yield required("metadata.name", "name or generateName is required")
    elif resource is NAMESPACES:
        yield from _format_causes("metadata.name", name, _DNS_LABEL, _DNS_LABEL_TEXT, LABEL_LENGTH)
    else:
        yield from _format_causes("metadata.name", name, _SUBDOMAIN, _SUBDOMAIN_TEXT, NAME_LENGTH)
    yield from label_causes("metadata.labels", meta.get("labels", {}))
    for key in meta.get("annotations", {}):
        yield from _key_causes("metadata.annotations", key)
    references = meta.get("ownerReferences", [])
    for index, reference in enumerate(references):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not reference.get(field):
                yield invalid_value(f"metadata.ownerReferences[{index}].{field}", "", f"{field} must not be empty")
    if sum(bool(reference.get("controller")) for reference in references) > 1:
        yield invalid_value("metadata.ownerReferences", "...", "Only one reference can have Controller set to true")


def _format_causes(field: str, value: str, pattern: str, text: str, length: int) -> Iterator[Cause]:
    if len(value) > length:
        yield invalid_value(field, value, f"must be no more than {length} bytes")
    if not re.fullmatch(pattern, value):
        yield invalid_value(field, value, text)


def _key_causes(field: str, key: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if slash:
        yield from _format_causes(field, prefix, _SUBDOMAIN, "prefix part " + _SUBDOMAIN_TEXT, NAME_LENGTH)
    if len(name) > LABEL_LENGTH:
        yield invalid_value(field, key, f"name part must be no more than {LABEL_LENGTH} bytes")
    if not re.fullmatch(_QUALIFIED, name):
        yield invalid_value(field, key, _QUALIFIED_TEXT)


def label_causes(field: str, labels: Obj) -> Iterator[Cause]:
    """The broken rules of a set of labels: keys are qualified names, values have 63 characters at most."""
    for key, value in labels.items():
        yield from _key_causes(field, key)
        yield from _format_causes(field, value, _LABEL_VALUE, _LABEL_TEXT, LABEL_LENGTH)


def _job_causes(job: Obj) -> Iterator[Cause]:
    spec, meta = job["spec"], job["metadata"]
    yield from _job_spec_causes(spec, "spec")
    if spec.get("manualSelector"):
        if "selector" not in spec:
            yield required("spec.selector")
        return
    labels = spec["template"].get("metadata", {}).get("labels", {})
    for key, value in job_labels(meta.get("name", ""), meta["uid"]).items():
        if labels.get(key) != value:
            yield invalid_value("spec.template.metadata.labels", labels, f"must be '{value}'")
    wanted = {"batch.kubernetes.io/controller-uid": meta["uid"]}
    legacy = {"controller-uid": meta["uid"]}
    if spec["selector"] not in ({"matchLabels": wanted}, {"matchLabels": legacy}):
        yield invalid_value("spec.selector", spec["selector"], "`selector` not auto-generated")


def _job_spec_causes(spec: Obj, path: str) -> Iterator[Cause]:
    for field in (
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
    ):
        if spec.get(field) is not None and spec[field] < 0:
            yield invalid_value(f"{path}.{field}", spec[field], "must be greater than or equal to 0")
    template = spec.get("template", {})
    yield from label_causes(f"{path}.template.labels", template.get("metadata", {}).get("labels", {}))
    policy = template.get("spec", {}).get("restartPolicy")
    if policy == "Always":
        yield required(f"{path}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        yield unsupported(f"{path}.template.spec.restartPolicy", policy, ["OnFailure", "Never"])
    yield from _pod_causes(template.get("spec", {}), f"{path}.template.spec")


def _not_run_causes(spec: Obj) -> Iterator[Cause]:
    """Fields that a CronJob's template may hold, but that no Job is run with here."""
    fields = [field for field in _NOT_SIMULATED if spec.get(field) is not None]
    if spec.get("completionMode", "NonIndexed") != "NonIndexed":
        fields.append("completionMode")
    if spec.get("managedBy", "kubernetes.io/job-controller") != "kubernetes.io/job-controller":
        fields.append("managedBy")
    for field in fields:
        yield Cause(f"spec.{field}", "FieldValueForbidden", "Forbidden: the sandbox does not simulate this field")


def _cronjob_causes(cronjob: Obj) -> Iterator[Cause]:
    spec = cronjob["spec"]
    if len(cronjob["metadata"].get("name", "")) > CRONJOB_NAME_LENGTH:
        text = f"must be no more than {CRONJOB_NAME_LENGTH} bytes"
        yield invalid_value("metadata.name", cronjob["metadata"]["name"], text)
    if len(str(spec.get("schedule", "")).split()) != 5 and not str(spec.get("schedule", "")).startswith("@"):
        yield invalid_value("spec.schedule", spec.get("schedule", ""), "expected exactly 5 fields")
    if spec["concurrencyPolicy"] not in ("Allow", "Forbid", "Replace"):
        yield unsupported("spec.concurrencyPolicy", spec["concurrencyPolicy"], ["Allow", "Forbid", "Replace"])
    yield from _job_spec_causes(spec.get("jobTemplate", {}).get("spec", {}), "spec.jobTemplate.spec")


def _pod_causes(spec: Obj, path: str) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield required(f"{path}.containers")
    seen: set[str] = set()
    listed = [
        (f"{path}.{kind}[{index}]", container)
        for kind in ("initContainers", "containers")
        for index, container in enumerate(spec.get(kind) or [])
    ]
    for field, container in listed:
        name = container.get("name", "")
        if not name:
            yield required(f"{field}.name")
        else:
            yield from _format_causes(f"{field}.name", name, _DNS_LABEL, _DNS_LABEL_TEXT, LABEL_LENGTH)
        if name in seen:
            yield Cause(f"{field}.name", "FieldValueDuplicate", f'Duplicate value: "{name}"')
        seen.add(name)
        if not container.get("image"):
            yield required(f"{field}.image")
        yield from _restart_causes(container.get("restartPolicy"), field)
        yield from _env_causes(container.get("env") or [], f"{field}.env")


def _restart_causes(policy: str | None, field: str) -> Iterator[Cause]:
    """Kubernetes 1.35 lets every container have a policy of its own; here only an init container may, and Always."""
    if policy not in (None, "Always", "Never", "OnFailure"):
        yield unsupported(f"{field}.restartPolicy", policy, ["Always", "Never", "OnFailure"])
    elif policy is not None and (policy != "Always" or ".initContainers[" not in field):
        text = "Forbidden: the sandbox does not simulate the restart policy of a single container"
        yield Cause(f"{field}.restartPolicy", "FieldValueForbidden", text)


def _env_causes(env: list[Obj], path: str) -> Iterator[Cause]:
    for index, variable in enumerate(env):
        if not variable.get("name"):
            yield required(f"{path}[{index}].name")
        elif "=" in variable["name"]:
            text = "environment variable names must be printable ASCII characters except '='"
            yield invalid_value(f"{path}[{index}].name", variable["name"], text)
        if variable.get("value") and variable.get("valueFrom"):
            yield invalid_value(f"{path}[{index}].valueFrom", "", "may not be specified when `value` is not empty")


def check_update(resource: ResourceType, current: Obj, new: Obj) -> None:
    """Refuse a change of a field that cannot be changed. Raises StatusError 422."""
    causes: list[Cause] = []
    old_spec, new_spec = current.get("spec", {}), new.get("spec", {})
    if resource is JOBS:
        causes = [
            invalid_value(f"spec.{field}", new_spec.get(field), "field is immutable")
            for field in _IMMUTABLE_JOB_FIELDS
            if old_spec.get(field) != new_spec.get(field)
        ]
    elif resource is PODS and old_spec != new_spec:
        text = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
        causes = [Cause("spec", "FieldValueForbidden", text)]
    if causes:
        raise errors.invalid(resource, current["metadata"]["name"], causes)

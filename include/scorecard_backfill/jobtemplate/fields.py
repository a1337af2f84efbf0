"""The table of every field of a Job's template. It promises one pod, once, with the window of the Job.

A field that is not in the table is refused: nobody has looked at what it does to that promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Treatment = Literal["kept", "checked", "set", "refused"]
"""kept = goes into the Job as it is; checked = kept, but some values are refused; set = the Job has our value, or none;
refused = a template that uses it cannot serve."""

JOB_META = "metadata"
JOB_SPEC = "spec"
POD_META = "spec.template.metadata"
POD_SPEC = "spec.template.spec"
CONTAINERS = "spec.template.spec.containers[]"
INIT_CONTAINERS = "spec.template.spec.initContainers[]"
LEVELS = (JOB_META, JOB_SPEC, "spec.template", POD_META, POD_SPEC, CONTAINERS, INIT_CONTAINERS)
"""The objects whose fields are looked at one by one, as paths below ``spec.jobTemplate`` of the CronJob."""


@dataclass(frozen=True, slots=True)
class TemplateField:
    """One field. ``path`` lies below the CronJob's ``spec.jobTemplate``; ``why`` says what the treatment rests on."""

    path: str
    treatment: Treatment
    why: str

    @property
    def level(self) -> str:
        """The object that the field belongs to."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The field's own name."""
        return self.path.rpartition(".")[2]


def _rows(level: str, treatment: Treatment, why: str, names: str) -> Iterable[TemplateField]:
    return [TemplateField(f"{level}.{name}", treatment, why) for name in names.split()]


_IDENTITY = "belongs to one stored object; Kubernetes' own controllers do not take it from a template either"
_IDENTITY_NAMES = (
    "creationTimestamp deletionGracePeriodSeconds deletionTimestamp generateName generation managedFields name"
    " namespace ownerReferences resourceVersion selfLink uid"
)
_INDEXED = "divides the work among pods by an index, of which a Job of one window has none"
_RUNS = "has no part in how often the program runs, and with what window"
_PLACE = "decides where and when the pod may start; one that cannot start ends at the start-up limit with its reason"

_CONTAINER_KEPT = (
    "image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resizePolicy resources securityContext"
    " startupProbe stdin stdinOnce terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts"
    " workingDir"
)
_WORDS = (
    "refused when it holds a template expression, which would reach the program as it is, or names a day, a customer or"
    " one of the window's variables otherwise than by its value"
)
_ENV = (
    "the window's variables are set first, in every container, and replace the template's; any other is refused when"
    " it holds a template expression or names another window"
)
_ENV_FROM = (
    "a variable under env wins over one that comes from there, and the window's are under env, with the program's own"
    " clean-up switched off"
)


def _container(level: str) -> Iterable[TemplateField]:
    yield from _rows(level, "checked", _WORDS, "command args")
    yield from _rows(level, "checked", _ENV, "env")
    yield from _rows(level, "kept", _ENV_FROM, "envFrom")
    yield from _rows(level, "kept", _RUNS, _CONTAINER_KEPT)
    yield from _rows(level, "refused", "would start a container a second time in its pod", "restartPolicyRules")


def _job_fields() -> Iterable[TemplateField]:
    yield from _rows(JOB_META, "kept", "beside ours, which win", "labels annotations")
    yield from _rows(JOB_META, "set", f"none: {_IDENTITY}", f"finalizers {_IDENTITY_NAMES}")
    yield from _rows(JOB_SPEC, "set", "`kubernetes.deadline_seconds`", "activeDeadlineSeconds")
    yield from _rows(JOB_SPEC, "set", "0: a second pod would write beside the first one's workflows", "backoffLimit")
    yield from _rows(JOB_SPEC, "refused", _INDEXED, "backoffLimitPerIndex maxFailedIndexes successPolicy")
    yield from _rows(JOB_SPEC, "checked", f"NonIndexed only: Indexed {_INDEXED}", "completionMode")
    yield from _rows(
        JOB_SPEC, "set", "1: all pods get the same window, so that one of them does all of it", "completions"
    )
    yield from _rows(
        JOB_SPEC, "set", "1, for the same reason; below 1 is refused, since no pod would start", "parallelism"
    )
    yield from _rows(JOB_SPEC, "set", "none: with backoffLimit 0 only its Ignore could do anything, and that is a"
                     " second pod", "podFailurePolicy")  # fmt: skip
    yield from _rows(JOB_SPEC, "kept", "with backoffLimit 0 no pod is replaced, whatever it says",
                     "podReplacementPolicy")  # fmt: skip
    yield from _rows(
        JOB_SPEC, "checked", "only kubernetes.io/job-controller: another controller makes pods by its own rules",
        "managedBy",
    )  # fmt: skip
    yield from _rows(JOB_SPEC, "set", "none: the server makes one; a foreign one could count other Jobs' pods",
                     "selector manualSelector")  # fmt: skip
    yield from _rows(
        JOB_SPEC, "checked", "kept when the template names a queue (label kueue.x-k8s.io/queue-name), which starts the"
        " Job in its turn; refused without one, since nobody would start it", "suspend",
    )  # fmt: skip
    yield from _rows(JOB_SPEC, "set", "`kubernetes.ttl_seconds_after_finished`", "ttlSecondsAfterFinished")
    yield from _rows(JOB_SPEC, "kept", "see its parts", "template")


def _pod_fields() -> Iterable[TemplateField]:
    yield from _rows("spec.template", "kept", "see its parts", "metadata spec")
    yield from _rows(POD_META, "kept", "beside ours, which win; labels of another Job's controller are left out",
                     "labels annotations")  # fmt: skip
    yield from _rows(POD_META, "kept", "Kubernetes copies them to the pod", "finalizers")
    yield from _rows(POD_META, "set", f"none: {_IDENTITY}", _IDENTITY_NAMES)
    yield from _rows(POD_SPEC, "set", "Never: OnFailure starts the program again in the same pod", "restartPolicy")
    yield from _rows(POD_SPEC, "kept", "each is looked at; the one with our program is `kubernetes.container`, or what"
                     " kubectl's default-container annotation names, or the first", "containers")  # fmt: skip
    yield from _rows(POD_SPEC, "kept", "each is looked at and gets the window, too; native sidecars are fine",
                     "initContainers")  # fmt: skip
    yield from _rows(POD_SPEC, "refused", "may not stand in a template", "ephemeralContainers")
    yield from _rows(POD_SPEC, "refused", "a group starts together with other pods", "schedulingGroup workloadRef")
    yield from _rows(POD_SPEC, "kept", "an earlier end of the pod is a failed Job with that reason",
                     "activeDeadlineSeconds")  # fmt: skip
    yield from _rows(
        POD_SPEC, "kept", _PLACE,
        "affinity nodeName nodeSelector overhead os preemptionPolicy priority priorityClassName readinessGates"
        " resourceClaims resources runtimeClassName schedulerName schedulingGates tolerations"
        " topologySpreadConstraints",
    )  # fmt: skip
    yield from _rows(
        POD_SPEC, "kept", _RUNS,
        "automountServiceAccountToken dnsConfig dnsPolicy enableServiceLinks hostAliases hostIPC hostNetwork hostPID"
        " hostUsers hostname hostnameOverride imagePullSecrets securityContext serviceAccount serviceAccountName"
        " setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds volumes",
    )  # fmt: skip


def _all() -> Iterable[TemplateField]:
    yield from _job_fields()
    yield from _pod_fields()
    yield from _container(CONTAINERS)
    yield from _rows(
        CONTAINERS, "checked", "only Never: anything else starts the program again in the same pod", "restartPolicy"
    )
    yield from _container(INIT_CONTAINERS)
    yield from _rows(
        INIT_CONTAINERS, "checked", "Always makes it a native sidecar, which ends with the pod's own containers;"
        " OnFailure is refused, it starts the program again", "restartPolicy",
    )  # fmt: skip


FIELDS: tuple[TemplateField, ...] = tuple(_all())
"""Every field that is known, each once."""

BY_PATH: Mapping[str, TemplateField] = {field.path: field for field in FIELDS}

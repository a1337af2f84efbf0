"""What is wrong with a jobTemplate, and what a Job changes of it, by the table of fields."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from include.scorecard_backfill.foreign import Manifest
from include.scorecard_backfill.jobtemplate.fields import (
    BY_PATH,
    CONTAINERS,
    INIT_CONTAINERS,
    JOB_META,
    JOB_SPEC,
    POD_META,
    POD_SPEC,
)

ENV_START = "REINDEX_START_TIME"
ENV_END = "REINDEX_END_TIME"
ENV_CUSTOMERS = "RUN_ONLY_FOR_CUSTOMER_IDS"
ENV_CLEAN_UP = "REINDEX_SCORECARDS_CLEAN_UP_BEFORE_WRITE"
"""Has the program delete rows by itself, past the plan that a person has approved."""
WINDOW_ENV = frozenset({ENV_START, ENV_END, ENV_CUSTOMERS})

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
"""Annotation of a pod by which its template names the main one of several containers."""

QUEUE_NAME = "kueue.x-k8s.io/queue-name"
"""Label by which Kueue takes a Job into a queue; it suspends the Job and resumes it when there is room."""

ROOT = "spec.jobTemplate"

_DEFAULT_CONTROLLER = "kubernetes.io/job-controller"
_EXPRESSION = re.compile(r"\{\{|\{%|\$\{\{")
_NAMES = "|".join(sorted(WINDOW_ENV | {ENV_CLEAN_UP}))
_NAMED = re.compile(rf"(?<![\w$({{])(?:{_NAMES})(?!\w)")
_DAY = re.compile(r"(?<![\w=./:-])\d{4}([-/])\d{2}\1\d{2}(?:[T ][0-9:.]+)?(?:Z|[+-]\d{2}:?\d{2})?(?![\w-])")
_FLAG = re.compile(
    r"(?<![\w-])--?(?:\w+[-_])*(?:start|end|from|until|since|customers?)"
    r"(?:[-_](?:time|date|day|timestamp|ids?))*(?:=|\s+|$)(?P<value>\S*)",
    re.IGNORECASE,
)
_NO_ENV = re.compile(r"(?:^|[\s;&|/])env\s+(?:-\S+\s+)*?(?:-|--ignore-environment|-\w*i\w*)(?:\s|$)")
_OWN_VALUE = re.compile(rf"[\"']?\$[({{]?(?:{_NAMES})\b")


def problems(template: Manifest, container: str = "") -> list[str]:
    """Return one sentence for each field that a Job of one window cannot take, with its path; [] when all is well.

    ``template`` is the CronJob's ``spec.jobTemplate``, ``container`` the configured name of the container with the
    reindex program ('' = the first one).
    """
    found = [*_by_table(template), *_job_values(template)]
    for path, item in _containers(template):
        found += _container_values(path, item)
    listed = containers_of(template)
    if not listed:
        found.append(f"{ROOT}.{POD_SPEC}.containers: there is no container")
    elif container and container not in listed:
        found.append(
            f"{ROOT}.{POD_SPEC}.containers: there is no container {container!r} (kubernetes.container), only"
            f" {', '.join(listed)}"
        )
    return found


def changes(template: Manifest) -> list[str]:
    """Return one sentence for each value of the template that the Job does not take over."""
    spec = _object(template, "spec")
    pod = _object(_object(spec, "template"), "spec")
    wanted = {"completions": 1, "parallelism": 1, "podFailurePolicy": None}
    found = [
        f"{ROOT}.{JOB_SPEC}.{name} is {_short(spec[name])}: {BY_PATH[f'{JOB_SPEC}.{name}'].why}"
        for name, value in wanted.items()
        if spec.get(name) not in (None, value)
    ]
    if pod.get("restartPolicy") not in (None, "Never"):
        found.append(
            f"{ROOT}.{POD_SPEC}.restartPolicy is {pod['restartPolicy']}: {BY_PATH[f'{POD_SPEC}.restartPolicy'].why}"
        )
    return found + [
        f"{path}.env: {ENV_CLEAN_UP} is set to false: rows are deleted by the plan only"
        for path, item in _containers(template)
        if any(variable.get("name") == ENV_CLEAN_UP for variable in _list(item, "env"))
    ]


def containers_of(template: Manifest) -> list[str]:
    """Return the names of the template's containers in their order."""
    pod = _object(_object(_object(template, "spec"), "template"), "spec")
    return [str(item.get("name", "")) for item in _list(pod, "containers")]


def program_container(template: Manifest, configured: str = "") -> str:
    """Return the name of the container with the reindex program, '' without containers.

    The configured one; else the one that the pod template's annotation names; else the first.
    """
    listed = containers_of(template)
    pod = _object(_object(template, "spec"), "template")
    named = str(_object(_object(pod, "metadata"), "annotations").get(DEFAULT_CONTAINER) or "")
    return configured or (named if named in listed else next(iter(listed), ""))


def queue_of(*metas: Manifest) -> str:
    """Return the queue that the labels or annotations of a Job or template name, '' when there is none."""
    for meta in metas:
        for part in ("labels", "annotations"):
            if name := _object(meta, part).get(QUEUE_NAME):
                return str(name)
    return ""


def _object(parent: Manifest, name: str) -> Manifest:
    found = parent.get(name)
    return found if isinstance(found, Mapping) else {}


def _list(parent: Manifest, name: str) -> Sequence[Manifest]:
    return [item for item in parent.get(name) or [] if isinstance(item, Mapping)]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _containers(template: Manifest) -> Iterator[tuple[str, Manifest]]:
    pod = _object(_object(_object(template, "spec"), "template"), "spec")
    for kind in ("initContainers", "containers"):
        for index, item in enumerate(_list(pod, kind)):
            yield f"{ROOT}.{POD_SPEC}.{kind}[{index}]", item


def _by_table(template: Manifest) -> Iterator[str]:
    spec = _object(template, "spec")
    pod = _object(spec, "template")
    objects = [
        (JOB_META, f"{ROOT}.{JOB_META}", _object(template, "metadata")),
        (JOB_SPEC, f"{ROOT}.{JOB_SPEC}", spec),
        ("spec.template", f"{ROOT}.spec.template", pod),
        (POD_META, f"{ROOT}.{POD_META}", _object(pod, "metadata")),
        (POD_SPEC, f"{ROOT}.{POD_SPEC}", _object(pod, "spec")),
    ]
    for path, item in _containers(template):
        objects.append((INIT_CONTAINERS if ".initContainers[" in path else CONTAINERS, path, item))
    for level, path, item in objects:
        for name, value in item.items():
            if value in (None, [], {}, ""):
                continue
            field = BY_PATH.get(f"{level}.{name}")
            if field is None:
                yield (
                    f"{path}.{name}: this field is not known here, so nobody has looked at what it does to a Job that"
                    " must run once; take it out of the template"
                )
            elif field.treatment == "refused":
                yield f"{path}.{name}: {field.why}; take it out of the template"


def _job_values(template: Manifest) -> Iterator[str]:
    spec = _object(template, "spec")
    path = f"{ROOT}.{JOB_SPEC}"
    parallelism = spec.get("parallelism")
    if isinstance(parallelism, int) and parallelism < 1:
        yield f"{path}.parallelism is {parallelism}: the Job would never start a pod"
    if spec.get("completionMode") not in (None, "", "NonIndexed"):
        yield f"{path}.completionMode is {spec['completionMode']}: it {BY_PATH[f'{JOB_SPEC}.maxFailedIndexes'].why}"
    if spec.get("managedBy") not in (None, "", _DEFAULT_CONTROLLER):
        yield f"{path}.managedBy is {spec['managedBy']}: another controller makes pods by its own rules"
    pod = _object(spec, "template")
    if spec.get("suspend") and not queue_of(_object(template, "metadata"), _object(pod, "metadata")):
        yield (
            f"{path}.suspend is true and the template names no queue (label {QUEUE_NAME}): nobody would start the Job,"
            " after its rows are deleted; take suspend out of the template, or add the label"
        )


def _container_values(path: str, item: Manifest) -> Iterator[str]:
    policy, is_init = item.get("restartPolicy"), ".initContainers[" in path
    if policy not in (None, "", "Never") and not (is_init and policy == "Always"):
        yield f"{path}.restartPolicy is {policy}: it would start the program again in the same pod"
    words: list[tuple[str, str]] = []
    for part in ("command", "args"):
        listed = [str(word) for word in item.get(part) or []]
        words += [(f"{path}.{part}[{index}]", word) for index, word in enumerate(listed)]
        yield from _expressions(f"{path}.{part}", listed)
    yield from _other_window(path, words)
    for index, variable in enumerate(_list(item, "env")):
        name, value = variable.get("name"), variable.get("value")
        if name in WINDOW_ENV or name == ENV_CLEAN_UP or not isinstance(value, str):
            continue
        where = f"{path}.env[{index}]"
        if _EXPRESSION.search(value):
            yield (
                f"{where}: environment {name} still holds a template expression ({_short(value)!r}); it would reach"
                " the program as it is"
            )
        elif said := _flags(value):
            yield f"{where}: environment {name} {said}; only the Job's own variables may name its window"


def _expressions(path: str, listed: Sequence[str]) -> Iterator[str]:
    for index, word in enumerate(listed):
        if _EXPRESSION.search(word):
            yield (
                f"{path}[{index}] still holds a template expression ({_short(word)!r}); it would reach the program as"
                " it is"
            )


def _other_window(path: str, words: Sequence[tuple[str, str]]) -> Iterator[str]:
    # A flag and its value may stand in two words, so each word is read with the one behind it.
    for place, (where, word) in enumerate(words):
        following = words[place + 1][1] if place + 1 < len(words) else ""
        day = _DAY.search(word)
        said = f"names the day {day.group()}" if day else _flags(word, following)
        if _NO_ENV.search(f"{word} {following}" if word.endswith("env") else word):
            said = "starts the program without the Job's variables"
        if not said:
            continue
        yield (
            f"{where} {said} ({_short(word)!r}): the window comes from {ENV_START}, {ENV_END} and {ENV_CUSTOMERS} only;"
            f" take it out, or use $({ENV_START}) and the like"
        )


def _flags(word: str, following: str = "") -> str:
    if match := _NAMED.search(word):
        return f"names {match.group()} otherwise than by its value"
    for match in _FLAG.finditer(word):
        value = match.group("value") or following
        if not _OWN_VALUE.match(value):
            return f"has an option of its own for the window ({match.group().split('=')[0].strip()})"
    return ""

"""Images and environments: which local program a container stands for, and the variables that it gets."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from standins.kubernetes.resources import SECRETS, Obj
from standins.kubernetes.store import ObjectStore


class ImagesFileError(ValueError):
    """An images file that cannot be used; the text names the file and the entry."""


class ContainerConfigError(Exception):
    """A container whose variables cannot be made, as for the kubelet's CreateContainerConfigError."""


@dataclass(frozen=True)
class Image:
    """The program of an image: its arguments, its variables (below those of the pod), its working folder."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None


def load_images(path: Path) -> dict[str, Image]:
    """The images of a JSON file ``{image: [argv] or {"argv": [...], "env": {...}, "cwd": ...}}``.

    Raises ImagesFileError for a bad entry and OSError if the file cannot be read.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ImagesFileError(f"{path} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ImagesFileError(f"{path} must hold an object: image name -> program")
    return {name: _image(path, name, entry) for name, entry in raw.items()}


def _image(path: Path, name: str, entry: object) -> Image:
    parts = {"argv": entry} if isinstance(entry, list) else entry
    if not isinstance(parts, dict) or set(parts) - {"argv", "env", "cwd"}:
        raise ImagesFileError(f"{path}: image {name}: expected a list, or an object with argv, env, cwd")
    argv, env = parts.get("argv"), parts.get("env", {})
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        raise ImagesFileError(f"{path}: image {name}: argv is {argv!r}; it must be a list of words, at least one")
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        raise ImagesFileError(f"{path}: image {name}: env must map names to texts")
    return Image(tuple(argv), env, parts.get("cwd"))


def container_env(store: ObjectStore, pod: Obj, container: Obj, image: Image) -> dict[str, str]:
    """All variables of a container: a small base, the image's, then the pod's.

    Raises ContainerConfigError.
    """
    env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOSTNAME": pod["metadata"]["name"]}
    env.update(image.env)
    namespace = pod["metadata"]["namespace"]
    for source in container.get("envFrom") or []:
        reference = source.get("secretRef")
        if reference is None:
            raise ContainerConfigError(f"the sandbox has no source {sorted(source)} for envFrom; use secretRef")
        data = _secret_data(store, namespace, reference)
        env.update({source.get("prefix", "") + key: value for key, value in data.items()})
    for variable in container.get("env") or []:
        value = _value(store, pod, variable)
        if value is not None:
            env[variable["name"]] = value
    return env


def _value(store: ObjectStore, pod: Obj, variable: Obj) -> str | None:
    source = variable.get("valueFrom")
    if not source:
        return str(variable.get("value") or "")
    if reference := source.get("secretKeyRef"):
        data = _secret_data(store, pod["metadata"]["namespace"], reference)
        if reference["key"] not in data and not reference.get("optional"):
            name, namespace = reference["name"], pod["metadata"]["namespace"]
            raise ContainerConfigError(f"couldn't find key {reference['key']} in Secret {namespace}/{name}")
        return data.get(reference["key"])
    path = source.get("fieldRef", {}).get("fieldPath")
    if path in ("metadata.name", "metadata.namespace", "metadata.uid"):
        return str(pod["metadata"][path.removeprefix("metadata.")])
    raise ContainerConfigError(f"the sandbox has no value source {sorted(source)} {path or ''}".rstrip())


def _secret_data(store: ObjectStore, namespace: str, reference: Obj) -> dict[str, str]:
    secret = store.find(SECRETS, namespace, reference["name"])
    if secret is None:
        if reference.get("optional"):
            return {}
        raise ContainerConfigError(f'secret "{reference["name"]}" not found')
    return {key: base64.b64decode(value).decode() for key, value in secret.get("data", {}).items()}

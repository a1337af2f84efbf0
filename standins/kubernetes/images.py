"""Images and environments: which local program a container stands for, and the variables that it gets."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from standins.kubernetes.resources import SECRETS, Obj
from standins.kubernetes.store import ObjectStore


class ImagesFileError(ValueError):
    """An images file that cannot be used; the text names the file and the entry."""


class ContainerConfigError(Exception):
    """A container whose variables cannot be made, as for the kubelet's CreateContainerConfigError."""


class Image(BaseModel, frozen=True, extra="forbid"):
    """The program of an image: its arguments, its variables (below those of the pod), its working folder."""

    argv: tuple[str, ...] = Field(min_length=1)
    env: dict[str, str] = {}
    cwd: str | None = None


_IMAGES = TypeAdapter(dict[str, Image])


def load_images(path: Path) -> dict[str, Image]:
    """The images of a JSON file ``{image: {"argv": [...], "env": {...}, "cwd": ...}}``.

    Raises ImagesFileError for a bad entry and OSError if the file cannot be read.
    """
    try:
        return _IMAGES.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ImagesFileError(f"{path}: {error}") from error


def container_env(store: ObjectStore, pod: Obj, container: Obj, image: Image) -> dict[str, str]:
    """All variables of a container: a small base, the image's, then the pod's.

    Raises ContainerConfigError.
    """
    env = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOSTNAME": pod["metadata"]["name"]}
    env.update(image.env)
    if container.get("envFrom"):
        raise ContainerConfigError("the sandbox has no envFrom; name each variable under env")
    for variable in container.get("env") or []:
        env[variable["name"]] = _value(store, pod, variable)
    return env


def _value(store: ObjectStore, pod: Obj, variable: Obj) -> str:
    source = variable.get("valueFrom")
    if not source:
        return str(variable.get("value") or "")
    if reference := source.get("secretKeyRef"):
        name, namespace = reference["name"], pod["metadata"]["namespace"]
        secret = store.find(SECRETS, namespace, name)
        if secret is None:
            raise ContainerConfigError(f'secret "{name}" not found')
        if reference["key"] not in secret.get("data", {}):
            raise ContainerConfigError(f"couldn't find key {reference['key']} in Secret {namespace}/{name}")
        return base64.b64decode(secret["data"][reference["key"]]).decode()
    path = source.get("fieldRef", {}).get("fieldPath")
    if path in ("metadata.name", "metadata.namespace", "metadata.uid"):
        return str(pod["metadata"][path.removeprefix("metadata.")])
    raise ContainerConfigError(f"the sandbox has no value source {sorted(source)} {path or ''}".rstrip())

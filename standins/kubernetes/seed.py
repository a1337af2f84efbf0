"""What is in the cluster at the start: the manifests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from standins.kubernetes.api import Api
from standins.kubernetes.resources import BY_KIND, NAMESPACES, Obj, ResourceType
from standins.kubernetes.store import ObjectStore

DEFAULT = "default"
"""The namespace of a document that names none."""


class ManifestError(ValueError):
    """A manifest that cannot be loaded; the text names the file and the document."""


def read_manifests(folder: Path) -> Iterator[tuple[ResourceType, str | None, Obj]]:
    """Type, namespace (None for a type without) and document of all in ``*.yaml``, by name. Raises ManifestError."""
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if not isinstance(document, dict) or not {"kind", "apiVersion", "metadata"} <= set(document):
                raise ManifestError(f"{path}: a document without kind, apiVersion or metadata")
            resource = BY_KIND.get((document["apiVersion"], document["kind"]))
            if resource is None:
                raise ManifestError(f"{path}: the sandbox has no {document['apiVersion']} {document['kind']}")
            yield resource, document["metadata"].get("namespace", DEFAULT) if resource.namespaced else None, document


def load(store: ObjectStore, api: Api, folder: Path) -> None:
    """Create what is missing; objects that exist are left as they are. Raises ManifestError, StatusError."""
    for resource, namespace, document in [(NAMESPACES, None, {"metadata": {"name": DEFAULT}}), *read_manifests(folder)]:
        if store.find(resource, namespace, document["metadata"].get("name", "")) is None:
            api.create(resource, namespace, document)

"""What is in the cluster at the start: namespaces, the manifests, the ClickHouse password."""

from __future__ import annotations

from pathlib import Path

import yaml

from standins.kubernetes.api import Api
from standins.kubernetes.resources import SECRETS, Obj, by_kind
from standins.kubernetes.store import ObjectStore

BASE_NAMESPACES = ("default", "kube-system", "clickhouse")
CLICKHOUSE_NAMESPACE = "clickhouse"
CLICKHOUSE_SECRET = "clickhouse-cluster"
CLICKHOUSE_KEY = "admin_password"


class ManifestError(ValueError):
    """A manifest that cannot be loaded; the text names the file and the document."""


def read_manifests(folder: Path) -> list[tuple[Path, Obj]]:
    """The documents of all ``*.yaml`` files, in the order of names. Raises ManifestError."""
    documents: list[tuple[Path, Obj]] = []
    for path in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if document is None:
                continue
            if not isinstance(document, dict) or "kind" not in document or "apiVersion" not in document:
                raise ManifestError(f"{path}: a document without kind or apiVersion")
            documents.append((path, document))
    return documents


def load(store: ObjectStore, api: Api, folder: Path, clickhouse_password: str | None) -> None:
    """Create what is missing; objects that exist are left as they are. Raises ManifestError, StatusError."""
    for name in BASE_NAMESPACES:
        _create(store, api, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for path, document in read_manifests(folder):
        if by_kind(document["apiVersion"], document["kind"]) is None:
            raise ManifestError(f"{path}: the sandbox has no {document['apiVersion']} {document['kind']}")
        _create(store, api, document)
    if clickhouse_password is not None:
        _set_secret(store, api, clickhouse_password)


def _create(store: ObjectStore, api: Api, document: Obj) -> None:
    resource = by_kind(document["apiVersion"], document["kind"])
    assert resource is not None  # looked up above
    meta = document.get("metadata") or {}
    namespace = meta.get("namespace", "default") if resource.namespaced else None
    if store.find(resource, namespace, meta.get("name", "")) is None:
        store.add(resource, api.prepare(resource, namespace, document))


def _set_secret(store: ObjectStore, api: Api, password: str) -> None:
    """Make the Secret with ClickHouse's password, anew if it is there already (the password may have changed)."""
    if (old := store.find(SECRETS, CLICKHOUSE_NAMESPACE, CLICKHOUSE_SECRET)) is not None:
        store.remove(SECRETS, old)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": CLICKHOUSE_SECRET, "namespace": CLICKHOUSE_NAMESPACE},
        "stringData": {CLICKHOUSE_KEY: password},
    }
    _create(store, api, secret)

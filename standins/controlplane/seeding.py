"""What is in the cluster at the start: namespaces, the manifests, their service accounts, ClickHouse's password."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from standins.controlplane.calls import Calls, path_of
from standins.kubernetes.resources import NAMESPACES, SECRETS, Obj, by_kind
from standins.kubernetes.seed import (
    CLICKHOUSE_KEY,
    CLICKHOUSE_NAMESPACE,
    CLICKHOUSE_SECRET,
    ManifestError,
    read_manifests,
)


async def load(calls: Calls, folder: Path, clickhouse_password: str | None) -> None:
    """Create what is missing. Raises ManifestError for a kind that is not known, CallError for a refusal."""
    await calls.make(path_of(NAMESPACES), {"metadata": {"name": CLICKHOUSE_NAMESPACE}})
    for file, document in read_manifests(folder):
        resource = by_kind(document["apiVersion"], document["kind"])
        if resource is None:
            raise ManifestError(f"{file}: the sandbox has no {document['apiVersion']} {document['kind']}")
        namespace = document["metadata"].get("namespace", "default") if resource.namespaced else None
        for account in accounts(document):
            made = {"metadata": {"name": account}}
            await calls.make(f"/api/v1/namespaces/{namespace}/serviceaccounts", made)
        await calls.make(path_of(resource, namespace), document)
    if clickhouse_password is not None:
        await _set_secret(calls, clickhouse_password)


def accounts(value: object) -> Iterator[str]:
    """The service accounts that the pod specs of a document name; without them no pod would be let in."""
    if isinstance(value, dict):
        if isinstance(name := value.get("serviceAccountName"), str):
            yield name
        for inner in value.values():
            yield from accounts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from accounts(inner)


async def _set_secret(calls: Calls, password: str) -> None:
    secret: Obj = {"metadata": {"name": CLICKHOUSE_SECRET}, "stringData": {CLICKHOUSE_KEY: password}}
    if not await calls.make(path_of(SECRETS, CLICKHOUSE_NAMESPACE), secret):
        path = path_of(SECRETS, CLICKHOUSE_NAMESPACE, CLICKHOUSE_SECRET)
        await calls.send("PATCH", path, {"stringData": secret["stringData"]}, "application/merge-patch+json")

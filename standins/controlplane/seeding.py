"""What is in the cluster at the start: the manifests and their service accounts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from standins.controlplane.calls import Calls, path_of
from standins.kubernetes.seed import read_manifests


async def load(calls: Calls, folder: Path) -> None:
    """Create what is missing. Raises ManifestError for a kind that is not known, CallError for a refusal."""
    for resource, namespace, document in read_manifests(folder):
        for account in accounts(document):
            made = {"metadata": {"name": account}}
            await calls.make(f"/api/v1/namespaces/{namespace}/serviceaccounts", made)
        await calls.make(path_of(resource, namespace), document)


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

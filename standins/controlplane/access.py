"""The user of the sandbox: a service account, what it may do, and its token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

from standins.controlplane.calls import MERGE, CallError, Calls, path_of
from standins.kubernetes.rbac import USER, Deny
from standins.kubernetes.resources import ACCESS_REVIEWS, ALL_TYPES, SECRETS, ResourceType

NAMESPACE, ACCOUNT = USER.split(":")[2:]
ROLE = "sandbox-user"
TOKEN_SECONDS = 30 * 24 * 3600
SEEN_SECONDS = 10.0
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_PARTS = {"log": ("get",), "status": ("get", "patch", "update")}


def grants() -> Iterator[tuple[ResourceType, str, str]]:
    """All that the stand-in lets its user do: type, resource as a Role names it, verb."""
    for kind in ALL_TYPES:
        if kind is ACCESS_REVIEWS:
            continue  # system:basic-user gives it to everybody
        for verb in kind.verbs:
            yield kind, kind.plural, verb
        for part in kind.subresources:
            for verb in _PARTS[part]:
                yield kind, f"{kind.plural}/{part}", verb


def rules(deny: Sequence[Deny]) -> list[dict[str, Any]]:
    """The rules of a role that grants all but what is denied; a deny rule for some namespaces is refused here.

    Raises ValueError for such a rule: a cluster-wide role cannot leave out a namespace.
    """
    if any("*" not in rule.namespaces for rule in deny):
        raise ValueError("deny rules for single namespaces need Roles; this control plane has one ClusterRole")
    kept: dict[tuple[str, str], list[str]] = {}
    for kind, resource, verb in grants():
        if not any(rule.covers(verb, kind.group, resource, "*") for rule in deny):
            kept.setdefault((kind.group, resource), []).append(verb)
    return [{"apiGroups": [group], "resources": [name], "verbs": verbs} for (group, name), verbs in kept.items()]


class Access:
    """Keeps the service account, its role and its token."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._granted: set[tuple[str, str, str]] | None = None

    async def prepare(self) -> None:
        """Make what is missing; the role grants everything."""
        await self._calls.make("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        await self._calls.make(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": ACCOUNT}})
        await self._calls.make(f"{_RBAC}/clusterroles", {"metadata": {"name": ROLE}, "rules": rules(())})
        binding = {
            "metadata": {"name": ROLE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
            "subjects": [{"kind": "ServiceAccount", "namespace": NAMESPACE, "name": ACCOUNT}],
        }
        await self._calls.make(f"{_RBAC}/clusterrolebindings", binding)
        await self.allow(rules(()))

    async def allow(self, wanted: list[dict[str, Any]]) -> None:
        """Put these rules into the role and wait until the server decides by them. Raises TimeoutError."""
        await self._calls.send("PATCH", f"{_RBAC}/clusterroles/{ROLE}", {"rules": wanted}, MERGE)
        kept = {(rule["apiGroups"][0], rule["resources"][0], verb) for rule in wanted for verb in rule["verbs"]}
        end = time.monotonic() + SEEN_SECONDS
        for kind, resource, verb in grants():
            grant = (kind.group, resource, verb)
            if self._granted is not None and (grant in self._granted) == (grant in kept):
                continue
            while await self._may(kind, resource, verb) != (grant in kept):
                if time.monotonic() > end:
                    raise TimeoutError(f"the change of ClusterRole {ROLE} is not seen after {SEEN_SECONDS} s")
                await asyncio.sleep(0.02)
        self._granted = kept

    async def _may(self, kind: ResourceType, resource: str, verb: str) -> bool:
        name, _, part = resource.partition("/")
        asked = {"group": kind.group, "resource": name, "subresource": part, "verb": verb, "namespace": "default"}
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
        body = {"spec": {"user": USER, "groups": groups, "resourceAttributes": asked}}
        answer = await self._calls.send("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        return bool(answer["status"]["allowed"])

    async def new_token(self) -> str:
        """A new token, after which the earlier ones are worth nothing: each hangs on a Secret that is deleted."""
        for old in (await self._calls.send("GET", path_of(SECRETS, NAMESPACE)))["items"]:
            await self._calls.send("DELETE", path_of(SECRETS, NAMESPACE, old["metadata"]["name"]))
        holder = {"metadata": {"generateName": "token-holder-"}}
        made = await self._calls.send("POST", path_of(SECRETS, NAMESPACE), holder)
        bound = {"kind": "Secret", "apiVersion": "v1", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
        spec = {"expirationSeconds": TOKEN_SECONDS, "boundObjectRef": bound}
        path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}/token"
        return str((await self._calls.send("POST", path, {"spec": spec}))["status"]["token"])

    async def valid(self, token: str) -> bool:
        """Whether the server takes a token."""
        try:
            body = {"spec": {"token": token}}
            answer = await self._calls.send("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
        except CallError:
            return False
        return bool(answer["status"].get("authenticated"))

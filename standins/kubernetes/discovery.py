"""The answers about the server itself: version, groups, resources."""

from __future__ import annotations

from standins.kubernetes.resources import ALL_TYPES, Obj, ResourceType, api_groups

VERSION: Obj = {
    "major": "1",
    "minor": "37",
    "gitVersion": "v1.37.0+sandbox",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
HEALTH_PATHS = frozenset({"/healthz", "/livez", "/readyz"})


def _group(name: str) -> Obj:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _resource_rows(resource: ResourceType) -> list[Obj]:
    row: Obj = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        row["shortNames"] = list(resource.short_names)
    rows = [row]
    for sub in resource.subresources:
        verbs = ["get"] if sub == "log" else ["get", "patch", "update"]
        name = f"{resource.plural}/{sub}"
        more = {"singularName": "", "namespaced": resource.namespaced, "kind": resource.kind, "verbs": verbs}
        rows.append({"name": name, **more})
    return rows


def discover(path: str) -> Obj | None:
    """The answer to a GET on a discovery path, or None if it is not one."""
    if path == "/version":
        return VERSION
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in api_groups()]}
    groups = {f"/apis/{name}": name for name in api_groups()}
    if path in groups:
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(groups[path])}
    versions = {"/api/v1": ""} | {f"/apis/{name}/v1": name for name in api_groups()}
    if path not in versions:
        return None
    group = versions[path]
    rows = [row for resource in ALL_TYPES if resource.group == group for row in _resource_rows(resource)]
    group_version = f"{group}/v1" if group else "v1"
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": rows}

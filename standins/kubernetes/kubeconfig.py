"""The kubeconfig of the stand-in."""

from __future__ import annotations

from pathlib import Path

import yaml

from standins.kubernetes.resources import Obj


def kubeconfig(url: str, context: str, namespace: str, token: str) -> Obj:
    """A configuration with one cluster, one user with a bearer token and one context, which is the current
    one.
    """
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": url}}],
        "users": [{"name": context, "user": {"token": token}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context, "namespace": namespace}}],
        "current-context": context,
        "preferences": {},
    }


def write_private(path: Path, text: str) -> None:
    """Write a file whole, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def write_kubeconfig(path: Path, document: Obj) -> None:
    """Write the configuration."""
    write_private(path, yaml.safe_dump(document, sort_keys=False))

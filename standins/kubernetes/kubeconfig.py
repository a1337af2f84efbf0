"""The kubeconfig of the stand-in."""

from __future__ import annotations

from pathlib import Path

import yaml

NAMESPACE = "cresta-cron"


def write_kubeconfig(path: Path, url: str, context: str, token: str, **cluster: str) -> None:
    """Write a configuration with one cluster (and more fields of it), one user with a token, and one context."""
    named = {"cluster": context, "user": context, "namespace": NAMESPACE}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": url, **cluster}}],
        "users": [{"name": context, "user": {"token": token}}],
        "contexts": [{"name": context, "context": named}],
        "current-context": context,
    }
    write_private(path, yaml.safe_dump(document, sort_keys=False))


def write_private(path: Path, text: str) -> None:
    """Write a file whole, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)

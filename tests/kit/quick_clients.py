"""Certificates that are read once: what a client of Kubernetes costs at its start is not what the matrix is about."""

from __future__ import annotations

import ssl
from functools import cache
from types import SimpleNamespace

import pytest
from kubernetes_asyncio.client import rest


def install(patch: pytest.MonkeyPatch) -> None:
    """Take the place of the library's own way."""
    patch.setattr(
        rest, "ssl", SimpleNamespace(**vars(ssl) | {"create_default_context": cache(ssl.create_default_context)})
    )

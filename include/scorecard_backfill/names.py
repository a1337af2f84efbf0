"""Names derived from a window: its key, the ClickHouse database, Kubernetes names and label values.

Everything here is deterministic: the same input gives the same name in every process.
"""

from __future__ import annotations

import hashlib
import re
import uuid

KEY_LENGTH = 16
"""Hex digits of a window key: 64 bits, far beyond the windows that one installation will ever have."""

JOB_NAME_MAX = 52
"""Kubernetes allows 63 characters for a Job's name and appends up to 11 for its pods (Job name + '-' + suffix)."""

LABEL_VALUE_MAX = 63
"""Limit of a Kubernetes label value (RFC 1123 label)."""

LABEL_WINDOW = "scorecard-backfill/window"
LABEL_ATTEMPT = "scorecard-backfill/attempt"
LABEL_CLUSTER = "scorecard-backfill/cluster"
LABEL_CUSTOMER = "scorecard-backfill/customer"
LABEL_RUN = "scorecard-backfill/run"

_NOT_DATABASE = re.compile(r"[^0-9A-Za-z_]")
_NOT_DNS = re.compile(r"[^a-z0-9]+")
_NOT_LABEL = re.compile(r"[^0-9A-Za-z_.-]+")


def sanitize_database_name(customer_id: str, profile_id: str) -> str:
    """Return the database of a customer and profile: every character outside ``[0-9A-Za-z_]`` becomes ``_``.

    The rule is the production one (SanitizeDatabaseName); it is not reversible and two pairs can collide.

    >>> sanitize_database_name("globex.eu", "voice-1")
    'globex_eu_voice_1'
    """
    return _NOT_DATABASE.sub("_", f"{customer_id}_{profile_id}")


def digest(*parts: str, length: int = KEY_LENGTH) -> str:
    """Return the first ``length`` hex digits of a SHA-256 over the parts, each one delimited by its own length."""
    hasher = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        hasher.update(f"{len(raw)}:".encode())
        hasher.update(raw)
    return hasher.hexdigest()[:length]


def new_plan_id() -> str:
    """Return the id of a plan that is made now: no other plan has it, whatever run it is for (32 hex digits)."""
    return uuid.uuid4().hex


def window_key(*, cluster: str, run_id: str, customer_id: str, start: str, end: str, plan: str = "") -> str:
    """Return the key of a window of one plan: the marker of its mutations and the label of its Jobs.

    ``plan`` is the plan's id, or for a part the key of the window that it was cut from: what another plan, of this run
    or of a deleted one of the same id, has sent or made for these days is never taken for this window's. '' is how
    earlier releases made keys. ``start`` and ``end`` are ISO days, end exclusive.
    """
    return digest(cluster, run_id, customer_id, start, end, *([plan] if plan else []))


def dns_slug(text: str, max_length: int) -> str:
    """Return ``text`` as part of an RFC 1123 label: lower case ``[a-z0-9-]``, no dash at an end; '' if nothing is left.

    >>> dns_slug("ACME_Foo.bar-", 20)
    'acme-foo-bar'
    """
    return _NOT_DNS.sub("-", text.lower()).strip("-")[:max_length].strip("-")


def job_name(*, key: str, customer_id: str, start: str, attempt: int) -> str:
    """Return the deterministic name of the reindex Job of a window's attempt (RFC 1123, at most 52 characters).

    Different (key, attempt) pairs give different names, whatever the customer id looks like.
    Raises ValueError for an attempt below 1.

    >>> job_name(key="0123456789abcdef", customer_id="globex.eu", start="2026-01-01", attempt=2)
    'reindex-globex-eu-20260101-0123456789abcdef-a2'
    """
    if attempt < 1:
        raise ValueError(f"attempt must be 1 or more, not {attempt}")
    tail = f"{start.replace('-', '')}-{key}-a{attempt}"
    room = JOB_NAME_MAX - len("reindex-") - len(tail) - 1
    slug = dns_slug(customer_id, max(room, 0))
    return "-".join(part for part in ("reindex", slug, tail) if part)


def label_value(text: str) -> str:
    """Return ``text`` as a Kubernetes label value; a changed or cut text ends in a hash, so two never meet.

    >>> label_value("acme-sandbox")
    'acme-sandbox'
    """
    clean = _NOT_LABEL.sub("-", text).strip("-_.")
    if clean == text and 0 < len(text) <= LABEL_VALUE_MAX:
        return text
    suffix = digest(text, length=8)
    head = clean[: LABEL_VALUE_MAX - len(suffix) - 1].strip("-_.")
    return f"{head}-{suffix}" if head else suffix

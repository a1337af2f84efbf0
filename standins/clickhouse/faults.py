"""Fault rules of one node: what goes wrong, for which statements, how often. Kept in a file, over restarts.

A rule is a JSON object. `kind` says what happens, `match` is a regular expression (search, case-insensitive, over
several lines) that the statement must hold, `times` how often it happens (absent: until deleted). Without `match` a
rule meets every statement, also those that a client sends when it connects.

reply           answer with ClickHouse error `code` and `message`; `execute`: never (default) or first
reset           close the connection with a TCP reset; `execute`: first (default) or never
cut             answer, but break the connection after `bytes` bytes of the body
latency         wait `seconds`, or until the rule is deleted, before the statement runs
ddl_hold        this host does not run the ON CLUSTER statement until the rule is deleted or `seconds` are over
ddl_drop        this host never runs the ON CLUSTER statement and never answers for it (deleting the rule changes
                nothing for statements that it has taken)
ddl_error       this host answers the ON CLUSTER statement with `code` and `message` without running it
replica_hold    changes of this host's tables (ALTER, DELETE, TRUNCATE; `INSERT INTO db.table`) do not reach it from
                the other replica, nor by ON CLUSTER, until the rule is deleted or `seconds` are over
silent          this host gives no rows to statements that read other nodes: `mode` omit (its rows are missing
                without a word), error (it cannot be reached, so skip_unavailable_shards decides)
mutation        a matching mutation stays unfinished on this host until the rule is deleted or `seconds` are over;
                `reason`: latest_fail_reason, `killed`: is_killed, `parts`: parts_to_do
rows_left       a matching mutation or DROP PARTITION ends well on this host, but its rows stay
insert_drop     a matching INSERT is answered with success, but its rows are lost (like a deduplicated block)
spool           a matching INSERT into a Distributed table stays in this host's spool until the rule is deleted or
                `seconds` are over; `reason`: last_exception, and SYSTEM FLUSH DISTRIBUTED fails with it
drop_limit      DROP PARTITION fails here with code 359 for partitions above `bytes`, unless the statement sets
                max_partition_size_to_drop; to be set on all replicas of a shard
kill_lists      a matching mutation that is killed here stays listed, with is_killed 1
overlay         system table `table`: rows whose columns equal `where` (and whose JSON holds `match`) get the values
                `set` or, with `drop`, are left out; `add` lists more rows, whose other columns have their default
grants          what the user may do: `text` with GRANT and REVOKE lines, also of roles. SHOW GRANTS and CHECK GRANT
                answer by it; statements are not refused by it
profile         `settings` hold here for every statement of a client that does not set them itself; with `fixed` one
                that sets them to another value is refused with code 452
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from standins.clickhouse.errors import NAMES

Rule = dict[str, Any]

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "reply": ("code", "message", "execute"),
    "reset": ("execute",),
    "cut": ("bytes",),
    "latency": ("seconds",),
    "ddl_hold": ("seconds",),
    "ddl_drop": (),
    "replica_hold": ("seconds",),
    "ddl_error": ("code", "message"),
    "silent": ("mode",),
    "mutation": ("seconds", "reason", "killed", "parts"),
    "rows_left": (),
    "insert_drop": (),
    "spool": ("seconds", "reason"),
    "drop_limit": ("bytes",),
    "kill_lists": (),
    "overlay": ("table", "where", "set", "drop", "add"),
    "grants": ("text",),
    "profile": ("settings", "fixed"),
}
_NEEDED = {
    "reply": ("code",),
    "cut": ("bytes",),
    "latency": ("seconds",),
    "ddl_error": ("code",),
    "overlay": ("table",),
    "grants": ("text",),
    "drop_limit": ("bytes",),
    "profile": ("settings",),
}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "code": (int,),
    "message": (str,),
    "execute": (str,),
    "bytes": (int,),
    "seconds": (int, float),
    "mode": (str,),
    "reason": (str,),
    "killed": (bool,),
    "parts": (int,),
    "table": (str,),
    "where": (dict,),
    "set": (dict,),
    "drop": (bool,),
    "add": (list,),
    "text": (str,),
    "settings": (dict,),
    "fixed": (bool,),
    "match": (str,),
    "times": (int,),
}
_CHOICES = {"execute": ("first", "never"), "mode": ("omit", "error")}


class FaultError(ValueError):
    """A rule that cannot be used; the text names field and value."""


class Faults:
    """The rules of one node, in the order in which they were added. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._rules: list[Rule] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        self._next = max((int(rule["id"]) for rule in self._rules), default=0) + 1
        self.on_change: Callable[[], None] = lambda: None

    def add(self, rules: list[Rule]) -> list[int]:
        """Add rules; returns their ids. Raises FaultError, and adds none, when one cannot be used."""
        for rule in rules:
            check(rule)
        with self._lock:
            added = []
            for rule in rules:
                added.append({**rule, "id": self._next, "hits": 0})
                self._next += 1
            self._rules += added
            self._save()
        self.on_change()
        return [int(rule["id"]) for rule in added]

    def listed(self) -> list[Rule]:
        """Copies of the rules with `id` and `hits`; used-up ones are listed until they are deleted."""
        with self._lock:
            return [dict(rule) for rule in self._rules]

    def remove(self, number: int | None = None) -> int:
        """Delete one rule, or all; returns how many there were. What they held back goes on."""
        with self._lock:
            kept = [rule for rule in self._rules if number is not None and rule["id"] != number]
            removed = len(self._rules) - len(kept)
            self._rules = kept
            self._save()
        self.on_change()
        return removed

    def get(self, number: int | None) -> Rule | None:
        """A rule by its id, used up or not; None when it is gone."""
        with self._lock:
            return next((dict(rule) for rule in self._rules if rule["id"] == number), None)

    def hit(self, kind: str, text: str) -> Rule | None:
        """Use the first rule of this kind that matches and is not used up."""
        with self._lock:
            for rule in self._rules:
                if rule["kind"] == kind and _usable(rule) and _matches(rule, text):
                    rule["hits"] += 1
                    self._save()
                    return dict(rule)
        return None

    def matching(self, kind: str, text: str) -> Rule | None:
        """The same without using it."""
        with self._lock:
            found = (rule for rule in self._rules if rule["kind"] == kind and _usable(rule) and _matches(rule, text))
            return next((dict(rule) for rule in found), None)

    def is_over(self, number: int, since: float) -> bool:
        """Whether a rule no longer holds back what it took at `since` (Unix seconds): deleted, or its time is up."""
        rule = self.get(number)
        return rule is None or ("seconds" in rule and time.time() >= since + float(rule["seconds"]))

    def active(self, kind: str) -> list[Rule]:
        """Rules of a kind, without using them."""
        with self._lock:
            return [dict(rule) for rule in self._rules if rule["kind"] == kind and _usable(rule)]

    def _save(self) -> None:
        waiting = self._path.with_suffix(".new")
        waiting.write_text(json.dumps(self._rules), encoding="utf-8")
        waiting.replace(self._path)


def _usable(rule: Rule) -> bool:
    return rule.get("times") is None or rule["hits"] < rule["times"]


def _matches(rule: Rule, text: str) -> bool:
    return re.search(rule.get("match", ""), text, re.IGNORECASE | re.DOTALL) is not None


def check(rule: Rule) -> None:
    """Raise FaultError when a rule has an unknown kind or field, lacks one, or has a value of the wrong type."""
    kind = str(rule.get("kind"))
    if kind not in _FIELDS:
        raise FaultError(f"kind {kind!r} is unknown; known kinds: {', '.join(_FIELDS)}")
    allowed = ("kind", "match", "times", *_FIELDS[kind])
    for name, value in rule.items():
        if name not in allowed:
            raise FaultError(f"{kind}: field {name!r} is unknown; known fields: {', '.join(allowed)}")
        if not _has_type(name, value) or (name in _CHOICES and value not in _CHOICES[name]):
            choices = f" (one of {', '.join(_CHOICES[name])})" if name in _CHOICES else ""
            raise FaultError(f"{kind}: field {name!r} cannot be {value!r}{choices}")
    for name in _NEEDED.get(kind, ()):
        if name not in rule:
            raise FaultError(f"{kind}: field {name!r} is missing")
    try:
        re.compile(rule.get("match", ""))
    except re.error as error:
        raise FaultError(f"{kind}: match {rule['match']!r} is no regular expression: {error}") from error


def _has_type(name: str, value: object) -> bool:
    wanted = _TYPES.get(name, (object,))
    # JSON's true is no number, although Python's is.
    return isinstance(value, wanted) and not (isinstance(value, bool) and bool not in wanted and object not in wanted)


def default_message(code: int) -> str:
    """Text of an injected error without one."""
    return f"Injected by a fault rule of the sandbox. ({NAMES.get(code, 'UNKNOWN_EXCEPTION')})"

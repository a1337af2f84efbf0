"""Fault rules of one node: what goes wrong, for which statements, how often. Kept in a file, over restarts.

The language is that of standins.faults. `match` looks at the `statement` (searched): a plain text is such a pattern.
Without it a rule meets every statement, also those that a client sends when it connects.

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
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from standins.clickhouse.errors import NAMES
from standins.faults import COUNT, SECONDS, Field, Kind, Language, fits, is_over, kinds

Rule = dict[str, Any]

_HELD = {"seconds": SECONDS}
_ERROR = {"code": Field(int), "message": Field(str)}
_EXECUTE = {"execute": Field(str, choices=("first", "never"))}
_OVERLAY = {"table": Field(str), "where": Field(dict), "set": Field(dict), "drop": Field(bool), "add": Field(list)}
LANGUAGE = Language(
    {
        "reply": Kind(_ERROR | _EXECUTE, ("code",)),
        "reset": Kind(_EXECUTE),
        "cut": Kind({"bytes": COUNT}, ("bytes",)),
        "latency": Kind(_HELD, ("seconds",)),
        **kinds(("ddl_hold", "replica_hold"), fields=_HELD),
        **kinds(("ddl_drop", "rows_left", "insert_drop", "kill_lists")),
        "ddl_error": Kind(_ERROR, ("code",)),
        "silent": Kind({"mode": Field(str, choices=("omit", "error"))}),
        "mutation": Kind(_HELD | {"reason": Field(str), "killed": Field(bool), "parts": COUNT}),
        "spool": Kind(_HELD | {"reason": Field(str)}),
        "overlay": Kind(_OVERLAY, ("table",)),
        "grants": Kind({"text": Field(str)}, ("text",)),
        "profile": Kind({"settings": Field(dict), "fixed": Field(bool)}, ("settings",)),
    },
    ("statement",),
    main="statement",
)


class Faults:
    """The rules of one node, in the order in which they were added. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._rules: list[Rule] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        self._next = max((int(rule["id"]) for rule in self._rules), default=0) + 1
        self.on_change: Callable[[], None] = lambda: None

    def add(self, rules: list[Rule]) -> list[int]:
        """Add rules; returns their ids. Raises FaultRuleError, and adds none, when one cannot be used."""
        for rule in rules:
            LANGUAGE.check(rule)
        with self._lock:
            added = []
            for rule in rules:
                added.append({**rule, "id": self._next, "hits": 0, "since": time.time()})
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
    return not is_over(rule, int(rule["hits"]), time.time() - float(rule["since"]))


def pattern_of(rule: Rule) -> str | None:
    """The pattern that the statement must fit; None for any."""
    match = rule.get("match", {})
    return match if isinstance(match, str) else match.get("statement")


def _matches(rule: Rule, text: str) -> bool:
    return fits(pattern_of(rule), text)


def default_message(code: int) -> str:
    """Text of an injected error without one."""
    return f"Injected by a fault rule of the sandbox. ({NAMES.get(code, 'UNKNOWN_EXCEPTION')})"

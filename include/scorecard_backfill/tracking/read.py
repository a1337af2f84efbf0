"""Reading the old scripts' JSON files: any nesting of clusters, customers, databases and days, refused by field.

The files were written by several scripts over weeks, and no two look alike. What they have in common: somewhere there
is a state, and around it stand a customer, a cluster and days, as fields, as keys, or as names of lists. So the reader
walks the document and carries down what it has learned; an entry is made where a state is found. What is not
understood is refused with its path, and nothing is guessed: a customer is never cut out of a database name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from include.scorecard_backfill.planning.windows import WindowError, parse_day
from include.scorecard_backfill.tracking.history import Entry, State
from include.scorecard_backfill.tracking.words import (
    CONTAINERS,
    FIELDS,
    STATES_OF_LISTS,
    UNUSED,
    Kind,
    plain,
    state_of,
)

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MIDNIGHT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})T00:00:00(?:\.0+)?(?:Z|\+00:00)")
_WORKFLOW = re.compile(r"reindexconversations-(?P<who>.+)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LONGEST_REASON = 500
_DEEPEST = 12


@dataclass(frozen=True, slots=True)
class Known:
    """What is known at a place of the document; from the command's options at its top."""

    cluster: str = ""
    customer_id: str = ""
    profile_id: str = ""
    database: str = ""
    start: date | None = None
    end: date | None = None
    state: State | None = None
    workflow_id: str = ""
    before: tuple[tuple[str, int], ...] = ()
    after: tuple[tuple[str, int], ...] = ()
    at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What one file said: entries by cluster, what was refused (`path: why`), fields that were not used."""

    entries: tuple[tuple[str, Entry], ...]
    problems: tuple[str, ...]
    unused: tuple[str, ...]


def read_tracking(
    document: Any,
    file: str,
    *,
    clusters: Collection[str],
    given: Known | None = None,
    databases: Mapping[str, tuple[str, str]] | None = None,
) -> Found:
    """Everything that a document says.

    Args:
        document: the parsed JSON.
        file: its name, for messages; its stem is the cluster when the file does not name one.
        clusters: names of the clusters that there are.
        given: what a person said for the whole file (cluster, days). It fills what the file leaves open.
        databases: customer and profile of each database, from `mapping_of` over all files.
    """
    reader = _Reader(file, frozenset(clusters), dict(databases or {}))
    stem = file.rpartition("/")[2].removesuffix(".json")
    top = given or Known()
    if not top.cluster and stem in clusters:
        top = replace(top, cluster=stem)
    reader.walk(document, top, (), "item")
    if not reader.entries and not reader.problems:
        reader.problems.append(f"{file}: holds no entry with a state; nothing was read")
    return Found(tuple(reader.entries), tuple(reader.problems), tuple(sorted(reader.unused)))


def mapping_of(document: Any) -> dict[str, tuple[str, str]]:
    """Customer and profile of each database that the document names beside its customer.

    The scripts' own mapping was the only one, as a database's name cannot be read back.
    """
    found: dict[str, tuple[str, str]] = {}
    for node, key in _nodes(document, ""):
        fields = {FIELDS.get(plain(name), ""): value for name, value in node.items() if isinstance(value, str)}
        database = fields.get("database") or key
        if database and fields.get("customer_id"):
            found[database] = (fields["customer_id"], fields.get("profile_id", ""))
    return found


def _nodes(value: Any, key: str, depth: int = 0) -> Iterator[tuple[dict[str, Any], str]]:
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        yield value, key
        for name, item in value.items():
            yield from _nodes(item, str(name), depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _nodes(item, "", depth + 1)


class _Refused(ValueError):
    """One field cannot be used; the text says why and what would be right."""


class _Reader:
    """One walk over one document."""

    def __init__(self, file: str, clusters: frozenset[str], databases: dict[str, tuple[str, str]]) -> None:
        self.file, self.clusters, self.databases = file, clusters, databases
        self.entries: list[tuple[str, Entry]] = []
        self.problems: list[str] = []
        self.unused: set[str] = set()

    def refuse(self, path: tuple[str, ...], why: str) -> None:
        self.problems.append(f"{self.file}: {'.'.join(path) or 'top'}: {why}")

    def walk(self, node: Any, known: Known, path: tuple[str, ...], kind: Kind) -> None:
        """Read a node of which `kind` says what its keys, or the texts of its list, are."""
        if len(path) > _DEEPEST:
            self.refuse(path, f"is nested deeper than {_DEEPEST} levels")
        elif isinstance(node, dict):
            self._object(node, known, path, kind)
        elif isinstance(node, list):
            for index, item in enumerate(node):
                self._item(item, known, (*path, str(index)), kind)
        elif isinstance(node, str):
            self._word(node, known, path)
        elif node is not None:
            self.refuse(path, f"is {node!r}; an object, a list or a state such as completed is expected")

    def _object(self, node: dict[str, Any], known: Known, path: tuple[str, ...], kind: Kind) -> None:
        if kind != "item":
            for name, value in node.items():
                self._keyed(name, value, known, path, kind)
            return
        refused = len(self.problems)
        known = self._fields(node, known, path)
        children = [self._child(name, value, known, path) for name, value in node.items()]
        if any(children) or len(self.problems) > refused:
            return
        if known.state is not None:
            self._entry(known, path)
        elif known.customer_id:
            self.refuse(path, "has no state; a field such as status: completed is expected")

    def _fields(self, node: dict[str, Any], known: Known, path: tuple[str, ...]) -> Known:
        """What is known with the object's own fields."""
        for name, value in node.items():
            field = FIELDS.get(plain(name))
            # {"before": {...}} are counts, but {"failed": "..."} is a list's name or a customer's.
            if field is None or value is None or (isinstance(value, (dict, list)) and field not in ("before", "after")):
                continue
            try:
                known = _learned(known, field, value, self.databases)
            except (_Refused, WindowError) as error:
                self.refuse((*path, name), str(error))
        return known

    def _child(self, name: str, value: Any, known: Known, path: tuple[str, ...]) -> bool:
        """Read what is below a key, if it is no field; True if there was something to read."""
        word, at = plain(name), (*path, name)
        nested = isinstance(value, (dict, list))
        if nested and word in CONTAINERS:
            self.walk(value, known, at, CONTAINERS[word])
        elif nested and word in STATES_OF_LISTS:
            self.walk(value, replace(known, state=STATES_OF_LISTS[word]), at, _kind_of_list(known))
        elif word in FIELDS and not nested:
            return False
        elif word in UNUSED or (word in FIELDS and FIELDS[word] in ("before", "after")) or value is None:
            self.unused.update({word} & UNUSED)
            return False
        elif isinstance(value, (int, float)) and known.customer_id:
            # A number can be no state, so nothing is lost by it.
            self.unused.add(word)
            return False
        else:
            self._keyed(name, value, known, path, _kind_of_key(name, known, self.clusters))
        return True

    def _keyed(self, name: str, value: Any, known: Known, path: tuple[str, ...], kind: Kind) -> None:
        try:
            known = _named(known, kind, name, self.clusters, self.databases)
        except (_Refused, WindowError) as error:
            self.refuse((*path, name), str(error))
            return
        self.walk(value, known, (*path, name), "item")

    def _item(self, item: Any, known: Known, path: tuple[str, ...], kind: Kind) -> None:
        if not isinstance(item, str):
            self.walk(item, known, path, "item")
            return
        if known.state is None:
            self.refuse(path, f"is {item!r} in a list that names no state (completed, failed, pending)")
            return
        try:
            named = _named(known, _kind_of_list(known) if kind == "item" else kind, item, self.clusters, self.databases)
        except (_Refused, WindowError) as error:
            self.refuse(path, str(error))
            return
        self._entry(named, path)

    def _word(self, word: str, known: Known, path: tuple[str, ...]) -> None:
        try:
            self._entry(_learned(known, "status", word, self.databases), path)
        except _Refused as error:
            self.refuse(path, str(error))

    def _entry(self, known: Known, path: tuple[str, ...]) -> None:
        missing = _missing(known, self.clusters)
        if missing or known.start is None or known.end is None or known.state is None:
            self.refuse(path, missing or "has no state")
            return
        try:
            entry = Entry(
                customer_id=known.customer_id,
                profile_id=known.profile_id,
                database=known.database,
                start=known.start,
                end=known.end,
                state=known.state,
                before=dict(known.before),
                after=dict(known.after),
                workflow_id=known.workflow_id,
                at=known.at,
                reason=known.reason,
                source=f"{self.file}: {'.'.join(path) or 'top'}",
            )
        except (ValidationError, WindowError) as error:
            text = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
            self.refuse(path, text.removeprefix("Value error, "))
            return
        self.entries.append((known.cluster, entry))


def _kind_of_list(known: Known) -> Kind:
    return "day" if known.customer_id else "customer"


def _kind_of_key(name: str, known: Known, clusters: Collection[str]) -> Kind:
    """What a key that is no known word names: a day, a cluster, or a customer."""
    if _DAY.fullmatch(name):
        return "day"
    if name in clusters and not known.cluster:
        return "cluster"
    return "item" if known.customer_id else "customer"


def _named(
    known: Known, kind: Kind, name: str, clusters: Collection[str], databases: Mapping[str, tuple[str, str]]
) -> Known:
    if kind == "day":
        return _learned(known, "day", name, databases)
    if kind == "cluster":
        if name not in clusters:
            raise _Refused(f"is not a cluster; known: {', '.join(sorted(clusters))}")
        return replace(known, cluster=name)
    if kind == "customer":
        return _learned(known, "customer_id", name, databases)
    if kind == "database":
        return _learned(known, "database", name, databases)
    raise _Refused("is a field that is not known here; remove it, or give its value a known name")


def _learned(known: Known, field: str, value: Any, databases: Mapping[str, tuple[str, str]]) -> Known:
    """`known` with one field more. Raises _Refused or WindowError with what would be right."""
    if field == "before":
        return replace(known, before=_counts(value))
    if field == "after":
        return replace(known, after=_counts(value))
    if not isinstance(value, str):
        raise _Refused(f"is {value!r}; a text is expected")
    if field in ("day", "start", "end", "at"):
        return _with_time(known, field, value)
    if field == "status":
        state = state_of(value)
        if state is None:
            raise _Refused(f"{value!r} is not a known state (completed, failed, running, deleted, pending, ...)")
        return replace(known, state=state)
    if field == "reason":
        return replace(known, reason=value[:_LONGEST_REASON])
    if field == "database":
        customer, profile = databases.get(value, (known.customer_id, known.profile_id))
        return replace(known, database=value, customer_id=customer, profile_id=profile)
    if field == "workflow_id":
        return _with_workflow(known, value)
    if field == "cluster":
        return replace(known, cluster=value)
    if field == "profile_id":
        return replace(known, profile_id=value)
    return replace(known, customer_id=value)


def _with_time(known: Known, field: str, value: str) -> Known:
    if field == "at":
        return replace(known, at=_moment(value))
    day = _day(value)
    if field == "start":
        return replace(known, start=day)
    if field == "end":
        return replace(known, end=day)
    return replace(known, start=day, end=day + timedelta(days=1))


def _with_workflow(known: Known, workflow_id: str) -> Known:
    """With the id, and with customer and profile if the id can be read in one way only."""
    known = replace(known, workflow_id=workflow_id)
    match = _WORKFLOW.fullmatch(workflow_id)
    if known.customer_id or match is None or match["who"].count("-") != 1:
        return known
    customer, profile = match["who"].split("-")
    return replace(known, customer_id=customer, profile_id=profile)


def _missing(known: Known, clusters: Collection[str]) -> str:
    if not known.cluster:
        return "names no cluster; say --cluster"
    if known.cluster not in clusters:
        return f"cluster {known.cluster!r} is not known; known: {', '.join(sorted(clusters))}"
    if not known.customer_id and known.database:
        return (
            f"database {known.database!r} is named without its customer, and its name cannot be read back; "
            "import the file with the mapping (backfill_tracking.json) together with this one"
        )
    if not known.customer_id:
        return "names no customer (a workflow id with more than two parts cannot be cut for sure)"
    if known.start is None or known.end is None:
        return "names no days; say --start and --end (exclusive) for entries without any"
    return ""


def _day(value: str) -> date:
    midnight = _MIDNIGHT.fullmatch(value)
    return parse_day(midnight.group(1) if midnight else value, "day")


def _moment(value: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise _Refused(f"{value!r} is not a time; write it as 2026-02-21T10:00:00Z") from error
    # The scripts wrote naive times of the machine that they ran on; which one is not known.
    return moment.replace(tzinfo=UTC) if moment.utcoffset() is None else moment.astimezone(UTC)


def _counts(value: Any) -> tuple[tuple[str, int], ...]:
    """Rows per table; one number alone is that of `scorecard`."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = {"scorecard": value}
    if not isinstance(value, dict):
        raise _Refused(f"is {value!r}; rows per table such as {{'scorecard': 10}} are expected")
    for table, rows in value.items():
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
            raise _Refused(f"{table} is {rows!r}; a number of rows from 0 on is expected")
    return tuple(sorted(value.items()))

"""The plan of a run: windows as frozen records, their order, their hash, and what is refused."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

from include.scorecard_backfill import names
from include.scorecard_backfill.planning.windows import DateRange

CONVERSATIONS_PER_MINUTE = 1_100
"""Throughput of one reindex workflow, measured in production (real-system.md)."""


class PlanError(ValueError):
    """The plan is refused. ``problems`` are sentences, each with the value and what would be right."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the plan is refused, nothing was deleted:\n- " + "\n- ".join(self.problems))


@dataclass(frozen=True, slots=True)
class Database:
    """A customer's database of one profile, and which of the configured tables exist in it."""

    name: str
    profile_id: str
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Volume:
    """Rows and distinct conversations of one database, table, pair and UTC day (rows are not FINAL: an estimate)."""

    database: str
    table: str
    customer_id: str
    profile_id: str
    day: date
    rows: int
    conversations: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """What ClickHouse holds: tables per database, pairs per database, volumes of the range."""

    tables: Mapping[str, tuple[str, ...]]
    pairs: Mapping[str, tuple[tuple[str, str], ...]]
    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """One customer and half-open UTC day range: the unit of work. ``start`` in, ``end`` out, both ISO days.

    ``conversations`` and ``rows`` (per table) are estimates of the plan. ``part_of`` is the key of the failed window
    that this one was cut from; ``before`` then holds that window's counts per ``database.table`` for these days.
    """

    key: str
    cluster: str
    customer_id: str
    start: str
    end: str
    mode: str
    databases: tuple[Database, ...]
    conversations: int = 0
    rows: Mapping[str, int] = field(default_factory=dict)
    part_of: str = ""
    before: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Short ASCII name shown on the grid."""
        return f"{self.customer_id} {self.start}..{self.end}"

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types only, with its label."""
        return {**asdict(self), "databases": [asdict(d) | {"tables": list(d.tables)} for d in self.databases],
                "label": self.label}  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Window:
        """Return the record of :meth:`to_json`. Raises TypeError or KeyError when fields are missing or unknown."""
        fields = {k: v for k, v in data.items() if k != "label"}
        fields["databases"] = tuple(
            Database(d["name"], d["profile_id"], tuple(d["tables"])) for d in fields["databases"]
        )
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Plan:
    """All windows of a run in the order of admission, and the hash of exactly this list."""

    windows: tuple[Window, ...]
    notes: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """Hash over every window; what was approved is what runs."""
        return plan_hash([w.to_json() for w in self.windows])


def plan_hash(windows: Sequence[Mapping[str, Any]]) -> str:
    """Return the hash (16 hex digits) of windows in their JSON form."""
    return names.digest(json.dumps(list(windows), sort_keys=True, separators=(",", ":")))


@dataclass(frozen=True, slots=True)
class Request:
    """What a run asks for. ``split`` turns a customer's range and its conversations per day into windows."""

    cluster: str
    run_id: str
    mode: str
    range: DateRange
    customers: tuple[str, ...]
    all_customers: bool
    split: Callable[[str, DateRange, Mapping[date, int]], Sequence[DateRange]]
    max_windows: int
    volume_table: str = "scorecard"
    required_tables: tuple[str, ...] = ("scorecard",)


def build_plan(
    request: Request, inventory: Inventory, table_problems: Mapping[str, Sequence[str]] | None = None
) -> Plan:
    """Return the plan. Raises PlanError with every problem found: unknown customers, identity, size.

    ``table_problems`` are sentences by database; those of databases that the run touches refuse it.
    Order: the customers with most conversations first, because with one window per customer at a time the biggest
    customer's chain decides how long the whole takes; then by customer id and day.
    """
    owned = _databases_by_customer(inventory)
    chosen = sorted(owned) if request.all_customers else list(dict.fromkeys(request.customers))
    problems = _unknown(chosen, owned, request.cluster)
    problems += _identity_problems(set(chosen), inventory)
    databases = {c: _databases(owned[c], inventory, request) for c in chosen if c in owned}
    touched = {d.name for listed in databases.values() for d in listed}
    problems += [p for db, listed in (table_problems or {}).items() if db in touched for p in listed]
    problems += _ownerless(request, chosen, inventory, table_problems or {})
    problems += [
        f"customer {c!r}: database {d.name!r} lacks the tables {sorted(missing)}; needed are {request.required_tables}"
        for c, listed in databases.items()
        for d in listed
        if (missing := set(request.required_tables) - set(d.tables))
    ]
    if problems:
        raise PlanError(problems)
    days = _conversations_per_day(inventory, request.volume_table)
    windows = [
        window
        for customer in sorted(chosen, key=lambda c: (-sum(days[c].values()), c))
        for window in _windows_of(request, customer, databases[customer], days[customer], inventory)
    ]
    if len(windows) > request.max_windows:
        raise PlanError(
            [
                f"{len(windows)} windows > {request.max_windows} ([core] max_map_length):"
                " choose larger windows, fewer customers or a shorter range per run"
            ]
        )
    return Plan(tuple(windows))


def _databases_by_customer(inventory: Inventory) -> dict[str, list[tuple[str, str]]]:
    owned: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for database, pairs in sorted(inventory.pairs.items()):
        for customer, profile in pairs:
            owned[customer].append((database, profile))
    return owned


def _unknown(chosen: Iterable[str], owned: Mapping[str, object], cluster: str) -> list[str]:
    problems = []
    for customer in chosen:
        if customer not in owned:
            near = difflib.get_close_matches(customer, list(owned), n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(sorted(owned)[:10]) or 'none'}"
            problems.append(
                f"customers: {customer!r} has no database with rows on cluster {cluster} (its databases would be"
                f" '{names.sanitize_database_name(customer, '')}<profile>'); {hint}"
            )
    return problems


def _ownerless(
    request: Request, chosen: Iterable[str], inventory: Inventory, table_problems: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return problems of databases that may be a chosen customer's, whose owner cannot be read because of them.

    Without this a customer's profile would be left out of the plan without a word.
    """
    heads = tuple(names.sanitize_database_name(customer, "") for customer in chosen)
    return [
        f"{problem} (whose database {database!r} is, is not known because of it)"
        for database, listed in sorted(table_problems.items())
        if database not in inventory.pairs and (request.all_customers or database.startswith(heads))
        for problem in listed
    ]


def _identity_problems(chosen: set[str], inventory: Inventory) -> list[str]:
    problems = []
    for database, pairs in sorted(inventory.pairs.items()):
        if not any(customer in chosen for customer, _ in pairs):
            continue
        if len(pairs) > 1:
            listed = ", ".join(f"{c}/{p}" for c, p in sorted(pairs))
            problems.append(
                f"database {database!r} holds rows of {listed}: exactly one customer and profile is expected"
            )
            continue
        ((customer, profile),) = pairs
        expected = names.sanitize_database_name(customer, profile)
        if expected != database:
            problems.append(f"database {database!r} holds rows of {customer}/{profile}, which belong in {expected!r}")
    return problems


def _databases(owned: Iterable[tuple[str, str]], inventory: Inventory, request: Request) -> tuple[Database, ...]:
    return tuple(Database(name, profile, inventory.tables.get(name, ())) for name, profile in sorted(owned))


def _conversations_per_day(inventory: Inventory, volume_table: str) -> dict[str, dict[date, int]]:
    days: dict[str, dict[date, int]] = defaultdict(lambda: defaultdict(int))
    for volume in inventory.volumes:
        if volume.table == volume_table:
            days[volume.customer_id][volume.day] += volume.conversations
    return days


def _windows_of(
    request: Request,
    customer: str,
    databases: tuple[Database, ...],
    days: Mapping[date, int],
    inventory: Inventory,
) -> Iterable[Window]:
    rows = [v for v in inventory.volumes if v.customer_id == customer]
    for part in request.split(customer, request.range, days):
        inside = [v for v in rows if part.start <= v.day < part.end]
        per_table: dict[str, int] = defaultdict(int)
        for volume in inside:
            per_table[volume.table] += volume.rows
        yield Window(
            key=names.window_key(
                cluster=request.cluster,
                run_id=request.run_id,
                customer_id=customer,
                start=part.start.isoformat(),
                end=part.end.isoformat(),
            ),
            cluster=request.cluster,
            customer_id=customer,
            start=part.start.isoformat(),
            end=part.end.isoformat(),
            mode=request.mode,
            databases=databases,
            conversations=sum(n for day, n in days.items() if part.start <= day < part.end),
            rows=dict(sorted(per_table.items())),
        )

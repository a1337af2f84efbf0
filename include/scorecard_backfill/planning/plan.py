"""The plan of a run: windows as frozen records, their order, and what is refused."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from include.scorecard_backfill import names
from include.scorecard_backfill.config.fields import RunMode, customer_id_reason
from include.scorecard_backfill.debts import Debt, databases_of, owed_by
from include.scorecard_backfill.planning.windows import DateRange
from include.scorecard_backfill.records import Database, Order, Window

CONVERSATIONS_PER_MINUTE = 1_100
"""Throughput of one reindex workflow, measured in production (real-system.md)."""


class PlanError(ValueError):
    """The plan is refused. ``problems`` are sentences, each with the value and what would be right."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the plan is refused, nothing was deleted:\n- " + "\n- ".join(self.problems))


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
class Plan:
    """All windows of a run in the order of admission, and what a reader must know of them."""

    windows: tuple[Window, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What a run asks for. ``split`` turns a customer's range and its conversations per day into windows.

    ``debts`` are all open ones of the cluster: owed days of the range come in as windows, also of customers of whom no
    row is left that an inventory could find. ``left_out`` are customers that all_customers does not mean. ``plan_id``
    is this plan's own (``names.new_plan_id``).
    """

    cluster: str
    run_id: str
    mode: RunMode
    range: DateRange
    customers: tuple[str, ...]
    all_customers: bool
    split: Callable[[str, DateRange, Mapping[date, int]], Sequence[DateRange]]
    max_windows: int
    volume_table: str = "scorecard"
    required_tables: tuple[str, ...] = ("scorecard",)
    order: Order = "delete_first"
    debts: tuple[Debt, ...] = ()
    left_out: frozenset[str] = frozenset()
    plan_id: str = ""


def build_plan(
    request: Request, inventory: Inventory, table_problems: Mapping[str, Sequence[str]] | None = None
) -> Plan:
    """Return the plan. Raises PlanError with every problem found: unknown customers, identity, size.

    ``table_problems`` are sentences by database; those of databases that the run touches refuse it.
    Order: the customers with most conversations first, because with one window per customer at a time the biggest
    customer's chain decides how long the whole takes; then by customer id and day.
    """
    owed = [debt for debt in request.debts if debt.range.overlaps(request.range)]
    owned = _databases_by_customer(inventory)
    for customer, known in databases_of(owed).items():
        pairs = {(d.name, d.profile_id) for d in known} | set(owned.get(customer, ()))
        owned[customer] = sorted(pairs)
    everybody = sorted(set(owned) - request.left_out)
    chosen = everybody if request.all_customers else list(dict.fromkeys(request.customers))
    problems = _unknown(chosen, owned, request.cluster)
    if request.all_customers and not owned and not table_problems:
        problems.append(
            f"all_customers: no database of cluster {request.cluster} shows a row of {request.volume_table!r}: nothing"
            " would be done for anybody. What a user may not read is not listed: look at the rights of the connection"
        )
    # What the form would refuse, the Job's builder would refuse after the delete: ids of all_customers, too.
    problems += [
        f"customers: {c!r} {why}: its windows could not be reindexed" for c in chosen if (why := customer_id_reason(c))
    ]
    problems += _identity_problems(set(chosen), inventory)
    databases = {c: _databases(owned[c], inventory, owed) for c in chosen if c in owned}
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
    days = _conversations_per_day(inventory, request.volume_table, owed)
    windows = [
        window
        for customer in sorted(chosen, key=lambda c: (-sum(days[c].values()), c))
        for window in _windows_of(request, customer, databases[customer], days[customer], inventory)
    ]
    if len(windows) > request.max_windows:
        raise PlanError(
            [
                f"{len(windows)} windows > {request.max_windows} ([core] max_map_length, [triggerer] capacity):"
                " choose larger windows, fewer customers or a shorter range per run"
            ]
        )
    return Plan(tuple(windows))


EVERYBODY = frozenset({"*", "%", "all", "any", "every", "everybody", "everyone"})
"""What people write who mean all customers; the old scripts took `all` (docs/from-the-scripts.md)."""

MANY_WINDOWS = 300
"""More than the batches of a run hold by default: larger ones cost the scheduler more (docs/adr/0026)."""


def size_notes(windows: Sequence[Window]) -> list[str]:
    """Return what a person should know of the number of windows of a plan: nothing for a usual one."""
    if len(windows) <= MANY_WINDOWS:
        return []
    return [
        f"{len(windows):,} windows in one run: Airflow's scheduler looks at each one that waits, at every turn of its"
        " loop, so that all of them go slower. More windows.batches in the cluster's file, or runs of fewer customers"
        " or shorter ranges one after another, are done sooner"
    ]


def overlap_notes(windows: Iterable[Window], told: Container[str]) -> list[str]:
    """Return what somebody who chose overlap should know: where it is not used, because nobody could prove it later.

    ``told`` are the tables whose old rows can be told from those that were written again.
    """
    tables = sorted({table for window in windows for table, _ in window.slices() if table not in told})
    if not tables:
        return []
    return [
        f"overlap is not used for windows with {', '.join(tables)}: clickhouse.written_columns names no column there"
        " that tells old rows from new ones, so their reindex waits for the end of every mutation"
    ]


def _databases_by_customer(inventory: Inventory) -> dict[str, list[tuple[str, str]]]:
    owned: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for database, pairs in sorted(_owners(inventory).items()):
        for customer, profile in pairs:
            owned[customer].append((database, profile))
    return owned


def _owners(inventory: Inventory) -> Mapping[str, Sequence[tuple[str, str]]]:
    """Return whose rows each database holds; where the volume table has none, by the other tables' rows of these days.

    A customer of whom only such rows are left would else be planned for by nobody, and nobody would say so.
    """
    others: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for volume in inventory.volumes:
        if volume.rows and volume.database not in inventory.pairs:
            others[volume.database].add((volume.customer_id, volume.profile_id))
    return {**inventory.pairs, **{database: sorted(found) for database, found in others.items()}}


def _unknown(chosen: Iterable[str], owned: Mapping[str, object], cluster: str) -> list[str]:
    problems = []
    for customer in chosen:
        if customer not in owned:
            near = difflib.get_close_matches(customer, list(owned), n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(sorted(owned)[:10]) or 'none'}"
            if customer.strip().casefold() in EVERYBODY:
                hint = "for every customer leave customers empty and set all_customers to true"
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
        f"{problem} (so it is not known whose database {database!r} is)"
        for database, listed in sorted(table_problems.items())
        if database not in inventory.pairs and (request.all_customers or database.startswith(heads))
        for problem in listed
    ]


def _identity_problems(chosen: set[str], inventory: Inventory) -> list[str]:
    problems = []
    for database, pairs in sorted(_owners(inventory).items()):
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


def _databases(owned: Iterable[tuple[str, str]], inventory: Inventory, owed: Sequence[Debt]) -> tuple[Database, ...]:
    remembered = {d.name: d.tables for debt in owed for d in debt.databases}
    return tuple(
        Database(name=name, profile_id=profile, tables=inventory.tables.get(name) or remembered.get(name, ()))
        for name, profile in sorted(owned)
    )


def _conversations_per_day(inventory: Inventory, volume_table: str, owed: Sequence[Debt]) -> dict[str, dict[date, int]]:
    days: dict[str, dict[date, int]] = defaultdict(lambda: defaultdict(int))
    for volume in inventory.volumes:
        if volume.table == volume_table:
            days[volume.customer_id][volume.day] += volume.conversations
    for debt in owed:
        for table in debt.before:
            for text, numbers in table.days.items():
                day = date.fromisoformat(text)
                # Rows that were deleted are not counted any more; what they say about the size of a window still holds.
                days[debt.customer_id][day] = max(days[debt.customer_id][day], numbers.conversations)
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
        window = Window(
            key=names.window_key(
                cluster=request.cluster,
                run_id=request.run_id,
                customer_id=customer,
                start=part.start.isoformat(),
                end=part.end.isoformat(),
                plan=request.plan_id,
            ),
            cluster=request.cluster,
            customer_id=customer,
            start=part.start,
            end=part.end,
            mode=request.mode,
            order=request.order,
            databases=databases,
            conversations=sum(n for day, n in days.items() if part.start <= day < part.end),
            rows=dict(sorted(per_table.items())),
        )
        yield window.model_copy(update={"before": owed_by(window, request.debts)})

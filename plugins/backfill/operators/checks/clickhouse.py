"""What the stages need of ClickHouse, done or asked for harmlessly: hosts, rights, settings, tables, policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from clickhouse_connect.driver.exceptions import DatabaseError

from backfill.hooks.clickhouse import BackfillClickHouse, PinnedSettingError
from include.scorecard_backfill import sql
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.planning.columns import version_column
from include.scorecard_backfill.sql import health as sql_health
from include.scorecard_backfill.sql.rights import (
    SYSTEM_TABLES,
    Right,
    check_grant_statement,
    granted,
    row_policies_statement,
    shown_statement,
)
from include.scorecard_backfill.sql.spool import spooled_statement
from include.scorecard_backfill.verdicts.counts import Host

Tables = Mapping[str, Sequence[str]]
"""Usable local tables by database."""

SYNTAX_ERROR, SETTING_FIXED, ACCESS_DENIED = 62, 452, 497

SHOWN = 5
"""Problems of one kind that are named; the rest is counted."""

NO_DAY = (date(1970, 1, 1), date(1970, 1, 2))
"""A day without rows: what is done with it does everything and reads next to nothing."""


def clickhouse(config: ClusterConfig, problems: list[str], notes: list[str]) -> None:
    """Add what is missing to ``problems``, and what a person should know to ``notes``.

    Raises:
        TopologyError: a host is missing or cannot be told from another one.
        ClickHouseError: a statement of the stages is refused.
    """
    hook = BackfillClickHouse(config)
    try:
        hosts = hook.topology()
    except PinnedSettingError as error:
        problems.append(f"clickhouse: {error}")
        return
    except DatabaseError as error:
        problems.append(_fixed_setting(hook, error))
        return
    notes.append(f"clickhouse: {len(hosts)} hosts: {', '.join(h.name for h in hosts)}")
    problems += _user(hook) or _ddl_settings(hook)
    _reads(hook, hosts, problems)
    usable, unusable, rows = hook.tables(hosts)
    _tables(usable, unusable, problems, notes)
    _rights(hook, config, usable, problems, notes)
    _policies(hook, usable, hosts, problems, notes)
    _written(config, rows, problems)
    _clocks(hook, config, problems)
    _counts(hook, usable, hosts)


def _user(hook: BackfillClickHouse) -> list[str]:
    """Settings by which a user may not change anything, whatever its rights are."""
    values = {row["name"]: str(row["value"]) for row in hook.rows(sql_health.WRITE_SETTINGS)}
    wrong = [f"{name} = {values[name]}" for name, needed in (("readonly", "0"), ("allow_ddl", "1"))
             if values.get(name, needed) != needed]  # fmt: skip
    if not wrong:
        return []
    who = f"the profile of the user of {hook.config.conn_id!r}"
    return [f"clickhouse: {who} has {', '.join(wrong)}: no DELETE is possible"]


def _ddl_settings(hook: BackfillClickHouse) -> list[str]:
    """The settings of a DELETE, sent with a question: what a profile fixes or bounds is said before it matters."""
    try:
        hook.try_ddl_settings()
    except DatabaseError as error:
        return [_fixed_setting(hook, error)]
    return []


def _fixed_setting(hook: BackfillClickHouse, error: DatabaseError) -> str:
    """Return the problem of a setting that this user may not set. Raises every other error again."""
    # The driver refuses by itself what the server lists as read-only.
    if error.code != SETTING_FIXED and "readonly" not in str(error):
        raise error
    return (
        f"clickhouse: the profile of the user of {hook.config.conn_id!r} fixes or bounds a setting that must be sent:"
        f" {error}; let this user change it (for max_execution_time: or lower clickhouse.query_timeout_seconds and"
        " ddl_timeout_seconds)"
    )


def _reads(hook: BackfillClickHouse, hosts: Sequence[Host], problems: list[str]) -> None:
    """Everything that the stages look at, looked at once."""
    hook.mutations()
    hook.health(hosts)
    hook.queued_ddl("backfill:preflight")
    hook.running_ddl("backfill:preflight")
    hook.rows(spooled_statement(hook.config.cluster, ["default"]))
    problems += [
        f"clickhouse: {row['tables']} tables are read-only on {row['host']} (Keeper session lost)"
        for row in hook.rows(sql.replicas_statement(hook.config.cluster))
    ]


def _tables(usable: Tables, unusable: Mapping[str, Sequence[str]], problems: list[str], notes: list[str]) -> None:
    """A table that cannot be used stops the windows of its customer in the plan; if all are like that, the run here."""
    said = [f"clickhouse: {problem}" for listed in unusable.values() for problem in listed]
    if not usable and not unusable:
        problems.append(
            "clickhouse: no database with one of the configured tables is shown to this user: it lacks SELECT on them"
            " (what may not be read is not listed), or clickhouse.tables names others than the cluster has"
        )
    more = [f"clickhouse: and {len(said) - SHOWN} more tables that cannot be used"] if len(said) > SHOWN else []
    if said and not any(usable.values()):
        problems += [*said[:SHOWN], *more]
    else:
        notes += [f"{one} (its customer cannot be planned)" for one in said[:SHOWN]] + more


def wanted_rights(config: ClusterConfig, usable: Tables) -> list[Right]:
    """Return the rights that the stages need, as broad as they are used."""
    rights = [Right("CLUSTER"), *(Right("SELECT", "system", table) for table in SYSTEM_TABLES)]
    for database, tables in sorted(usable.items()):
        for table in tables:
            rights.append(Right("SELECT", database, table))
            if table in config.clickhouse.tables:
                rights.append(Right("ALTER DELETE", database, table))
        if config.snapshot.enabled:
            rights += [Right(privilege, database) for privilege in ("CREATE TABLE", "DROP TABLE", "INSERT")]
    return rights


def _rights(
    hook: BackfillClickHouse, config: ClusterConfig, usable: Tables, problems: list[str], notes: list[str]
) -> None:
    rights = wanted_rights(config, usable)
    who = f"the user of {config.clickhouse.conn_id!r}"
    try:
        missing = _missing(hook, rights)
    except DatabaseError as error:
        if error.code != SYNTAX_ERROR:
            raise
        lines = [str(next(iter(row.values()))) for row in hook.rows("SHOW GRANTS")]
        answers = {right: granted(lines, right) for right in rights}
        missing = [right for right in rights if answers[right] == "no"]
        unknown = [right for right in rights if answers[right] == "unknown"]
        if unknown:
            notes.append(
                f"clickhouse: this server knows no CHECK GRANT; whether a role gives {who}"
                f" {unknown[0].text} (and {len(unknown) - 1} more rights) is not known"
            )
    problems += [f"clickhouse: {who} lacks the right {right.text}" for right in missing[:SHOWN]]
    if len(missing) > SHOWN:
        problems.append(f"clickhouse: {who} lacks {len(missing) - SHOWN} more rights")


def _missing(hook: BackfillClickHouse, rights: Sequence[Right]) -> list[Right]:
    """Return the rights that the server denies; what is given on everything is not asked for each table."""
    privileges = sorted({right.privilege for right in rights})
    broad = dict(zip(privileges, hook.answers([check_grant_statement(Right(p)) for p in privileges]), strict=True))
    rest = [right for right in rights if broad[right.privilege] != "1"]
    answers = hook.answers([check_grant_statement(right) for right in rest]) if rest else []
    return [right for right, answer in zip(rest, answers, strict=True) if answer != "1"]


def _policies(
    hook: BackfillClickHouse, usable: Tables, hosts: Sequence[Host], problems: list[str], notes: list[str]
) -> None:
    """Rows that a policy hides from us are not counted, but a DELETE takes them."""
    try:
        rows = hook.rows(row_policies_statement(hook.config.cluster, hook.config.tables))
    except DatabaseError as error:
        if error.code != ACCESS_DENIED:
            raise
        notes.append("clickhouse: row policies cannot be read (SHOW ROW POLICIES): none is assumed")
        return
    if silent := sorted({host.name for host in hosts} - {str(row["host"]) for row in rows}):
        problems.append(f"clickhouse: no look at the row policies of {', '.join(silent)}")
    found: dict[tuple[str, str, str, bool], list[str]] = {}
    for row in rows:
        for database, table, policy, for_us in row["policies"]:
            if database in usable:
                found.setdefault((database, table, policy, bool(for_us)), []).append(str(row["host"]))
    ours = [
        f"{policy} on {database}.{table or '*'} ({', '.join(sorted(where))})"
        for (database, table, policy, for_us), where in sorted(found.items())
        if for_us
    ]
    if ours:
        problems.append(
            f"clickhouse: row policies hide rows from the user of {hook.config.conn_id!r}, which a DELETE takes and no"
            f" count shows: {', '.join(ours[:SHOWN])}"
        )
    blind = [name for name in found if not name[3]]
    problems += _unseen(hook, sorted({(d, t) for d, named, *_ in blind for t in ([named] if named else usable[d])}))


def _unseen(hook: BackfillClickHouse, tables: Sequence[tuple[str, str]]) -> list[str]:
    """A table with a policy for others may show nothing at all to everybody else: that is a switch of the server."""
    found = [
        f"{database}.{table} on {row['host']}"
        for database, table in tables
        for row in hook.rows(shown_statement(hook.config.cluster, database, table))
        if not int(row["shown"]) and int(row["held"])
    ]
    if not found:
        return []
    return [
        f"clickhouse: the user of {hook.config.conn_id!r} sees no row of {', '.join(found[:SHOWN])}, whose parts hold"
        " rows, and there are row policies for others: give this user a policy USING 1, or set"
        " users_without_row_policies_can_read_rows on the servers"
    ]


def _written(config: ClusterConfig, rows: Sequence[Mapping[str, Any]], problems: list[str]) -> None:
    """Order reindex_first needs a column that tells what was written again."""
    lacking = [table for table in config.clickhouse.tables if table not in config.clickhouse.written_columns]
    if "reindex_first" not in config.orders or not lacking:
        return
    for table in lacking:
        versions = {version_column(row["engine_full"]) for row in rows if row["table"] == table} - {""}
        hint = f"; the engine's version column is {', '.join(sorted(versions))}" if versions else ""
        problems.append(
            f"clickhouse: order reindex_first needs clickhouse.written_columns for {table}{hint}; without one only"
            " delete_first can be offered"
        )


def _clocks(hook: BackfillClickHouse, config: ClusterConfig, problems: list[str]) -> None:
    """Old rows are told from new ones by time: no two hosts may differ by more than the margin."""
    if not config.clickhouse.written_columns:
        return
    rows = hook.rows(sql_health.clocks_statement(config.clickhouse.cluster))
    times = {str(row["host"]): int(row["now"]) for row in rows}
    first, last = min(times, key=lambda h: times[h]), max(times, key=lambda h: times[h])
    apart = (times[last] - times[first]) / 1_000
    if apart > config.clickhouse.clock_skew_seconds:
        problems.append(
            f"clickhouse: the clocks of {first} and {last} differ by {apart:.0f} s, more than clock_skew_seconds"
            f" ({config.clickhouse.clock_skew_seconds}): what is old cannot be told; correct the clocks"
        )


def _counts(hook: BackfillClickHouse, usable: Tables, hosts: Sequence[Host]) -> None:
    """Count a day without rows in the tables of one database, with everything that a count of a window does."""
    database = next((name for name, tables in sorted(usable.items()) if tables), None)
    if database is None:
        return
    part = sql.Slice(database, "", "", *NO_DAY)
    listed = [(table, part) for table in usable[database] if table in hook.config.tables]
    hook.census(listed, hosts, hook.server_time())
    hook.forbidden_rows(listed, hosts)

"""What preflight asks of ClickHouse and what it says of each answer: whole sentences, over a server of told answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from backfill.hooks.clickhouse import PinnedSettingError
from backfill.operators.checks import clickhouse as module
from backfill.operators.checks.clickhouse import clickhouse, wanted_rights
from include.scorecard_backfill import sql
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import merge
from include.scorecard_backfill.sql import health as sql_health
from include.scorecard_backfill.sql.rights import SYSTEM_TABLES, row_policies_statement, shown_statement
from include.scorecard_backfill.sql.spool import spooled_statement
from include.scorecard_backfill.verdicts.counts import Host

Json = dict[str, Any]
Said = tuple[list[str], list[str]]

HOSTS = (Host("node-1-1", 1), Host("node-2-1", 2))
WELL = "clickhouse: 2 hosts: node-1-1, node-2-1"
NOW = datetime(2026, 3, 2, 6, tzinfo=UTC)

BASE: Json = {
    "name": "demo",
    "kubernetes": {"context": "demo"},
    "clickhouse": {"conn_id": "ch_demo", "tables": ["scorecard"]},
}

REPLICAS = sql.replicas_statement("conversations")
CLOCKS = sql_health.clocks_statement("conversations")
POLICIES = row_policies_statement("conversations", ["scorecard"])
TIMES = {"scorecard": {"column": "updated_at"}}


def refusal(code: int, text: str) -> DatabaseError:
    """An error of the server."""
    return DatabaseError(text, code=code)


@dataclass
class Server:
    """Answers as the hook does; ``told``: by statement its rows, or an error that is raised."""

    config: Any = None
    hosts: Any = HOSTS
    fixed: Exception | None = None
    denied: Sequence[str] = ()
    no_check: Exception | None = None
    usable: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"acme_voice": ("scorecard",)})
    unusable: Mapping[str, Sequence[str]] = field(default_factory=dict)
    listed: list[Json] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)

    def __call__(self, config: ClusterConfig) -> Server:
        """Stand for the hook's constructor."""
        self.config = config.clickhouse
        return self

    def rows(self, statement: str) -> list[Json]:
        """Answer one statement; one that nobody has told of is a mistake of the check."""
        self.asked.append(statement)
        found = self.told[statement]
        if isinstance(found, Exception):
            raise found
        return list(found)

    def answers(self, statements: Sequence[str]) -> list[str]:
        """Answer CHECK GRANT: 0 for a right that is denied, and for one on everything of which a part is."""
        if self.no_check:
            raise self.no_check
        self.asked += statements
        wanted = [text.removeprefix("CHECK GRANT ") for text in statements]
        return ["0" if any(lies_in(one, text) for one in self.denied) else "1" for text in wanted]

    def topology(self) -> Any:
        """Return the hosts, or raise what was told."""
        if isinstance(self.hosts, Exception):
            raise self.hosts
        return self.hosts

    def tables(self, hosts: Any) -> Any:
        """Return what was told of the tables."""
        assert hosts == HOSTS
        return self.usable, self.unusable, self.listed

    def try_ddl_settings(self) -> None:
        """Take the settings of a DELETE, or refuse them."""
        if self.fixed:
            raise self.fixed

    def server_time(self) -> datetime:
        """Return the servers' time."""
        return NOW

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Keep every other call with what it was given."""
        return lambda *args: self.asked.append((name, *args))


def lies_in(denied: str, wanted: str) -> bool:
    """True when a denied right is the wanted one, or a part of it."""
    return denied == wanted or (wanted.endswith(" ON *.*") and denied.startswith(wanted.removesuffix("*.*")))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A healthy cluster of two hosts with one customer."""
    made = Server()
    made.told = {
        sql_health.WRITE_SETTINGS: [{"name": "readonly", "value": "0"}, {"name": "allow_ddl", "value": 1}],
        spooled_statement("conversations", ["default"]): [],
        REPLICAS: [],
        POLICIES: [{"host": host.name, "policies": []} for host in HOSTS],
        CLOCKS: [{"host": "node-1-1", "now": 5_000}, {"host": "node-2-1", "now": 65_000}],
    }
    monkeypatch.setattr(module, "BackfillClickHouse", made)
    return made


def config(**fields: Any) -> ClusterConfig:
    """The cluster's file with these fields on top."""
    return ClusterConfig.model_validate(merge(BASE, fields))


def look(**fields: Any) -> Said:
    """The problems and the notes of a cluster whose file has these fields on top."""
    problems: list[str] = []
    notes: list[str] = []
    clickhouse(config(**fields), problems, notes)
    return problems, notes


def test_a_healthy_cluster_is_asked_everything_and_has_no_problem(server: Server) -> None:
    assert look(clickhouse={"written_columns": TIMES}) == ([], [WELL])
    part = sql.Slice("acme_voice", "", "", date(1970, 1, 1), date(1970, 1, 2))
    listed = [("scorecard", part)]
    assert [call for call in server.asked if isinstance(call, tuple)] == [
        ("mutations",),
        ("health", HOSTS),
        ("queued_ddl", "backfill:preflight"),
        ("running_ddl", "backfill:preflight"),
        ("census", listed, HOSTS, NOW),
        ("forbidden_rows", listed, HOSTS),
    ]
    assert set(server.told) <= {call for call in server.asked if isinstance(call, str)}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ""),
        ({"readonly": "0", "allow_ddl": "1"}, ""),
        ({"readonly": 1, "allow_ddl": 1}, "readonly = 1"),
        ({"readonly": "0", "allow_ddl": "0"}, "allow_ddl = 0"),
        ({"readonly": "2", "allow_ddl": "0"}, "readonly = 2, allow_ddl = 0"),
    ],
)
def test_a_user_that_may_change_nothing_is_named_once(server: Server, values: Json, said: str) -> None:
    server.told[sql_health.WRITE_SETTINGS] = [{"name": name, "value": value} for name, value in values.items()]
    # The settings of a DELETE are tried only for a user that may send one.
    server.fixed = refusal(452, "max_execution_time is fixed") if said else None
    text = f"clickhouse: the profile of the user of 'ch_demo' has {said}: no DELETE is possible"
    assert look()[0] == [text] * bool(said)


@pytest.mark.parametrize(
    ("error", "is_said"),
    [
        (refusal(452, "max_execution_time is above 60"), True),
        (DatabaseError("limit is readonly"), True),
        (refusal(164, "Cannot modify a setting in readonly mode"), True),
        (refusal(497, "Not enough privileges"), False),
    ],
)
@pytest.mark.parametrize("where", ["hosts", "fixed"])
def test_a_setting_that_may_not_be_sent_is_a_problem_and_any_other_error_is_not_hidden(
    server: Server, where: str, error: DatabaseError, is_said: bool
) -> None:
    setattr(server, where, error)
    if not is_said:
        with pytest.raises(DatabaseError, match="Not enough privileges"):
            look()
        return
    text = (
        "clickhouse: the profile of the user of 'ch_demo' fixes or bounds a setting that must be sent:"
        f" {error}; let this user change it (for max_execution_time: or lower clickhouse.query_timeout_seconds and"
        " ddl_timeout_seconds)"
    )
    assert look() == ([text], [] if where == "hosts" else [WELL])


def test_a_setting_that_the_connection_pins_ends_the_look(server: Server) -> None:
    server.hosts = PinnedSettingError("connection ch_demo pins max_execution_time")
    assert look() == (["clickhouse: connection ch_demo pins max_execution_time"], [])
    assert server.asked == []


def test_tables_that_have_lost_keeper_are_named_with_their_host(server: Server) -> None:
    server.told[REPLICAS] = [{"host": "node-2-1", "tables": 3}, {"host": "node-1-1", "tables": 1}]
    assert look()[0] == [
        "clickhouse: 3 tables are read-only on node-2-1 (Keeper session lost)",
        "clickhouse: 1 tables are read-only on node-1-1 (Keeper session lost)",
    ]


BAD = {f"acme{n}_voice": [f"acme{n}_voice.scorecard is missing on node-2-1"] for n in range(7)}
FEW = dict(list(BAD.items())[:5])


@pytest.mark.parametrize(
    ("usable", "unusable", "problems", "notes"),
    [
        ({"globex_voice": ("scorecard",)}, FEW, 0, 5),
        ({"globex_voice": ("scorecard",)}, BAD, 0, 6),
        ({}, FEW, 5, 0),
        ({"globex_voice": ()}, BAD, 6, 0),
    ],
)
def test_tables_that_cannot_be_used_stop_a_run_when_no_other_is_left(
    server: Server, usable: Json, unusable: Json, problems: int, notes: int
) -> None:
    server.usable, server.unusable = usable, unusable
    found, said = look()
    assert (len(found), len(said) - 1) == (problems, notes)
    first = "clickhouse: acme0_voice.scorecard is missing on node-2-1"
    if problems:
        assert found[0] == first
    else:
        assert said[1] == f"{first} (its customer cannot be planned)"
    if unusable is BAD:
        assert (found or said)[-1] == "clickhouse: and 2 more tables that cannot be used"


def test_a_cluster_without_any_table_of_ours_is_a_problem(server: Server) -> None:
    server.usable = {}
    assert look()[0] == [
        "clickhouse: no database with one of the configured tables is shown to this user: it lacks SELECT on them"
        " (what may not be read is not listed), or clickhouse.tables names others than the cluster has"
    ]


SELECTS = [f"SELECT ON `system`.`{table}`" for table in SYSTEM_TABLES]


@pytest.mark.parametrize("enabled", [False, True])
def test_the_rights_are_those_that_the_stages_use(enabled: bool) -> None:
    usable = {"globex_voice": ("scorecard",), "acme_voice": ("scorecard", "conversations")}
    found = [right.text for right in wanted_rights(config(snapshot={"enabled": enabled}), usable)]
    copies = ["CREATE TABLE", "DROP TABLE", "INSERT"] if enabled else []
    assert found == [
        "CLUSTER ON *.*",
        *SELECTS,
        "SELECT ON `acme_voice`.`scorecard`",
        "ALTER DELETE ON `acme_voice`.`scorecard`",
        "SELECT ON `acme_voice`.`conversations`",
        *(f"{one} ON `acme_voice`.*" for one in copies),
        "SELECT ON `globex_voice`.`scorecard`",
        "ALTER DELETE ON `globex_voice`.`scorecard`",
        *(f"{one} ON `globex_voice`.*" for one in copies),
    ]


def test_a_right_that_is_given_on_everything_is_not_asked_for_each_table(server: Server) -> None:
    look()
    assert [one for one in server.asked if str(one).startswith("CHECK")] == [
        f"CHECK GRANT {privilege} ON *.*" for privilege in ("ALTER DELETE", "CLUSTER", "SELECT")
    ]


LACKS = "clickhouse: the user of 'ch_demo' lacks"


@pytest.mark.parametrize("number", [1, 5, 6, 8])
def test_rights_that_are_denied_are_named_and_from_the_sixth_on_counted(server: Server, number: int) -> None:
    server.denied = SELECTS[:number]
    said = [f"{LACKS} the right {one}" for one in SELECTS[: min(number, 5)]]
    assert look()[0] == said + ([f"{LACKS} {number - 5} more rights"] if number > 5 else [])
    rest = [one for one in server.asked if str(one).startswith("CHECK GRANT SELECT ON ")]
    assert len(rest) == 1 + len(SYSTEM_TABLES) + 1


@pytest.mark.parametrize(
    ("grants", "problems", "notes"),
    [
        (["GRANT ALL ON *.* TO reader"], [], []),
        (["GRANT SELECT, CLUSTER ON *.* TO reader"], ["ALTER DELETE ON `acme_voice`.`scorecard`"], []),
        (
            ["GRANT SELECT ON *.* TO reader", "GRANT cleaner TO reader"],
            [],
            [
                "clickhouse: this server knows no CHECK GRANT; whether a role gives the user of 'ch_demo'"
                " CLUSTER ON *.* (and 1 more rights) is not known"
            ],
        ),
    ],
)
def test_a_server_without_check_grant_is_read_by_its_grants(
    server: Server, grants: list[str], problems: list[str], notes: list[str]
) -> None:
    server.no_check = refusal(62, "Syntax error")
    server.told["SHOW GRANTS"] = [{"GRANTS": line} for line in grants]
    assert look() == ([f"{LACKS} the right {one}" for one in problems], [WELL, *notes])


def test_another_error_of_check_grant_is_not_hidden(server: Server) -> None:
    server.no_check = refusal(241, "Memory limit exceeded")
    with pytest.raises(DatabaseError, match="Memory limit"):
        look()


def policies(*found: tuple[str, str, str, int], silent: bool = False) -> list[Json]:
    """What both hosts say; with ``silent`` the first one alone."""
    return [{"host": host.name, "policies": list(found)} for host in HOSTS[: 1 if silent else 2]]


def test_policies_that_hide_rows_from_us_are_a_problem(server: Server) -> None:
    server.told[POLICIES] = policies(
        ("acme_voice", "scorecard", "own", 1), ("acme_voice", "", "all", 1), ("other", "scorecard", "theirs", 1)
    )
    assert look()[0] == [
        "clickhouse: row policies hide rows from the user of 'ch_demo', which a DELETE takes and no count shows:"
        " all on acme_voice.* (node-1-1, node-2-1), own on acme_voice.scorecard (node-1-1, node-2-1)"
    ]


def test_a_host_that_says_nothing_of_its_policies_is_a_problem(server: Server) -> None:
    server.told[POLICIES] = policies(silent=True)
    assert look()[0] == ["clickhouse: no look at the row policies of node-2-1"]


@pytest.mark.parametrize("code", [497, 241])
def test_policies_that_may_not_be_read_are_not_assumed(server: Server, code: int) -> None:
    server.told[POLICIES] = refusal(code, "no")
    if code != 497:
        with pytest.raises(DatabaseError):
            look()
        return
    assert look() == (
        [], [WELL, "clickhouse: row policies cannot be read (SHOW ROW POLICIES): none is assumed"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "shown", "held", "is_blind"),
    [
        (("acme_voice", "scorecard", "theirs", 0), 0, 7, True),
        (("acme_voice", "", "theirs", 0), 0, 7, True),
        (("acme_voice", "scorecard", "theirs", 0), 1, 7, False),
        (("acme_voice", "scorecard", "theirs", 0), 0, 0, False),
        # Of a policy for us it is said already that it hides rows.
        (("acme_voice", "scorecard", "own", 1), 0, 7, False),
    ],
)
def test_a_table_that_shows_us_nothing_beside_a_policy_for_others_is_a_problem(
    server: Server, policy: Any, shown: int, held: int, is_blind: bool
) -> None:
    server.told[POLICIES] = policies(policy)
    statement = shown_statement("conversations", "acme_voice", "scorecard")
    server.told[statement] = [
        {"host": "node-1-1", "shown": 5, "held": 5},
        {"host": "node-2-1", "shown": str(shown), "held": str(held)},
    ]
    text = (
        "clickhouse: the user of 'ch_demo' sees no row of acme_voice.scorecard on node-2-1, whose parts hold rows, and"
        " there are row policies for others: give this user a policy USING 1, or set"
        " users_without_row_policies_can_read_rows on the servers"
    )
    assert [one for one in look()[0] if "sees no row" in one] == [text] * is_blind
    assert (statement in server.asked) is (not policy[3])


LATER = (
    "clickhouse: order reindex_first needs clickhouse.written_columns for score{}; without one only delete_first can"
    " be offered"
)
ENGINE = "ReplacingMergeTree({}) ORDER BY id"


@pytest.mark.parametrize(
    ("orders", "columns", "engines", "said"),
    [
        (["delete_first"], TIMES, [], None),
        (["delete_first", "reindex_first"], TIMES | {"score": {"column": "updated_at"}}, [], None),
        (["delete_first", "reindex_first"], TIMES, [], ""),
        (["reindex_first"], TIMES, ["ReplacingMergeTree ORDER BY id"], ""),
        (
            ["reindex_first"],
            TIMES,
            [ENGINE.format("version"), ENGINE.format("changed_at"), ENGINE.format("version")],
            "; the engine's version column is changed_at, version",
        ),
    ],
)
def test_reindex_first_needs_a_column_of_time_for_each_table(
    server: Server, orders: list[str], columns: Json, engines: list[str], said: str | None
) -> None:
    server.usable = {"acme_voice": ("scorecard", "score")}
    server.listed = [{"table": "score", "engine_full": engine} for engine in engines]
    server.listed.append({"table": "scorecard", "engine_full": ENGINE.format("updated_at")})
    tables = ["scorecard", "score"]
    server.told[row_policies_statement("conversations", tables)] = server.told[POLICIES]
    found, _ = look(orders=orders, clickhouse={"tables": tables, "written_columns": columns})
    assert found == ([] if said is None else [LATER.format(said)])


@pytest.mark.parametrize(("skew", "said"), [(60_000, False), (60_001, True), (90_000, True)])
def test_clocks_that_differ_by_more_than_the_margin_are_named(server: Server, skew: int, said: bool) -> None:
    server.told[CLOCKS] = [
        {"host": "node-1-2", "now": "10"}, {"host": "node-2-1", "now": skew}, {"host": "node-1-1", "now": 0}
    ]  # fmt: skip
    text = (
        f"clickhouse: the clocks of node-1-1 and node-2-1 differ by {skew / 1_000:.0f} s, more than clock_skew_seconds"
        " (60): what is old cannot be told; correct the clocks"
    )
    assert look(clickhouse={"written_columns": TIMES})[0] == [text] * said


def test_clocks_are_asked_for_only_where_rows_are_told_by_time(server: Server) -> None:
    look()
    assert CLOCKS not in server.asked


def test_nothing_is_counted_where_no_table_can_be_used(server: Server) -> None:
    server.usable = {"acme_voice": ()}
    server.unusable = {"acme_voice": ["acme_voice.scorecard is missing on node-2-1"]}
    look()
    assert not [call for call in server.asked if call[0] == "census"]


def test_a_day_is_counted_in_our_tables_of_the_first_database_that_has_any(server: Server) -> None:
    server.usable = {"globex_voice": ("scorecard",), "acme_voice": (), "hooli_voice": ("conversations", "scorecard")}
    look()
    (census,) = [call for call in server.asked if call[0] == "census"]
    assert [(table, part.database) for table, part in census[1]] == [("scorecard", "globex_voice")]
    server.usable = {"hooli_voice": ("conversations", "scorecard")}
    server.asked.clear()
    look()
    (census,) = [call for call in server.asked if call[0] == "census"]
    assert [(table, part.database) for table, part in census[1]] == [("scorecard", "hooli_voice")]

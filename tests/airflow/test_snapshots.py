"""Copies of windows: made whole before anything is deleted, compared afterwards, put back, removed in time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from backfill import snapshots as module
from backfill.hooks.clickhouse_errors import DdlAnswer
from backfill.snapshots import SnapshotError, Snapshots
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.rules import meant_rule, names_of
from include.scorecard_backfill.putback import PutBackError
from include.scorecard_backfill.records import Database, MissingRows
from include.scorecard_backfill.sql import snapshots as sql_snapshot
from include.scorecard_backfill.sql.snapshots import Copy, snapshot_table
from include.scorecard_backfill.verdicts.counts import Host
from tests.kit.waits import KEY, window

Json = dict[str, Any]

HOSTS = (Host("node-1-1", 1), Host("node-2-1", 2))
TODAY = date(2026, 3, 2)
CONFIG = ClusterConfig.model_validate({
    "name": "demo",
    "kubernetes": {"context": "demo"},
    "clickhouse": {
        "cluster": "talk",
        "tables": ["scorecard", "score"],
        "meant_to_go": {
            "scorecard": {"column": "is_stale", "equals": 1},
            "score": {"by": "scorecard", "id_column": "card_id"},
        },
    },
})  # fmt: skip
NAMES = names_of(CONFIG.clickhouse)
VOICE = Database(name="acme_voice", profile_id="voice", tables=("scorecard", "score"))
CHAT = Database(name="acme_chat", profile_id="chat", tables=("score",))
WINDOW = window(databases=(VOICE, CHAT))
CARDS, SCORES = snapshot_table("scorecard", KEY), snapshot_table("score", KEY)
PARTS = {(part.database, table): part for table, part in WINDOW.slices()}
LISTED = sql_snapshot.snapshots_statement("talk")


class Hook:
    """A cluster that keeps copies: by (database, name) the rows on each host."""

    def __init__(self) -> None:
        self.config = CONFIG.clickhouse
        self.names = NAMES
        self.copies: dict[tuple[str, str], dict[str, int]] = {}
        self.comments: dict[tuple[str, str], str] = {}
        self.held = {"node-1-1": {"2026-01-05": 7, "2026-01-06": 1}, "node-2-1": {"2026-01-05": 5}}
        self.made = {"node-1-1": 8, "node-2-1": 5}
        self.answer = DdlAnswer("done")
        self.told: dict[str, Any] = {}
        self.counted: list[Any] = []
        self.sent: list[str] = []
        self.raws: list[str] = []

    def rows(self, statement: str) -> list[Json]:
        """Answer one statement; one that nobody has told of is a mistake."""
        if statement == LISTED:
            return [
                {"database": database, "name": name, "comment": self.comments.get((database, name), "")}
                for (database, name), hosts in self.copies.items()
                for _ in hosts
            ]
        for (database, name), hosts in self.copies.items():
            if statement == sql_snapshot.count_snapshot_statement(cluster="talk", database=database, snapshot=name):
                return [{"host": host, "rows": str(rows)} for host, rows in hosts.items()]
        found: list[Json] = self.told[statement]
        return found

    def host_counts(self, parts: Any, hosts: Any) -> Any:
        """Count what is there."""
        assert hosts == HOSTS
        self.counted += parts
        return [self.held]

    def send_ddl(self, statement: str, hosts: Any) -> DdlAnswer:
        """Make or drop a copy."""
        assert hosts == HOSTS
        self.sent.append(statement)
        for (database, table), part in PARTS.items():
            place = database, snapshot_table(table, KEY)
            if statement == create(table, part):
                self.copies[place] = dict(self.made)
            if statement == drop(*place):
                self.copies.pop(place, None)
        return self.answer

    def raw(self, statement: str) -> str:
        """Keep an INSERT."""
        self.raws.append(statement)
        return ""


def create(table: str, part: Any, days: int = 14) -> str:
    """The statement that makes a copy."""
    return sql_snapshot.create_snapshot_statement(
        cluster="talk", table=table, part=part, names=NAMES, key=KEY, until=TODAY + timedelta(days=days)
    )


def drop(database: str, name: str) -> str:
    """The statement that drops one."""
    return sql_snapshot.drop_snapshot_statement(cluster="talk", database=database, snapshot=name)


@pytest.fixture
def hook() -> Hook:
    """A cluster without copies."""
    return Hook()


@pytest.fixture
def copies(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> Snapshots:
    """Its snapshots, on a day that stands still."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            assert tz is UTC
            return datetime(2026, 3, 2, 23, 30, tzinfo=UTC)

    monkeypatch.setattr(module, "datetime", Clock)
    return Snapshots(hook, HOSTS)  # type: ignore[arg-type]


def test_a_copy_is_made_of_each_table_that_has_rows(hook: Hook, copies: Snapshots) -> None:
    wanted = [("acme_chat", "score"), ("acme_voice", "scorecard"), ("another", "score")]
    assert set(copies.take(WINDOW, iter(wanted), 14)) == {f"acme_voice.{CARDS}", f"acme_chat.{SCORES}"}
    cards = PARTS["acme_voice", "scorecard"]
    mine = [statement for statement in hook.sent if CARDS in statement]
    assert mine == [drop("acme_voice", CARDS), create("scorecard", cards)]
    assert len(hook.sent) == 4
    assert [counted for counted in hook.counted if counted[0] == "scorecard"] == [("scorecard", cards, "")]


def test_a_copy_that_is_whole_is_not_made_again(hook: Hook, copies: Snapshots) -> None:
    hook.copies["acme_voice", CARDS] = dict(hook.made)
    assert copies.take(WINDOW, [("acme_voice", "scorecard")], 14) == (f"acme_voice.{CARDS}",)
    assert hook.sent == []
    assert hook.counted == [("scorecard", PARTS["acme_voice", "scorecard"], "")]


@pytest.mark.parametrize("there", [{"node-1-1": 8}, {"node-1-1": 8, "node-2-1": 4}, {"node-1-1": 8, "other": 5}])
def test_a_copy_that_an_earlier_try_left_half_done_is_made_anew(
    hook: Hook, copies: Snapshots, there: dict[str, int]
) -> None:
    hook.copies["acme_voice", CARDS] = there
    copies.take(WINDOW, [("acme_voice", "scorecard")], 14)
    assert hook.sent == [drop("acme_voice", CARDS), create("scorecard", PARTS["acme_voice", "scorecard"])]


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        ({"node-1-1": 8}, "1 of 2 hosts have it"),
        ({"node-1-1": 8, "node-2-1": 4}, "node-2-1: 4 of 5 rows"),
        ({"node-1-1": 9, "node-2-1": 6}, "node-1-1: 9 of 8 rows, node-2-1: 6 of 5 rows"),
        ({"node-1-1": 8, "other": 5}, "node-2-1: none of 5 rows"),
    ],
)
def test_nothing_is_deleted_without_a_whole_copy(
    hook: Hook, copies: Snapshots, made: dict[str, int], wrong: str
) -> None:
    hook.made = made
    # Copies of other tables count for nothing.
    hook.copies["acme_chat", CARDS] = hook.copies["acme_voice", SCORES] = {"node-1-1": 8, "node-2-1": 5}
    with pytest.raises(SnapshotError) as error:
        copies.take(WINDOW, [("acme_voice", "scorecard")], 14)
    assert str(error.value) == f"snapshot acme_voice.{CARDS} is not complete, nothing is deleted: {wrong}"


@pytest.mark.parametrize(
    "answer", [DdlAnswer("refused", text="no"), DdlAnswer("unknown", errors={"node-2-1": "disk"}, text="no")]
)
def test_a_copy_that_is_refused_deletes_nothing(hook: Hook, copies: Snapshots, answer: DdlAnswer) -> None:
    hook.answer = answer
    with pytest.raises(SnapshotError) as error:
        copies.take(WINDOW, [("acme_voice", "scorecard")], 14)
    assert str(error.value) == f"refused, nothing is deleted: {drop('acme_voice', CARDS)}: no"


def test_a_copy_whose_answer_is_not_known_is_judged_by_its_rows(hook: Hook, copies: Snapshots) -> None:
    hook.answer = DdlAnswer("unknown")
    assert copies.take(WINDOW, [("acme_voice", "scorecard")], 14) == (f"acme_voice.{CARDS}",)


def copy_of(database: str, table: str, *beside: str) -> Copy:
    """A copy as it is looked at, with the rule that the tables beside it allow."""
    meant = meant_rule(CONFIG.clickhouse, table, set(beside))
    return Copy(table, PARTS[database, table], KEY, CONFIG.clickhouse.id_columns[table], meant)


def test_missing_rows_are_told_by_what_was_meant_to_go(hook: Hook, copies: Snapshots) -> None:
    both = ("scorecard", "score")
    looked_at = [copy_of("acme_voice", "scorecard", *both), copy_of("acme_voice", "score", *both),
                 copy_of("acme_chat", "score", "score")]  # fmt: skip
    # Without a copy of the other table nobody knows what of this one was meant to go.
    assert [copy.meant is None for copy in looked_at] == [False, False, True]
    hook.told = {
        sql_snapshot.missing_statement(cluster="talk", names=NAMES, copy=copy): [
            {"meant": str(number), "missing": "2", "ids": [f"b{number}", f"a{number}"]}
        ]
        for number, copy in enumerate(looked_at)
    }
    taken = [f"acme_voice.{CARDS}", f"acme_voice.{SCORES}", f"acme_chat.{SCORES}"]
    assert sorted(copies.missing(WINDOW, iter(taken)), key=lambda found: found.meant or 0) == [
        MissingRows(database="acme_voice", table="scorecard", meant=0, count=2, ids=("a0", "b0")),
        MissingRows(database="acme_voice", table="score", meant=1, count=2, ids=("a1", "b1")),
        MissingRows(database="acme_chat", table="score", meant=2, count=2, ids=("a2", "b2")),
    ]
    assert copies.missing(WINDOW, ["acme_voice.something"]) == ()


KNOWN = ("scorecard_id", "scorecard_time", "customer_id", "profile_id")


def columns_of(table: str, *names: str) -> Json:
    """The question for the columns of a table, its copy and its twin, and an answer in which all have these."""
    tables = (snapshot_table(table, KEY), table, f"{table}_d")
    statement = sql_snapshot.columns_statement(cluster="talk", database="acme_voice", tables=tables)
    rows = [
        {"host": host.name, "table": one, "columns": [(name, "String", "") for name in names]}
        for one in tables
        for host in HOSTS
    ]
    return {statement: rows}


def test_rows_are_put_back_by_the_columns_that_are_there(hook: Hook, copies: Snapshots) -> None:
    hook.told = columns_of("scorecard", *KNOWN, "grade")
    copy = copy_of("acme_voice", "scorecard", "scorecard")
    assert copies.columns(copy) == ("customer_id", "grade", "profile_id", "scorecard_id", "scorecard_time")
    assert copies.refusals(WINDOW, [f"acme_voice.{CARDS}"]) == []
    for meant in (True, False):
        copies.restore(WINDOW, [f"acme_voice.{CARDS}"], meant=meant)
        assert hook.raws.pop() == sql_snapshot.restore_statement(
            cluster="talk", distributed="scorecard_d", columns=copies.columns(copy), names=NAMES, copy=copy, meant=meant
        )
    assert hook.raws == []


@pytest.mark.parametrize("lost", KNOWN)
def test_a_table_that_does_not_know_its_rows_any_more_is_refused(hook: Hook, copies: Snapshots, lost: str) -> None:
    hook.told = columns_of("scorecard", *(name for name in KNOWN if name != lost))
    (said,) = copies.refusals(WINDOW, [f"acme_voice.{CARDS}"])
    assert said == f"acme_voice.scorecard has no column '{lost}' any more, by which its rows are known"


def test_nothing_is_put_back_unless_all_tables_can_be(hook: Hook, copies: Snapshots) -> None:
    hook.told = columns_of("scorecard", *KNOWN) | columns_of("score", *KNOWN)
    with pytest.raises(PutBackError, match="has no column 'score_id' any more"):
        copies.restore(WINDOW, [f"acme_voice.{CARDS}", f"acme_voice.{SCORES}"], meant=True)
    assert hook.raws == []


def test_a_host_whose_columns_are_not_known_is_refused(hook: Hook, copies: Snapshots) -> None:
    hook.told = columns_of("scorecard", *KNOWN)
    for rows in hook.told.values():
        rows[:] = [row for row in rows if row["host"] != "node-2-1" or row["table"] != CARDS]
    (said,) = copies.refusals(WINDOW, [f"acme_voice.{CARDS}"])
    assert said == f"the columns of acme_voice.{CARDS} on node-2-1 are not known"


def test_copies_whose_days_are_over_are_removed(hook: Hook, copies: Snapshots) -> None:
    old, young, strange = f"{CARDS}1", f"{CARDS}2", f"{CARDS}3"
    for name, comment in ((old, "until 2026-03-02"), (young, "until 2026-03-03"), (strange, "by hand")):
        hook.copies["acme_voice", name] = {"node-1-1": 1, "node-2-1": 1}
        hook.comments["acme_voice", name] = comment
    assert copies.existing() == {f"acme_voice.{name}" for name in (old, young, strange)}
    assert copies.remove_expired() == [f"acme_voice.{old}"]
    assert hook.sent == [drop("acme_voice", old)]

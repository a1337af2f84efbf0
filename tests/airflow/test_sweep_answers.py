"""When a sweep asks a person, what an answer covers and how long, and what a look before it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import TaskAwaitingInput, TaskDeferred

from backfill import settings
from backfill.deleting import sweep
from backfill.deleting.sweep import ANSWER, ASKED, COVERED, SHOWN, Survey, SweepApproval, begin, survey
from backfill.kit.refusal import Refusal
from backfill.kit.stages import StageError
from backfill.kit.store import FAILED, name_of
from include.scorecard_backfill.config.rules import names_of
from include.scorecard_backfill.records import (
    Counted,
    Database,
    Failure,
    MissingRows,
    Numbers,
    TableDays,
    TableName,
    Window,
)
from include.scorecard_backfill.verdicts.census import Census, TableCensus, Tally
from tests.kit import build
from tests.kit.waits import KEY, NAME, cluster, configure, context, window

__all__ = ["cluster"]

Json = dict[str, Any]
Days = dict[TableName, dict[str, Numbers]]
CARDS, SCORES = ("acme_voice", "scorecard"), ("acme_voice", "score")


def surveyed(rows: int = 12, others: int = 2, day: str = "2026-01-05") -> Survey:
    """What a look found: rows that would go of one day, and how many of them nobody means to go."""
    old = TableDays(database="acme_voice", table="scorecard", days={day: Numbers(rows=rows, ids=rows, meant=1)})
    missing = MissingRows(database="acme_voice", table="scorecard", count=others, ids=("a",) if others else ())
    return Survey((old,), (old,), (), "ok", (), {CARDS: missing})


@dataclass
class Desk:
    """A delete task that sweeps, and the questions that a person sees."""

    approval: SweepApproval
    context: Json
    questions: list[Json] = field(default_factory=list)

    def __getitem__(self, key: str) -> Any:
        return self.context["task_state_store"].get(name_of(key, KEY))

    def asks(self, found: Survey) -> bool:
        """True when the task is parked for a person."""
        try:
            self.approval.ask(self.context, window(), found)
        except TaskAwaitingInput as parked:
            return (parked.method_name, parked.kwargs) == ("answered", {})
        return False

    def told(self, *chosen: str) -> None:
        """Take an answer."""
        self.approval.take(self.context, {"chosen_options": list(chosen)})


def desk(monkeypatch: pytest.MonkeyPatch, *, asked_at: str = "plan", run: Json | None = None) -> Desk:
    """A task of a run whose plan left its terms and its parameters."""
    left = {
        ("plan", "terms"): {-1: {"a person is asked at": asked_at}},
        ("plan", "run"): {-1: {"require_approval": True} if run is None else run},
    }
    given = context("windows.delete", left)
    given["ti"].id = "7"
    operator: Any = BaseOperator(task_id="delete")
    operator.window = window().to_json()
    made = Desk(SweepApproval(operator, NAME), given)
    monkeypatch.setattr(sweep, "upsert_hitl_detail", lambda **asked: made.questions.append(asked))
    return made


def test_rows_that_nobody_means_to_go_are_asked_about_with_their_numbers(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, found = desk(monkeypatch), surveyed()
    assert at.asks(found)
    (question,) = at.questions
    assert (question["ti_id"], question["options"], question["params"]) == ("7", ["Approve", "Reject"], {})
    assert question["subject"] == f"Sweep acme 2026-01-01..2026-02-01 on {NAME}?"
    assert question["body"] == f"{found.markdown}\n\nDigest: `{found.digest}`"
    assert (at[ASKED], at[ANSWER], at[COVERED]) == (found.digest, None, None)
    assert TableDays.model_validate(at[SHOWN][0]) == found.old[0]


@pytest.mark.parametrize(
    ("asked_at", "run", "is_asked"),
    [
        ("plan", None, False),
        ("sweep", None, True),
        ("both", None, True),
        ("sweep", {"require_approval": False}, False),
        ("sweep", {}, False),
    ],
)
def test_what_is_meant_to_go_is_asked_about_where_the_file_wants_it(
    asked_at: str, run: Json | None, is_asked: bool, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = desk(monkeypatch, asked_at=asked_at, run=run)
    assert at.asks(surveyed(others=0)) is is_asked
    assert len(at.questions) == is_asked
    assert (at[COVERED] is None) is is_asked


def test_without_a_plan_what_nobody_means_to_go_is_asked_about(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk(monkeypatch)
    at.context["ti"].xcoms.clear()
    assert not at.asks(surveyed(others=0))
    assert desk(monkeypatch).asks(surveyed(others=1))


def test_an_approval_covers_these_numbers_and_fewer_and_never_more(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, found = desk(monkeypatch), surveyed()
    assert at.asks(found)
    at.told("Approve")
    assert (at[ANSWER], at[ASKED]) == (found.digest, "")
    assert not at.asks(found)
    assert TableDays.model_validate(at[COVERED][0]) == found.old[0]
    # A look in the midst of it finds less, of which some are nobody's.
    assert not at.asks(surveyed(rows=5))
    assert len(at.questions) == 1
    with pytest.raises(Refusal, match="more rows of acme"):
        at.asks(surveyed(rows=13))
    kept = Failure.from_json(at[FAILED])
    assert (kept.key, kept.stage, kept.cause) == (KEY, "delete", "sweep_outgrown")
    assert kept.what_to_do
    assert "| 13 |" in kept.reason
    assert len(at.questions) == 1


def test_other_days_are_more_than_was_approved(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk(monkeypatch)
    at.asks(surveyed())
    at.told("Approve")
    with pytest.raises(Refusal):
        at.asks(surveyed(rows=1, day="2026-01-06"))


def test_fewer_rows_than_were_shown_are_asked_about_again_and_the_first_question_is_what_is_seen(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = desk(monkeypatch)
    at.asks(surveyed(rows=12))
    at.told("Approve")
    fewer = surveyed(rows=11)
    assert at.asks(fewer)
    assert at[ASKED] == fewer.digest
    assert at[SHOWN][0]["days"]["2026-01-05"]["rows"] == 12
    at.told("Approve")
    assert not at.asks(fewer)
    assert at[COVERED][0]["days"]["2026-01-05"]["rows"] == 11


def test_the_same_question_is_looked_back_at_before_it_is_asked_again(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(tmp_path, monkeypatch, waits={"first_poll_after_seconds": 5})
    at, found = desk(monkeypatch), surveyed()
    at.asks(found)
    with pytest.raises(TaskDeferred) as raised:
        at.asks(found)
    assert raised.value.method_name == "looked_back"
    assert raised.value.trigger.serialize()[1]["ti_id"] == "7"
    assert len(at.questions) == 1

    at.approval.looked_back(at.context, {})
    assert at[ASKED] == ""
    assert at.asks(found)
    at.approval.looked_back(at.context, {"chosen_options": ["Approve"]})
    assert at[ANSWER] == found.digest
    assert not at.asks(found)


@pytest.mark.parametrize(("has_begun", "said"), [(False, "nothing of it was deleted"), (True, "it had begun")])
def test_a_rejection_ends_the_window_and_is_not_found_again(
    has_begun: bool, said: str, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, found = desk(monkeypatch), surveyed()
    at.asks(found)
    if has_begun:
        begin(at.context, window(), found.old)
    with pytest.raises(Refusal, match=said):
        at.told("Reject")
    kept = Failure.from_json(at[FAILED])
    assert (kept.key, kept.stage, kept.cause) == (KEY, "delete", "sweep_rejected")
    assert "acme 2026-01-01..2026-02-01 was rejected" in kept.reason
    assert kept.what_to_do
    assert (at[ASKED], at[ANSWER]) == ("", None)


@pytest.mark.parametrize("event", [None, {}, {"chosen_options": []}, {"chosen_options": None}])
def test_an_answer_that_cannot_be_read_approves_nothing(
    event: Any, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = desk(monkeypatch)
    at.asks(surveyed())
    with pytest.raises(Refusal, match="cannot be read"):
        at.approval.take(at.context, event)
    assert (at[ASKED], at[ANSWER], at[FAILED]) == ("", None, None)


def test_an_answer_with_both_options_is_no_approval(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at = desk(monkeypatch)
    at.asks(surveyed())
    with pytest.raises(Refusal, match="was rejected"):
        at.told("Approve", "Reject")
    assert at[ANSWER] is None


# What a look finds

SINCE = 1_770_000_000.0
WRITTEN = {"scorecard": {"column": "updated_at"}, "score": {"column": "updated_at"}}
MEANT = {
    "scorecard": {"column": "scorecard_type", "equals": "appeal"},
    "score": {"by": "scorecard", "id_column": "scorecard_id"},
}


@dataclass
class Counts:
    """The servers of a look: counts of old and of rewritten rows by table, and what is not written again."""

    old: Days
    rewritten: Days
    unsettled: str = ""
    on_two_days: int = 0
    rows_: Json = field(default_factory=lambda: {"number": 0, "ids": []})
    asked: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = settings.cluster_config(NAME).clickhouse
        self.names = names_of(self.config)

    def topology(self) -> list[str]:
        """The hosts."""
        return ["node-1"]

    def census(self, parts: Any, hosts: Any, since: Any) -> Any:
        """The counts, by table and day."""
        self.asked.append((parts, hosts, since))
        old, new = tallies(self.old), tallies(self.rewritten)
        total = {name: Tally(ids=sum(n.ids for n in days.values()) - self.on_two_days) for name, days in new.items()}
        tables = {
            name: TableCensus(old=old.get(name, {}), rewritten=new[name], rewritten_total=total[name]) for name in new
        }
        return Census(self.unsettled, tables)

    def rows(self, statement: str) -> list[Json]:
        """What was not written again."""
        self.asked.append(statement)
        return [self.rows_]


def tallies(found: Days) -> Any:
    """Numbers by table as a census has them."""
    return {
        name: {
            day: Tally(**{k: v for k, v in n.model_dump().items() if k in Tally.__slots__}) for day, n in days.items()
        }
        for name, days in found.items()
    }


def look(counts: Any, before: Days, tables: tuple[str, ...] = ("scorecard",)) -> Survey:
    both = (Database(name="acme_voice", profile_id="voice", tables=tables),)
    kept = tuple(TableDays(database=name[0], table=name[1], days=days) for name, days in before.items())
    of: Window = window(databases=both, order="reindex_first")
    return survey(counts, of, Counted(key=KEY, now=kept, before=kept, server_time=SINCE))


@pytest.fixture
def tells(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster whose tables tell what was written again and what is meant to go."""
    house = {"tables": ["scorecard", "score"], "written_columns": WRITTEN, "meant_to_go": MEANT}
    configure(tmp_path, monkeypatch, clickhouse=house)


DAY = "2026-01-05"


def test_what_came_back_beside_what_is_meant_to_go_is_in_order(tells: None) -> None:
    before, came = build.numbers("abcd", "d"), build.numbers("abc", "")
    counts = Counts({CARDS: {DAY: before}}, {CARDS: {DAY: came}})
    found = look(counts, {CARDS: {DAY: before}})
    assert found.balance == "ok"
    assert found.sentences == ("acme_voice.scorecard: 4 before, 1 meant to go, 3 after, 0 short",)
    assert found.old[0].days[DAY].rows == 4
    assert found.rewritten[0].days[DAY].rows == 3
    assert found.tables[0].table == "scorecard"
    parts, hosts, since = counts.asked[0]
    assert [table for table, _ in parts] == ["scorecard"]
    assert (hosts, since) == (["node-1"], datetime.fromtimestamp(SINCE, UTC))


def test_what_was_written_on_two_days_keeps_the_sweep_from_going(tells: None) -> None:
    before, came = build.numbers("abcd", "d"), build.numbers("abc", "")
    counts = Counts({CARDS: {DAY: before}}, {CARDS: {DAY: came, "2026-01-06": build.numbers("a", "")}}, on_two_days=1)
    found = look(counts, {CARDS: {DAY: before}})
    assert found.balance == "wrong"
    assert found.sentences == ("acme_voice.scorecard: 1 of 4 rows are there on another day, too (the same id)",)


def test_of_the_old_rows_those_are_named_that_nobody_means_to_go_and_nobody_wrote_again(tells: None) -> None:
    before = build.numbers("abcd", "d")
    counts = Counts({CARDS: {DAY: before}}, {CARDS: {}}, rows_={"number": 2, "ids": ["c", "a"]})
    found = look(counts, {CARDS: {DAY: before}})
    assert found.balance == "wrong"
    assert found.others == {CARDS: MissingRows(database="acme_voice", table="scorecard", count=2, ids=("a", "c"))}
    assert found.sentences[0].startswith("no row of the window was written since the reindex began, as ")
    assert "score.updated_at, scorecard.updated_at tells it" in found.sentences[0]
    assert found.sentences[-1].startswith("acme_voice.scorecard: 2 rows were not written again")
    statement = counts.asked[-1]
    assert "`acme_voice`.`scorecard`" in statement
    assert "2026-02-02 02:39" in statement


def test_only_where_rows_are_left_that_are_not_meant_is_it_asked_which(tells: None) -> None:
    meant = build.numbers("d", "d")
    counts = Counts({CARDS: {DAY: meant}}, {CARDS: {DAY: build.numbers("abc", "")}})
    found = look(counts, {CARDS: {DAY: build.numbers("abcd", "d")}})
    assert len(counts.asked) == 1
    assert found.others[CARDS].count == 0


def test_without_stable_ids_nobody_can_tell_and_all_are_counted(
    tells: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = {"tables": ["scorecard", "score"], "written_columns": WRITTEN, "meant_to_go": MEANT, "stable_ids": False}
    configure(tmp_path, monkeypatch, clickhouse=house)
    before = build.numbers("abcd", "d")
    counts = Counts({CARDS: {DAY: before}}, {CARDS: {DAY: build.numbers("xyz", "")}})
    found = look(counts, {CARDS: {DAY: before}})
    assert len(counts.asked) == 1
    assert found.others[CARDS] == MissingRows(database="acme_voice", table="scorecard", count=3, ids=())


def test_the_other_table_of_the_same_database_tells_what_is_meant(tells: None) -> None:
    before = build.numbers("ab", "")
    both = {CARDS: {DAY: before}, SCORES: {DAY: before}}
    counts = Counts(both, {CARDS: {DAY: before}, SCORES: {DAY: before}})
    found = look(counts, both, ("score", "scorecard"))
    assert set(found.others) == {CARDS, SCORES}
    scores = next(text for text in counts.asked[1:] if "`acme_voice`.`score`)" in text)
    assert "`acme_voice`.`scorecard`" in scores


def test_counts_that_are_not_settled_decide_nothing(tells: None) -> None:
    counts = Counts({}, {}, unsettled="node-1 and node-2 differ")
    with pytest.raises(StageError, match=r"acme .*: node-1 and node-2 differ; nothing was deleted"):
        look(counts, {})


def test_a_window_that_had_no_rows_misses_none(tells: None) -> None:
    found = look(Counts({CARDS: {}}, {CARDS: {}}), {CARDS: {}})
    assert found.balance == "ok"
    assert found.sentences == ("acme_voice.scorecard: 0 before, 0 meant to go, 0 after, 0 short",)

"""What a step of a delete knows of itself, in which order it looks, and what it keeps before and after it is sent."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from backfill.deleting import deleter as module
from backfill.deleting import standstill
from backfill.deleting.deleter import Deleter, own_unfinished
from backfill.hooks.clickhouse_errors import DdlAnswer
from backfill.kit.stages import StageError
from backfill.kit.store import RunStore
from include.scorecard_backfill import sql
from include.scorecard_backfill.planning.deletes import Step
from include.scorecard_backfill.records import Failure
from include.scorecard_backfill.verdicts.mutations import Mutation
from tests.kit.house import DROP, HOSTS, KEY, OTHER, PART, STEP, House, mutation
from tests.kit.store import Store


def made(house: House, generation: int = 1) -> Deleter:
    store = RunStore({"task_state_store": Store()})
    return Deleter(house, HOSTS, store, logging.getLogger(__name__), KEY, generation, lambda: None)  # type: ignore[arg-type]


def kept(deleter: Deleter, step: Step = STEP) -> Any:
    """What the store holds of a step."""
    return deleter.store.get(deleter._store_key(step))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_TRIES", 2)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(module, "REFUSED_TRIES", 2)
    monkeypatch.setattr(module, "REFUSED_SECONDS", 0.0)


def test_each_step_of_a_window_has_a_place_of_its_own() -> None:
    deleter = made(House())
    steps = [STEP, Step("score", PART), Step("scorecard", PART, chunk=1), DROP]
    keys = [deleter._store_key(step) for step in steps] + [made(House(), 2)._store_key(STEP)]
    assert len(set(keys)) == len(keys)


def test_it_is_written_down_before_the_statement_leaves() -> None:
    house, states = House(), []
    deleter = made(house)
    house.on_send = lambda: states.append(kept(deleter)["state"])
    sent = deleter.send(STEP)
    assert states == ["sending"]
    assert kept(deleter)["state"] == "sent"
    assert (sent.database, sent.table, sent.accepted) == ("acme_voice", "scorecard", ("node-1", "node-2"))
    assert kept(deleter)["at"] == sent.at > 0
    assert deleter.sent_state(STEP) == "taken"


def test_only_hosts_that_took_every_statement_have_taken_the_step() -> None:
    house = House()
    answers = iter([DdlAnswer("done", frozenset({"node-1", "node-2"})), DdlAnswer("done", frozenset({"node-2"}))])

    def next_answer() -> None:
        house.answer = next(answers)

    house.on_send = next_answer
    deleter = made(house)
    sent = deleter.send(DROP)
    assert (sent.accepted, sent.partitions) == (("node-2",), ("202601", "202602"))
    assert kept(deleter, DROP)["partitions"] == ["202601", "202602"]
    assert deleter.dropped("scorecard", PART) == DROP


def test_a_refused_delete_has_not_left_and_is_tried_again_by_itself() -> None:
    house = House(answer=DdlAnswer("refused", text="Code: 517"))
    deleter = made(house)
    with pytest.raises(
        StageError, match=r"acme_voice.scorecard DELETE: ClickHouse refuses it, nothing was queued: .*517"
    ):
        deleter.send(STEP)
    assert [what for what, _ in house.asked] == ["send", "send"]
    assert deleter.sent_state(STEP) == "none"


def test_a_lost_answer_is_kept_as_such_and_is_no_reason_to_send_again() -> None:
    house = House(answer=DdlAnswer("unknown", text="Code: 159"), counted={"node-1": {"2026-01-05": 3}, "node-2": {}})
    deleter = made(house)
    with pytest.raises(StageError, match=r"it was sent, but no host has it: Code: 159.*only a person's clear"):
        deleter.send(STEP)
    assert (kept(deleter)["state"], kept(deleter)["answered"]) == ("sending", True)
    assert deleter.sent_state(STEP) == "maybe"
    assert [entry[1] for entry in house.asked if entry[0] == "send"] == [deleter._statements(STEP)[0]]


def test_after_a_lost_answer_the_hosts_that_show_it_have_it() -> None:
    house = House(answer=DdlAnswer("unknown", frozenset({"node-2"}), text="Code: 159"), listed=[[mutation("node-1")]])
    assert made(house).send(STEP).accepted == ("node-1", "node-2")


@pytest.mark.parametrize(
    ("mutations", "seen"),
    [
        ([mutation("node-1", is_done=True), mutation("node-2")], "unfinished"),
        ([mutation("node-1", is_killed=True), mutation("node-2")], "unfinished"),
        ([mutation("node-1", is_killed=True), mutation("node-2", is_done=True)], "dead"),
        ([mutation("node-1", is_killed=True, is_done=True)], "dead"),
        ([mutation("node-1", is_done=True), mutation("node-2", is_done=True)], "done"),
    ],
)
def test_what_several_hosts_show_of_a_step(mutations: list[Mutation], seen: str) -> None:
    house = House()
    assert made(house).seen(STEP, mutations) == seen
    assert house.asked == []


@pytest.mark.parametrize(
    "foreign",
    [
        mutation(key=""),
        mutation(key=OTHER),
        mutation(generation=2),
        mutation(chunk=1),
        mutation(table="score"),
        mutation(database="acme_chat"),
    ],
)
def test_mutations_of_others_say_nothing_of_a_step(foreign: Mutation) -> None:
    assert made(House()).seen(STEP, [foreign]) == "nothing"


def maybe(house: House, step: Step = STEP) -> Deleter:
    """A deleter whose step was sent and had an answer that told nothing."""
    deleter = made(house)
    deleter.store.set(deleter._store_key(step), {"state": "sending", "at": 5.0, "answered": True})
    return deleter


@pytest.mark.parametrize("chunk", [0, 3])
@pytest.mark.parametrize(("running", "queued"), [(["node-1"], []), ([], ["node-2"])])
def test_what_is_executed_or_queued_is_neither_lost_nor_done(running: list[str], queued: list[str], chunk: int) -> None:
    house, step = House(running=running, queued=queued), Step("scorecard", PART, chunk=chunk)
    assert maybe(house, step).seen(step, []) == "queued"
    marks = {entry[1] for entry in house.asked}
    assert marks == {sql.delete_needles("acme_voice", "scorecard", KEY, 1, chunk)}


def test_a_mutation_that_appears_while_it_looks_is_seen() -> None:
    house = House(listed=[[], [mutation(is_done=True), mutation("node-2", is_done=True)]])
    assert maybe(house).seen(STEP, []) == "done"
    assert "count" not in [entry[0] for entry in house.asked]


@pytest.mark.parametrize(
    ("counted", "seen"),
    [
        ({"node-1": {}, "node-2": {}}, "done"),
        ({"node-1": {"2026-01-05": 0}, "node-2": {"2026-01-06": 1}}, "nothing"),
    ],
)
def test_without_any_trace_a_count_decides(counted: dict[str, dict[str, int]], seen: str) -> None:
    house = House(counted=counted)
    step = Step("scorecard", PART, condition="`updated_at` < 5")
    assert maybe(house, step).seen(step, []) == seen
    assert house.asked[-1] == ("count", [("scorecard", PART, "`updated_at` < 5")])


def test_a_drop_is_looked_for_by_each_of_its_partitions_and_has_no_mutation() -> None:
    house = House(counted={"node-1": {}, "node-2": {}})
    assert maybe(house, DROP).seen(DROP, [mutation()]) == "done"
    needles = [entry[1] for entry in house.asked if entry[0] == "running"]
    assert needles == [sql.drop_partition_needles("acme_voice", "scorecard", p) for p in ("202601", "202602")]


def test_the_record_of_a_step_that_is_there_has_its_earliest_time_and_every_host() -> None:
    deleter = made(House())
    found = deleter.record(STEP, [mutation("node-2", created=900), mutation("node-1", created=950)], "unfinished")
    assert (found.at, found.accepted) == (900.0, ("node-1", "node-2"))
    # What was kept before is not forgotten: a finished mutation is soon unlisted.
    assert deleter.record(STEP, [], "unfinished") == found


@pytest.mark.parametrize(
    ("taken", "mutations", "done"),
    [
        ((), [mutation("node-1", is_done=True), mutation("node-2", is_done=True)], True),
        ((), [mutation("node-1", is_done=True)], False),
        (("node-2",), [mutation("node-1", is_done=True)], True),
        (("node-1", "node-2"), [], True),
        (("node-1", "node-2"), [mutation("node-1")], False),
        ((), [], False),
    ],
)
def test_a_chunk_is_done_when_every_host_took_it_and_none_works_on_it(
    taken: tuple[str, ...], mutations: list[Mutation], done: bool
) -> None:
    deleter = made(House())
    deleter.store.set(deleter._store_key(STEP), {"state": "sent", "at": 5.0, "accepted": list(taken)})
    assert deleter.is_done(STEP, mutations) is done


def test_as_many_mutations_of_others_as_are_allowed_hold_nothing_up() -> None:
    deleter = made(House())
    others = [mutation(key="", mutation_id=f"m{n}") for n in range(2)]
    not_counted = [mutation(key="", is_done=True), mutation(), mutation(key="", table="score"), mutation(key=OTHER)]
    deleter.refuse_crowded(STEP, [*others, *not_counted])
    with pytest.raises(
        StageError, match=r"acme_voice.scorecard has 3 unfinished mutations of others \(limit 2\).*m0 on"
    ):
        deleter.refuse_crowded(STEP, [*others, mutation(key="", mutation_id="m2"), *not_counted])


def test_our_own_unfinished_statements_are_counted_once_for_all_hosts() -> None:
    listed = [
        mutation("node-1"), mutation("node-2"), mutation(chunk=1), mutation(table="score"), mutation(key=OTHER),
        mutation("node-1", generation=2, is_done=True), mutation(generation=3, is_killed=True), mutation(key=""),
    ]  # fmt: skip
    assert own_unfinished(listed) == 4
    assert own_unfinished([]) == 0


def failure(cause: str) -> Failure:
    return Failure(key=KEY, stage="wait_mutations", cause=cause, reason="r", generation=2)


def stands(house: House, cause: str, *, kill: bool) -> Failure:
    context = {"params": {"kill_stalled_mutations": kill}}
    house.listed = [[
        mutation("node-1", generation=2), mutation("node-2", generation=2),
        mutation(generation=2, is_done=True, table="score"),
        mutation(generation=1, table="other"), mutation(key=OTHER, generation=2, table="other"),
    ]]  # fmt: skip
    hook: Any = house
    return standstill.stood_still(context, hook, logging.getLogger(__name__), failure(cause))


@pytest.mark.parametrize("cause", ["stalled", "fail_reason"])
def test_what_stands_still_is_tried_with_test_only_unless_the_run_asks_for_its_end(
    cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    ending = sql.kill_mutation_statement(
        cluster="conversations", database="acme_voice", table="scorecard", key=KEY, generation=2, test=False
    )
    house = House()
    assert stands(house, cause, kill=False) == failure(cause)
    # What a person would have to run stands in the log.
    assert f"to end it, run (or set kill_stalled_mutations): {ending}" in caplog.messages
    test, *more = [entry[1] for entry in house.asked if entry[0] == "raw"]
    assert more == []
    assert test.endswith("TEST")
    assert "table = 'scorecard'" in test

    house = House()
    killed = stands(house, cause, kill=True)
    assert killed.cause == "killed"
    assert killed.generation == 2
    _, statement = [entry[1] for entry in house.asked if entry[0] == "raw"]
    assert statement == ending
    assert not statement.endswith("TEST")


def test_what_works_or_failed_otherwise_is_never_killed() -> None:
    house = House()
    assert stands(house, "not_picked_up", kill=True) == failure("not_picked_up")
    assert house.asked == []
    hook: Any = house
    house.listed = [[]]
    asked = {"params": {"kill_stalled_mutations": True}}
    assert standstill.stood_still(asked, hook, logging.getLogger(__name__), failure("stalled")) == failure("stalled")

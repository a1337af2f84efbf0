"""How workflows end, and what the list says of them: wait_workflows decides by descriptions and never by the list."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from backfill.hooks.temporal import Workflows
from backfill.kit.look import Wait
from backfill.triggers.workflows import customer_ids, open_of_window
from include.scorecard_backfill.records import ReindexEvent
from include.scorecard_backfill.verdicts.causes import SIZE
from tests.sandbox.faults_temporal_fixtures import (
    Scene,
    decided,
    drive,
    failure,
    first_event,
    in_triggerer,
    nothing,
    returned,
    scene,
    server,
)
from tests.standins.temporal_fixtures import until

__all__ = ["scene", "server"]


async def test_an_empty_list_is_no_end(scene: Scene) -> None:
    one = await scene.start()
    scene.server.set_rules({"kind": "list_empty"})
    steps = (*[nothing] * 5, lambda: scene.ends(one))
    result = returned(await scene.wait(one, steps=steps))
    assert result["status"] == "completed"
    assert result["workflow_ids"] == [one.id]


async def test_a_stale_list_does_not_hold_the_wait_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    one = await scene.start()

    async def still_open(self: Workflows, query: str, limit: int | None = None) -> list[str]:
        return [one.id]

    monkeypatch.setattr(Workflows, "list_ids", still_open)
    result = returned(await scene.wait(one, steps=(lambda: scene.ends(one),)))
    assert result["status"] == "completed"


async def test_workflows_that_the_log_did_not_name_are_waited_for_until_they_are_listed(scene: Scene) -> None:
    one, two = await scene.start(), await scene.start(profile="chat")
    await scene.listed(one, two)
    scene.server.set_rules({"kind": "list_hides", "match": two.id})
    reindexed = scene.reindexed(window=scene.window("", "voice", "chat"))

    async def show() -> None:
        scene.server.set_rules()

    async def end() -> None:
        await asyncio.gather(scene.ends(one), scene.ends(two))

    result = returned(await drive(scene.trigger(reindexed), nothing, nothing, show, end))
    assert set(result["workflow_ids"]) == {one.id, two.id}


async def test_a_reindex_without_any_workflow_is_a_failure(scene: Scene) -> None:
    first = failure(await drive(scene.trigger(scene.reindexed())))
    assert first["cause"] == "too_few_workflows"
    again = await drive(scene.trigger(scene.reindexed(), previous=first))
    assert ReindexEvent.from_json(again.payload).attempt == 1


async def test_continue_as_new_is_followed(scene: Scene) -> None:
    one = await scene.start()
    run = (await one.describe()).run_id

    async def again() -> None:
        await one.signal("do", "again")

        async def new_run() -> bool:
            return (await one.describe()).run_id != run

        await until(new_run, "a new run")

    result = returned(await scene.wait(one, steps=(again, nothing, nothing, lambda: scene.ends(one))))
    assert result["status"] == "completed"


async def test_a_reset_during_the_wait_is_followed(scene: Scene) -> None:
    one = await scene.start()

    async def reset() -> None:
        run = await scene.reset(one)
        assert (await one.describe()).run_id == run

    steps = (reset, nothing, nothing, lambda: scene.ends(scene.client.get_workflow_handle(one.id)))
    assert returned(await scene.wait(one, steps=steps))["status"] == "completed"


async def test_a_failed_workflow_that_a_person_has_reset_needs_no_new_job(scene: Scene) -> None:
    one = await scene.start()
    await decided(one)
    await scene.ends(one, "fail disk is full")
    first = failure(await scene.wait(one))
    await scene.reset(one)
    latest = scene.client.get_workflow_handle(one.id)
    cleared = scene.trigger(scene.reindexed(one), previous=first)
    assert returned(await drive(cleared, nothing, lambda: scene.ends(latest)))["attempt"] == 1


@pytest.mark.parametrize(
    ("order", "cause", "text"),
    [
        ("terminate", "terminated", "terminated"),
        ("hang", "heartbeat_timeout", "HEARTBEAT timeout"),
        ("fail ERROR: deadlock detected (SQLSTATE 40P01)", "deadlock", "40P01"),
        ("fail disk is full", "workflow_failed", "Boom: disk is full"),
        ("expire", "workflow_timeout", "timed_out"),
    ],
)
async def test_a_bad_end_is_a_failure_with_its_cause(scene: Scene, order: str, cause: str, text: str) -> None:
    options: Any = {"execution_timeout": timedelta(seconds=1)} if order == "expire" else {}
    one = await scene.start(**options)
    if order == "terminate":
        await one.terminate(reason="operations")
    elif order != "expire":
        await one.signal("do", order)
    await scene.closed(one)
    record = failure(await scene.wait(one))
    assert record["cause"] == cause
    assert text in record["reason"]
    assert one.id in record["reason"]
    assert record["reindexed"]["workflow_ids"] == [one.id]
    # What a smaller window cures is cut by replan, the rest is not.
    assert (cause in SIZE) is (cause not in ("terminated", "workflow_failed"))


async def test_a_cancelled_workflow_is_a_failure(scene: Scene) -> None:
    one = await scene.start()
    await one.cancel()
    await scene.closed(one)
    assert failure(await scene.wait(one))["cause"] == "canceled"


async def test_a_failure_is_told_once_nothing_is_open_any_more(scene: Scene) -> None:
    one, two = await scene.start(), await scene.start()
    await one.terminate(reason="operations")
    record = failure(await scene.wait(one, two, steps=(nothing, nothing, nothing, lambda: scene.ends(two))))
    assert record["cause"] == "terminated"
    assert two.id not in record["reason"]


async def test_a_cleared_failure_asks_for_a_new_job_and_does_not_look_at_dead_workflows(scene: Scene) -> None:
    one = await scene.start()
    await one.terminate(reason="operations")
    first = failure(await scene.wait(one))
    event = await drive(scene.trigger(scene.reindexed(one), previous=first))
    asked = ReindexEvent.from_json(event.payload)
    assert (asked.attempt, asked.window) == (1, scene.window())
    # The attempt that was made then is judged by itself.
    two = await scene.start()
    await two.terminate(reason="operations")
    again = failure(await drive(scene.trigger(scene.reindexed(two, attempt=2), previous=first)))
    assert again["reindexed"]["attempt"] == 2


async def test_what_was_seen_to_complete_stays_so_after_the_retention(scene: Scene) -> None:
    one, two = await scene.start(), await scene.start()
    await scene.ends(one)

    async def forget() -> None:
        scene.server.set_rules({"kind": "not_found", "match": one.id})

    steps = (forget, *[nothing] * 5, lambda: scene.ends(two))
    assert returned(await scene.wait(one, two, steps=steps))["status"] == "completed"


async def test_workflows_that_are_gone_before_they_were_seen_prove_nothing(scene: Scene) -> None:
    one, two = await scene.start(), await scene.start()
    await asyncio.gather(scene.ends(one), scene.ends(two))
    scene.server.set_rules({"kind": "not_found", "match": two.id})
    record = failure(await scene.wait(one, two))
    assert record["cause"] == "workflows_gone"
    assert two.id in record["reason"]


async def test_a_running_workflow_that_vanishes_is_no_success(scene: Scene) -> None:
    one = await scene.start()

    async def forget() -> None:
        scene.server.set_rules({"kind": "not_found"}, {"kind": "list_empty"})

    assert failure(await scene.wait(one, steps=(nothing, forget)))["cause"] == "workflows_gone"


async def test_progress_is_read_from_the_heartbeats_and_kept_to_the_end(scene: Scene) -> None:
    one, two = await scene.start(), await scene.start()
    await one.signal("do", "hang")

    async def told() -> bool:
        found = await one.describe()
        return any(a.HasField("heartbeat_details") for a in found.raw_description.pending_activities)

    await until(told, "a heartbeat")
    waits: list[Wait] = []

    async def cancel_one() -> None:
        await one.terminate(reason="seen")

    steps = (*[nothing] * 5, cancel_one, *[nothing] * 5, lambda: scene.ends(two))
    failure(await drive(scene.trigger(scene.reindexed(one, two)), *steps, waits=waits))
    assert "5 of 10 conversations" in waits[4].text
    assert {(w.done, w.total) for w in waits} == {(5, 10)}


async def test_a_wait_goes_on_in_another_triggerer(scene: Scene) -> None:
    one = await scene.start()
    trigger = scene.trigger(scene.reindexed(one))
    first = asyncio.create_task(first_event(in_triggerer(trigger)))
    before = len(scene.server.calls("DescribeWorkflowExecution"))

    async def looked() -> bool:
        return len(scene.server.calls("DescribeWorkflowExecution")) > before

    await until(looked, "the first triggerer has looked")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await scene.ends(one)
    assert returned(await drive(trigger))["status"] == "completed"


async def test_workflows_of_a_customer_are_not_those_of_a_longer_name(scene: Scene) -> None:
    short, long = scene.customer, f"{scene.customer}-sandbox"
    one, two = await scene.start(short), await scene.start(long)
    await scene.listed(one, two)
    workflows = Workflows(scene.client, scene.config)
    since = scene.config.temporal.clock_skew_seconds
    assert await customer_ids(workflows, scene.window(short), since) == [one.id]
    assert await customer_ids(workflows, scene.window(long), since) == [two.id]
    await scene.ends(one)
    # Only what is open of the very customer holds a new Job back.
    assert await open_of_window(workflows, scene.window(short), since) == []
    assert await open_of_window(workflows, scene.window(long), since) == [two.id]


async def test_ids_with_quotes_and_signs_are_found_and_find_nothing_else(scene: Scene) -> None:
    signs = ["O'Neil", 'a"b', "a\\b", "a?b", "a%b_c", "1' OR '1'='1", 'x" OR WorkflowId != "', "q\"'\\%x"]
    customers = [f"{scene.customer}{sign}" for sign in signs]
    handles = [await scene.start(customer) for customer in customers]
    await scene.listed(*handles)
    workflows = Workflows(scene.client, scene.config)
    since = scene.config.temporal.clock_skew_seconds
    found = [await customer_ids(workflows, scene.window(customer), since) for customer in customers]
    assert found == [[handle.id] for handle in handles]

"""Which workflows a window waits for: those of the log and those of the list, of this customer, attempt and days."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from backfill.hooks.temporal import Workflows
from backfill.triggers.workflows import customer_ids, open_of_window
from tests.sandbox.faults_temporal_fixtures import (
    Scene,
    drive,
    failure,
    nothing,
    returned,
    scene,
    server,
)
from tests.standins.temporal_fixtures import until

__all__ = ["scene", "server"]

JANUARY = ("2026-01-01", "2026-02-01")
MARCH = ("2026-03-01", "2026-04-01")


async def test_a_profile_without_work_is_green_when_log_and_list_agree(scene: Scene) -> None:
    one = await scene.start()
    await scene.listed(one)
    reindexed = scene.reindexed(one, window=scene.window("", "voice", "chat"))
    result = returned(await drive(scene.trigger(reindexed), nothing, lambda: scene.ends(one)))
    assert result["workflow_ids"] == [one.id]


async def test_a_profile_without_a_workflow_is_red_when_the_log_names_none(scene: Scene) -> None:
    one = await scene.start()
    await scene.listed(one)
    reindexed = scene.reindexed(window=scene.window("", "voice", "chat"))
    # The one that was found runs: nothing is said before its end.
    record = failure(await drive(scene.trigger(reindexed), *[nothing] * 5, lambda: scene.ends(one)))
    assert record["cause"] == "too_few_workflows"
    assert "no workflow for profile chat: the Job's log names 0, the query finds 1" in record["reason"]
    assert record["reindexed"]["workflow_ids"] == [one.id]


async def test_one_of_the_log_and_one_of_the_list_are_both_waited_for(scene: Scene) -> None:
    one, two = await scene.start(), await scene.start(profile="chat")
    await scene.listed(one, two)
    reindexed = scene.reindexed(one, window=scene.window("", "voice", "chat"))
    steps = (nothing, lambda: scene.ends(one), *[nothing] * 3, lambda: scene.ends(two))
    assert set(returned(await drive(scene.trigger(reindexed), *steps))["workflow_ids"]) == {one.id, two.id}


async def test_the_failure_of_a_workflow_that_only_the_list_shows_is_the_windows(scene: Scene) -> None:
    one, two = await scene.start(), await scene.start(profile="chat")
    await scene.listed(one, two)
    await asyncio.gather(scene.ends(one), scene.ends(two, "fail ERROR: deadlock detected (SQLSTATE 40P01)"))
    reindexed = scene.reindexed(one, window=scene.window("", "voice", "chat"))
    record = failure(await drive(scene.trigger(reindexed)))
    assert record["cause"] == "deadlock"
    assert two.id in record["reason"]


async def test_a_second_workflow_of_these_days_that_the_log_has_lost_must_be_closed_too(scene: Scene) -> None:
    one, lost = await scene.start(days=JANUARY), await scene.start(days=JANUARY)
    await scene.listed(one, lost)
    await scene.ends(one)
    result = returned(await scene.wait(one, steps=(*[nothing] * 3, lambda: scene.ends(lost))))
    assert set(result["workflow_ids"]) == {one.id, lost.id}


@pytest.mark.parametrize("how", ["input", "memo", "continued"])
async def test_workflows_of_other_days_of_the_same_customer_do_not_count(scene: Scene, how: str) -> None:
    memo = {"memo": {"from": "2026-03-01T00:00:00Z", "to": "2026-04-01T00:00:00Z"}}
    options: dict[str, Any] = memo if how == "memo" else {"days": MARCH}
    mine, other = await scene.start(days=JANUARY), await scene.start(profile="chat", **options)
    if how == "continued":
        run = (await other.describe()).run_id
        await other.signal("do", "again")

        async def renewed() -> bool:
            return (await other.describe()).run_id != run

        await until(renewed, "a new run")
    await scene.listed(mine, other)
    reindexed = scene.reindexed(mine, window=scene.window("", "voice", "chat"))
    # The other window's workflow is open, and this window ends: the log and the list agree about its own.
    result = returned(await drive(scene.trigger(reindexed), nothing, lambda: scene.ends(mine)))
    assert result["workflow_ids"] == [mine.id]


async def test_a_lost_log_takes_the_workflow_of_its_own_days_only(scene: Scene) -> None:
    mine, other = await scene.start(days=JANUARY), await scene.start(days=MARCH)
    await scene.listed(mine, other)
    await scene.ends(other, "fail disk is full")
    result = returned(await drive(scene.trigger(scene.reindexed()), nothing, lambda: scene.ends(mine)))
    assert result["workflow_ids"] == [mine.id]


async def test_a_workflow_that_says_nothing_of_its_days_counts_for_a_profile_that_the_log_does_not_name(
    scene: Scene,
) -> None:
    mine, same_profile, other_profile = (
        await scene.start(),
        await scene.start(),
        await scene.start(profile="chat"),
    )
    await scene.listed(mine, same_profile, other_profile)
    reindexed = scene.reindexed(mine, window=scene.window("", "voice", "chat"))
    steps = (nothing, lambda: scene.ends(mine), nothing, nothing, lambda: scene.ends(other_profile))
    result = returned(await drive(scene.trigger(reindexed), *steps))
    assert set(result["workflow_ids"]) == {mine.id, other_profile.id}


async def test_workflows_that_started_before_this_attempt_do_not_count(scene: Scene) -> None:
    old = await scene.start()
    await scene.listed(old)
    started = (await old.describe()).start_time.timestamp()
    skew = scene.config.temporal.clock_skew_seconds
    reindexed = scene.reindexed(made_at=started + skew + 1)
    record = failure(await drive(scene.trigger(reindexed)))
    assert record["cause"] == "too_few_workflows"
    assert "the query finds 0" in record["reason"]
    # Within the stated skew of the clocks it does.
    reindexed = scene.reindexed(made_at=started + skew - 1)
    result = returned(await drive(scene.trigger(reindexed), nothing, lambda: scene.ends(old)))
    assert result["workflow_ids"] == [old.id]


async def test_what_started_long_after_the_jobs_end_is_not_the_jobs(scene: Scene) -> None:
    one = await scene.start()
    await scene.listed(one)
    started = (await one.describe()).start_time.timestamp()
    skew = scene.config.temporal.clock_skew_seconds
    workflows = Workflows(scene.client, scene.config)
    window = scene.window()
    assert await customer_ids(workflows, window, started - 1, started - skew - 1) == []
    assert await customer_ids(workflows, window, started - 1, started - skew + 1) == [one.id]
    assert await open_of_window(workflows, window, started) == [one.id]


async def test_a_store_without_prefixes_is_asked_by_type_and_time_and_ids_are_compared(scene: Scene) -> None:
    one, long = await scene.start(), await scene.start(f"{scene.customer}-sandbox")
    await scene.listed(one, long)
    scene.server.set_rules({"kind": "invalid_query"})
    since = len(scene.server.calls())
    result = returned(await drive(scene.trigger(scene.reindexed()), nothing, nothing, lambda: scene.ends(one)))
    assert result["workflow_ids"] == [one.id]
    queries = [call["subject"] for call in scene.server.calls("ListWorkflowExecutions", since)]
    # Refused once, then left out for as long as the client lives.
    assert sum("STARTS_WITH" in query for query in queries) == 1
    assert any("StartTime >=" in query and "STARTS_WITH" not in query for query in queries)


async def test_a_status_of_a_newer_server_is_waited_for(scene: Scene) -> None:
    one = await scene.start()
    strange = {"kind": "describe_status", "code": "77", "match": one.id}

    async def known() -> None:
        scene.server.set_rules()

    await scene.ends(one)
    scene.server.set_rules(strange)
    assert returned(await scene.wait(one, steps=(nothing, nothing, known)))["status"] == "completed"


async def test_a_paused_workflow_is_open(scene: Scene) -> None:
    one = await scene.start()
    scene.server.set_rules({"kind": "describe_status", "code": "8", "match": one.id})
    workflows = Workflows(scene.client, scene.config)
    window, since = scene.window(), datetime.now(UTC).timestamp() - 60
    await scene.listed(one)
    assert await open_of_window(workflows, window, since) == [one.id]

    async def goes_on() -> None:
        scene.server.set_rules()
        await scene.ends(one)

    assert returned(await scene.wait(one, steps=(nothing, nothing, goes_on)))["status"] == "completed"


async def test_a_reset_after_the_last_look_and_before_the_verdict_is_seen(scene: Scene) -> None:
    one, two = await scene.start(), await scene.start()

    async def one_ends() -> None:
        await scene.ends(one)

    async def reset_and_end_the_other() -> None:
        # The first is known as closed and is not listed as open in the look that would decide.
        await scene.reset(one)
        await scene.ends(two)
        scene.server.set_rules({"kind": "list_empty"})

    latest = scene.client.get_workflow_handle(one.id)
    steps = (one_ends, nothing, reset_and_end_the_other, nothing, nothing, lambda: scene.ends(latest))
    assert returned(await scene.wait(one, two, steps=steps))["status"] == "completed"

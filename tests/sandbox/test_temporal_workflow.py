"""The reindex workflow on a real Temporal dev server: what it writes, what it shows, how it fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    TerminatedError,
    TimeoutError,
    TimeoutType,
)

from sandbox.data.generate import APPEAL, day_ms, generate
from sandbox.data.spec import rates_spec
from sandbox.reindexer.activities import Settings
from sandbox.reindexer.faults import DEADLOCK_TEXT, Limits
from sandbox.reindexer.model import PROGRESS_DONE, PROGRESS_TOTAL, ReindexResult
from tests.sandbox.reindexer_fixtures import Stand, running_worker
from tests.standins.temporal_fixtures import running_server, until


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("temporal")) as found:
        yield found


def settings(source: Path) -> Settings:
    """Small batches and short time-outs."""
    return Settings(source, batch_size=20, heartbeat_timeout=8.0, short_timeout=0.6)


def set_rules(stand: Stand, *rules: dict[str, Any], **limits: int) -> None:
    named = [{"id": f"rule-{number}", **rule} for number, rule in enumerate(rules)]
    stand.faults.write_text(json.dumps({"rules": named, "limits": limits}))


def expected_cards(stand: Stand, profile: int = 0, kinds: tuple[str, ...] = ("conversation",)) -> set[str]:
    records = generate(stand.spec, stand.spec.profiles[profile])
    return {card.scorecard_id for c in records for card in c.scorecards if card.scorecard_type in kinds}


async def failure_cause(handle: WorkflowHandle[Any, ReindexResult]) -> BaseException | None:
    """Cause of the failed activity of a failed workflow."""
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert (await handle.describe()).status is WorkflowExecutionStatus.FAILED
    activity = failed.value.cause
    assert isinstance(activity, ActivityError)
    return activity.cause


async def test_writes_exactly_the_ordinary_scorecards(address: str, tmp_path: Path) -> None:
    spec = rates_spec("plain", {"acme": 70, "acme-sandbox": 30})
    async with running_worker(address, tmp_path, spec, settings) as stand:
        handle = await stand.start("acme")
        result = await handle.result()
        cards = stand.target.keys("acme_voice", "scorecard")
        assert len(cards) == len(set(cards)) == result.scorecards
        assert set(cards) == expected_cards(stand)
        assert not set(cards) & expected_cards(stand, kinds=(APPEAL,))
        assert len(stand.target.keys("acme_voice", "score")) == result.scores
        assert result.conversations == 70
        assert {name for name, _ in stand.target.blocks} == {"acme_voice"}
        assert stand.target.closed == 1
        newest = max(int(str(value)) for _, block in stand.target.blocks for value in block.columns[-1])
        assert newest > day_ms(stand.spec.end_day)


async def test_a_range_without_conversations_completes(address: str, tmp_path: Path) -> None:
    async with running_worker(address, tmp_path, rates_spec("empty", {"acme": 5}), settings) as stand:
        result = await (await stand.start("acme", ("2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"))).result()
        assert result == ReindexResult(0, 0, 0)


async def test_a_second_reindex_writes_the_same_keys(address: str, tmp_path: Path) -> None:
    async with running_worker(address, tmp_path, rates_spec("again", {"acme": 30}), settings) as stand:
        await (await stand.start("acme")).result()
        once = stand.target.keys("acme_voice", "score")
        await (await stand.start("acme")).result()
        assert stand.target.keys("acme_voice", "score") == once * 2


async def test_progress_is_seen_by_describe_and_list_finds_the_workflow(address: str, tmp_path: Path) -> None:
    seen: list[dict[str, int]] = []
    async with running_worker(address, tmp_path, rates_spec("progress", {"hooli": 100}), settings) as stand:
        set_rules(stand, {"kind": "slow", "seconds": 0.5})
        handle = await stand.start("hooli")

        async def half_way() -> bool:
            pending = (await handle.describe()).raw_description.pending_activities
            for activity in pending:
                for payload in activity.heartbeat_details.payloads:
                    seen.append(json.loads(payload.data))
            return any(0 < details[PROGRESS_DONE] < details[PROGRESS_TOTAL] for details in seen)

        await until(half_way, "heartbeat details between 0 and the total")
        assert {details[PROGRESS_TOTAL] for details in seen} == {100}
        query = f"WorkflowType = 'ReindexConversations' AND WorkflowId = '{handle.id}'"

        async def listed() -> bool:
            found = [execution async for execution in stand.client.list_workflows(query)]
            return [execution.status for execution in found] == [WorkflowExecutionStatus.RUNNING]

        await until(listed, "the list shows the running workflow")
        assert (await handle.result()).conversations == 100


async def test_too_many_conversations_fail_by_heartbeat_timeout(address: str, tmp_path: Path) -> None:
    spec = rates_spec("giant", {"umbrella": 90, "wayne": 20})
    async with running_worker(
        address, tmp_path, spec, lambda path: replace(settings(path), limits=Limits(max_conversations=50))
    ) as stand:
        giant, small = await stand.start("umbrella"), await stand.start("wayne")
        cause = await failure_cause(giant)
        assert isinstance(cause, TimeoutError)
        assert cause.type is TimeoutType.HEARTBEAT
        assert (await small.result()).conversations == 20
        written = set(stand.target.keys("umbrella_voice", "scorecard"))
        assert set() < written < expected_cards(stand)
        single_day = ("2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z")
        assert (await (await stand.start("umbrella", single_day)).result()).conversations < 50


async def test_too_many_at_once_fail_by_deadlock(address: str, tmp_path: Path) -> None:
    spec = rates_spec("crowd", {"acme": 20, "wayne": 20})
    async with running_worker(address, tmp_path, spec, settings) as stand:
        set_rules(stand, {"kind": "hold", "customer": "acme"}, max_parallel=1)
        first = await stand.start("acme")

        async def held() -> bool:
            pending = (await first.describe()).raw_description.pending_activities
            return any(activity.heartbeat_details.payloads for activity in pending)

        await until(held, "the first workflow is inside its activity")
        cause = await failure_cause(await stand.start("wayne"))
        assert isinstance(cause, ApplicationError)
        assert cause.message == DEADLOCK_TEXT
        assert stand.target.keys("wayne_voice", "scorecard") == []
        set_rules(stand)
        assert (await first.result()).conversations == 20
        assert (await (await stand.start("wayne")).result()).conversations == 20


async def test_start_to_close_timeout(address: str, tmp_path: Path) -> None:
    async with running_worker(address, tmp_path, rates_spec("long", {"acme": 30}), settings) as stand:
        set_rules(stand, {"kind": "start_to_close_timeout"})
        cause = await failure_cause(await stand.start("acme"))
        assert isinstance(cause, TimeoutError)
        assert cause.type is TimeoutType.START_TO_CLOSE


async def test_a_rule_with_times_one_hits_one_workflow(address: str, tmp_path: Path) -> None:
    async with running_worker(address, tmp_path, rates_spec("once", {"acme": 30}), settings) as stand:
        set_rules(stand, {"kind": "fail", "message": "disk full", "times": 1})
        cause = await failure_cause(await stand.start("acme"))
        assert isinstance(cause, ApplicationError)
        assert cause.message == "disk full"
        assert (await (await stand.start("acme")).result()).conversations == 30


async def test_a_failed_attempt_is_retried(address: str, tmp_path: Path) -> None:
    async with running_worker(address, tmp_path, rates_spec("flaky", {"acme": 40}), settings) as stand:
        set_rules(stand, {"kind": "deadlock", "attempts": 1})
        assert (await (await stand.start("acme")).result()).conversations == 40
        cards = stand.target.keys("acme_voice", "scorecard")
        assert len(cards) > len(set(cards))
        assert set(cards) == expected_cards(stand)


@pytest.mark.parametrize(
    ("kind", "status", "cause"),
    [
        ("cancel", WorkflowExecutionStatus.CANCELED, CancelledError),
        ("terminate", WorkflowExecutionStatus.TERMINATED, TerminatedError),
    ],
)
async def test_ended_from_outside(
    address: str, tmp_path: Path, kind: str, status: WorkflowExecutionStatus, cause: type[Exception]
) -> None:
    async with running_worker(address, tmp_path, rates_spec(kind, {"acme": 40}), settings) as stand:
        set_rules(stand, {"kind": kind})
        handle = await stand.start("acme")
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        assert isinstance(failed.value.cause, cause)
        assert (await handle.describe()).status is status
        assert set(stand.target.keys("acme_voice", "scorecard")) < expected_cards(stand)


async def test_continue_as_new_part_way_writes_everything_once(address: str, tmp_path: Path) -> None:
    async with running_worker(address, tmp_path, rates_spec("newrun", {"acme": 60}), settings) as stand:
        set_rules(stand, {"kind": "continue_as_new", "times": 1})
        handle = await stand.start("acme")
        first_run = handle.result_run_id
        await handle.result()
        latest = await stand.client.get_workflow_handle(handle.id).describe()
        assert latest.run_id != first_run
        first = await stand.client.get_workflow_handle(handle.id, run_id=first_run).describe()
        assert first.status is WorkflowExecutionStatus.CONTINUED_AS_NEW
        cards = stand.target.keys("acme_voice", "scorecard")
        assert len(cards) == len(set(cards))
        assert set(cards) == expected_cards(stand)


async def test_a_silent_loss_looks_like_success(address: str, tmp_path: Path) -> None:
    async with running_worker(address, tmp_path, rates_spec("loss", {"acme": 70}), settings) as stand:
        set_rules(stand, {"kind": "drop", "share": 0.1})
        result = await (await stand.start("acme")).result()
        total = len(expected_cards(stand))
        assert result.scorecards == total
        assert len(stand.target.keys("acme_voice", "scorecard")) == total - int(total * 0.1)


async def test_a_bad_range_fails_at_once(address: str, tmp_path: Path) -> None:
    async with running_worker(address, tmp_path, rates_spec("bad", {"acme": 5}), settings) as stand:
        cause = await failure_cause(await stand.start("acme", ("2026-01-01", "2026-02-01")))
        assert isinstance(cause, ApplicationError)
        assert "no UTC offset" in cause.message

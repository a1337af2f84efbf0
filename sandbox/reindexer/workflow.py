"""The workflow `ReindexConversations`: prepare (count, decide the fault), then one activity that writes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy

with workflow.unsafe.imports_passed_through():
    from sandbox.reindexer.model import (
        PREPARE_ACTIVITY,
        REINDEX_ACTIVITY,
        WORKFLOW_TYPE,
        ReindexPlan,
        ReindexRequest,
        ReindexResult,
    )


@workflow.defn(name=WORKFLOW_TYPE)
class ReindexConversations:
    """Writes the ordinary scorecards of one customer, profile and range again; only INSERTs."""

    @workflow.run
    async def run(self, request: ReindexRequest) -> ReindexResult:
        """Run to the end; fails with the activity's failure, may continue as new part-way."""
        plan = await workflow.execute_activity(
            PREPARE_ACTIVITY,
            request,
            result_type=ReindexPlan,
            start_to_close_timeout=timedelta(seconds=20),
            schedule_to_close_timeout=timedelta(minutes=5),
        )
        result: ReindexResult = await workflow.execute_activity(
            REINDEX_ACTIVITY,
            args=[request, plan],
            result_type=ReindexResult,
            start_to_close_timeout=timedelta(seconds=plan.start_to_close_timeout),
            heartbeat_timeout=timedelta(seconds=plan.heartbeat_timeout),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=plan.max_attempts),
        )
        if plan.part_end:
            workflow.continue_as_new(replace(request, start=plan.part_end))
        return result

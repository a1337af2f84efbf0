"""Stand-in for the image of `cron-batch-reindex-conversations`: starts workflows, logs a line each, exits.

Reads the real environment variables (REINDEX_START_TIME, REINDEX_END_TIME, RUN_ONLY_FOR_CUSTOMER_IDS,
REINDEX_MODE, REINDEX_SCORECARDS_CLEAN_UP_BEFORE_WRITE) and the sandbox's wiring (TEMPORAL_ADDRESS,
TEMPORAL_NAMESPACE, SANDBOX_CLUSTER, SANDBOX_SOURCE; optional SANDBOX_TEMPORAL_FAULTS, a faults file, and
SANDBOX_EXECUTION_TIMEOUT_SECONDS, the time-out of each workflow). Exit codes: 0 started, 1 failed, 2 bad
environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client
from temporalio.service import RPCError

from sandbox.data.source import list_profiles, parse_utc
from sandbox.reindexer.faultfile import FaultFile
from sandbox.reindexer.faults import Kind, Request, Rule, decide_job
from sandbox.reindexer.leave import leave
from sandbox.reindexer.model import WORKFLOW_TYPE, ReindexRequest, task_queue, workflow_id

CUSTOMERS_VARIABLE = "RUN_ONLY_FOR_CUSTOMER_IDS"
CONNECT_SECONDS = 20.0
"""Limit of the connection to Temporal."""


class EnvironmentFault(ValueError):
    """A variable of the Job that is missing or wrong; the text names it and the value."""


@dataclass(frozen=True, slots=True)
class Job:
    """What the environment asks for. customers None means all; times are RFC 3339, end exclusive."""

    start: str
    end: str
    customers: tuple[str, ...] | None
    options: dict[str, str]
    address: str
    namespace: str
    cluster: str
    source: Path
    faults: Path | None
    execution_timeout: timedelta | None


def parse_environment(env: Mapping[str, str]) -> Job:
    """Environment of the container -> Job. Raises EnvironmentFault.

    An empty RUN_ONLY_FOR_CUSTOMER_IDS means every customer, like an absent one: so does the real program.
    """
    start, end = _required(env, "REINDEX_START_TIME"), _required(env, "REINDEX_END_TIME")
    if _time(end, "REINDEX_END_TIME") <= _time(start, "REINDEX_START_TIME"):
        raise EnvironmentFault(f"REINDEX_END_TIME {end!r} must be after REINDEX_START_TIME {start!r}")
    names = tuple(name.strip() for name in env.get(CUSTOMERS_VARIABLE, "").split(",") if name.strip())
    faults = env.get("SANDBOX_TEMPORAL_FAULTS")
    return Job(
        start=start,
        end=end,
        customers=names or None,
        options=_options(env),
        address=_required(env, "TEMPORAL_ADDRESS"),
        namespace=_required(env, "TEMPORAL_NAMESPACE"),
        cluster=_required(env, "SANDBOX_CLUSTER"),
        source=Path(_required(env, "SANDBOX_SOURCE")),
        faults=Path(faults) if faults else None,
        execution_timeout=_timeout(env),
    )


async def start_workflows(job: Job) -> int:
    """Start one workflow per customer and profile of the source store and log each; returns their number."""
    pairs = list_profiles(job.source, job.customers)
    rule = _fault(job, pairs)
    if rule is not None and rule.kind is Kind.JOB_FAIL:
        raise RuntimeError(rule.message or "reindex job failed on purpose")
    client = await asyncio.wait_for(Client.connect(job.address, namespace=job.namespace), CONNECT_SECONDS)
    for customer, profile in pairs:
        unique = str(uuid.uuid4())
        name = f"customers/{customer}/profiles/{profile}/reindexConversationsJobs/{unique}"
        handle = await client.start_workflow(
            WORKFLOW_TYPE,
            ReindexRequest(customer, profile, job.start, job.end, job.options),
            id=workflow_id(customer, profile, unique),
            task_queue=task_queue(job.cluster),
            execution_timeout=job.execution_timeout,
        )
        if rule is None or rule.kind is not Kind.JOB_SILENT:
            print(
                f"Created reindex conversations job: name={name}, execution_id={handle.id}, cluster={job.cluster}",
                flush=True,
            )
    if rule is not None and rule.kind is Kind.JOB_FAIL_AFTER_START:
        raise RuntimeError(rule.message or "reindex job failed on purpose after it started its workflows")
    return len(pairs)


def main() -> int:
    """Run the container's command; see the module's text for the exit codes."""
    try:
        job = parse_environment(os.environ)
    except EnvironmentFault as error:
        print(f"bad environment: {error}", file=sys.stderr)
        return 2
    if job.customers is None:
        print(f"{CUSTOMERS_VARIABLE} is absent or empty: reindexing every customer", file=sys.stderr)
    try:
        started = asyncio.run(start_workflows(job))
    except (OSError, RuntimeError, RPCError) as error:  # the SDK reports a refused connection as RuntimeError
        print(f"reindex job failed: {error}", file=sys.stderr)
        return 1
    if not started:
        print(f"no profile in the source store for customers {job.customers}", file=sys.stderr)
    return 0


def _fault(job: Job, pairs: list[tuple[str, str]]) -> Rule | None:
    """The rule that hits this Job: the first one that matches any of its customers."""
    file = FaultFile(job.faults)
    run = str(uuid.uuid4())
    faults, used = file.read(), file.used(run)
    times = (parse_utc(job.start), parse_utc(job.end))
    for customer in sorted({customer for customer, _ in pairs}):
        rule = decide_job(Request(customer, None, *times), faults, used)
        if rule is not None:
            file.record([rule.id], run)
            return rule
    return None


def _required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise EnvironmentFault(f"{name} is not set")
    return value


def _time(text: str, name: str) -> int:
    try:
        return parse_utc(text)
    except ValueError as error:
        raise EnvironmentFault(f"{name} is {text!r}, must be RFC 3339 UTC like 2026-01-01T00:00:00Z") from error


def _options(env: Mapping[str, str]) -> dict[str, str]:
    allowed = {"REINDEX_MODE": ("process",), "REINDEX_SCORECARDS_CLEAN_UP_BEFORE_WRITE": ("true", "false")}
    for name, values in allowed.items():
        if name in env and env[name] not in values:
            raise EnvironmentFault(f"{name} is {env[name]!r}, must be one of {values} or absent")
    return {name: env[name] for name in allowed if name in env}


def _timeout(env: Mapping[str, str]) -> timedelta | None:
    text = env.get("SANDBOX_EXECUTION_TIMEOUT_SECONDS")
    try:
        return timedelta(seconds=float(text)) if text else None
    except ValueError as error:
        raise EnvironmentFault(f"SANDBOX_EXECUTION_TIMEOUT_SECONDS is {text!r}, must be a number") from error


if __name__ == "__main__":
    leave(main())

"""The stand-in of the reindex image, run like a container: environment, log line, exit codes."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowExecutionStatus

from sandbox.data.loader import Paths, load
from sandbox.data.spec import rates_spec
from sandbox.reindex_job import EnvironmentFault, parse_environment
from standins.ports import free_port
from tests.sandbox.reindexer_fixtures import JANUARY
from tests.standins.temporal_fixtures import (
    NAMESPACE,
    python_environment,
    running_server,
    until,
)

LINE = re.compile(
    r"Created reindex conversations job: name=customers/(?P<customer>[^/]+)/profiles/(?P<profile>[^/]+)"
    r"/reindexConversationsJobs/(?P<uuid>[0-9a-f-]{36}), execution_id=(?P<id>\S+), cluster=(?P<cluster>\S+)"
)
EVERYONE = ["acme/chat", "acme/voice", "acme-sandbox/voice", "globex.eu/voice-1"]


@dataclass(frozen=True)
class Outcome:
    """What the container left behind."""

    code: int
    lines: list[re.Match[str]]
    output: str
    errors: str

    @property
    def started(self) -> list[str]:
        """customer/profile of each log line."""
        return [f"{line['customer']}/{line['profile']}" for line in self.lines]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("temporal")) as found:
        yield found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    paths = Paths(tmp_path_factory.mktemp("source"), "job")
    load(rates_spec("job", {"acme": 3, "acme/chat": 3, "acme-sandbox": 3, "globex.eu/voice-1": 0}), paths, None)
    return paths.source


def environment(address: str, source: Path, **extra: str) -> dict[str, str]:
    return {
        "REINDEX_START_TIME": JANUARY[0],
        "REINDEX_END_TIME": JANUARY[1],
        "TEMPORAL_ADDRESS": address,
        "TEMPORAL_NAMESPACE": NAMESPACE,
        "SANDBOX_CLUSTER": "job",
        "SANDBOX_SOURCE": str(source),
        **extra,
    }


async def run_job(env: Mapping[str, str]) -> Outcome:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandbox.reindex_job"),
        env=python_environment(**env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = (data.decode() for data in await process.communicate())
    lines = [LINE.fullmatch(line) for line in output.splitlines()]
    assert all(lines), f"a line of another form: {output}"
    assert process.returncode is not None
    return Outcome(process.returncode, [line for line in lines if line], output, errors)


async def test_starts_one_workflow_per_profile_of_the_named_customers(address: str, source: Path) -> None:
    env = environment(address, source, RUN_ONLY_FOR_CUSTOMER_IDS="acme,globex.eu", REINDEX_MODE="process")
    outcome = await run_job(env)
    assert outcome.code == 0, outcome.errors
    assert outcome.started == ["acme/chat", "acme/voice", "globex.eu/voice-1"]
    client = await Client.connect(address, namespace=NAMESPACE)
    for line in outcome.lines:
        assert line["id"] == f"reindexconversations-{line['customer']}-{line['profile']}-{line['uuid']}"
        assert line["cluster"] == "job"
        description = await client.get_workflow_handle(line["id"]).describe()
        assert description.status is WorkflowExecutionStatus.RUNNING
        assert description.task_queue == "reindex-job"


async def test_an_unknown_customer_starts_nothing(address: str, source: Path) -> None:
    outcome = await run_job(environment(address, source, RUN_ONLY_FOR_CUSTOMER_IDS="acm"))
    assert (outcome.code, outcome.output) == (0, "")
    assert "no profile" in outcome.errors


@pytest.mark.parametrize("extra", [{}, {"RUN_ONLY_FOR_CUSTOMER_IDS": ""}, {"RUN_ONLY_FOR_CUSTOMER_IDS": " ,"}])
async def test_absent_or_empty_customers_mean_everyone(address: str, source: Path, extra: dict[str, str]) -> None:
    outcome = await run_job(environment(address, source, **extra))
    assert sorted(outcome.started) == sorted(EVERYONE)
    assert "every customer" in outcome.errors


@pytest.mark.parametrize(
    ("kind", "code", "started", "lines"),
    [("job_fail", 1, 0, 0), ("job_fail_after_start", 1, 2, 2), ("job_silent", 0, 2, 0)],
)
async def test_faults_of_the_container_hit_once(
    address: str, source: Path, tmp_path: Path, kind: str, code: int, started: int, lines: int
) -> None:
    faults = tmp_path / "faults.json"
    rule = {"id": "x", "kind": kind, "customer": "acme", "times": 1, "message": "no quota"}
    faults.write_text(json.dumps({"rules": [rule]}))
    options = {"RUN_ONLY_FOR_CUSTOMER_IDS": "acme", "SANDBOX_TEMPORAL_FAULTS": str(faults)}
    env = environment(address, source, **options) | {"SANDBOX_CLUSTER": kind}
    outcome = await run_job(env)
    assert (outcome.code, len(outcome.lines)) == (code, lines)
    assert ("no quota" in outcome.errors) is (code == 1)
    client = await Client.connect(address, namespace=NAMESPACE)

    async def listed() -> bool:
        return (await client.count_workflows(f"TaskQueue = 'reindex-{kind}'")).count == started

    await until(listed, f"{started} workflows of the Job")
    assert (await run_job(env)).started == ["acme/chat", "acme/voice"]


async def test_an_execution_timeout_ends_the_workflow_as_timed_out(address: str, source: Path) -> None:
    env = environment(address, source, RUN_ONLY_FOR_CUSTOMER_IDS="acme-sandbox", SANDBOX_EXECUTION_TIMEOUT_SECONDS="1")
    (line,) = (await run_job(env)).lines
    handle = (await Client.connect(address, namespace=NAMESPACE)).get_workflow_handle(line["id"])
    with pytest.raises(Exception, match="Workflow"):
        await handle.result()
    assert (await handle.describe()).status is WorkflowExecutionStatus.TIMED_OUT


async def test_no_temporal_server_is_exit_code_one(source: Path) -> None:
    outcome = await run_job(environment(f"127.0.0.1:{free_port()}", source, RUN_ONLY_FOR_CUSTOMER_IDS="acme"))
    assert (outcome.code, outcome.output) == (1, "")
    assert "reindex job failed" in outcome.errors


async def test_a_bad_environment_is_exit_code_two(source: Path) -> None:
    outcome = await run_job(environment("127.0.0.1:1", source, REINDEX_END_TIME=JANUARY[0]))
    assert (outcome.code, outcome.output) == (2, "")
    assert "must be after" in outcome.errors


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"REINDEX_START_TIME": ""}, "REINDEX_START_TIME is not set"),
        ({"REINDEX_START_TIME": "2026-01-01"}, "REINDEX_START_TIME is '2026-01-01'"),
        ({"REINDEX_MODE": "everything"}, "REINDEX_MODE is 'everything'"),
        ({"REINDEX_SCORECARDS_CLEAN_UP_BEFORE_WRITE": "yes"}, "'yes'"),
        ({"SANDBOX_EXECUTION_TIMEOUT_SECONDS": "soon"}, "'soon'"),
        ({"TEMPORAL_ADDRESS": ""}, "TEMPORAL_ADDRESS is not set"),
    ],
)
def test_each_bad_variable_is_named(change: dict[str, str], part: str) -> None:
    with pytest.raises(EnvironmentFault, match=part):
        parse_environment(environment("127.0.0.1:1", Path("x.sqlite")) | change)


def test_options_are_passed_on() -> None:
    options = {"REINDEX_MODE": "process", "REINDEX_SCORECARDS_CLEAN_UP_BEFORE_WRITE": "true"}
    job = parse_environment(environment("127.0.0.1:1", Path("x.sqlite"), **options))
    assert job.options == options
    assert job.customers is None

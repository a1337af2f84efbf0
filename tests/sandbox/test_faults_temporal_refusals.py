"""What Temporal refuses: what passes is waited for, what a person must mend is said once it is sure, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.service import RPCStatusCode

from backfill.hooks.temporal import RefusedError, TemporalHook
from backfill.kit import wait
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.verdicts.causes import CAUSES
from tests.sandbox.faults_temporal_fixtures import (
    Scene,
    Server,
    cluster_file,
    drive,
    failure,
    impatient,
    nothing,
    returned,
    scene,
    server,
)

__all__ = ["scene", "server"]

READS = ["ListWorkflowExecutions", "DescribeWorkflowExecution"]
NAMED = ("INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED")
PASSING = [code.name for code in RPCStatusCode if code.name not in (*NAMED, "NOT_FOUND", "OK")]


@pytest.mark.parametrize("code", PASSING)
async def test_every_other_answer_is_waited_for(scene: Scene, code: str) -> None:
    one = await scene.start()

    async def begin() -> None:
        scene.server.set_rules({"kind": "code", "code": code, "match": {"method": "|".join(READS)}})

    async def end() -> None:
        scene.server.set_rules()

    result = returned(await scene.wait(one, steps=(begin, nothing, nothing, end, lambda: scene.ends(one))))
    assert result["status"] == "completed"


@pytest.mark.parametrize(
    ("code", "cause"),
    [("PERMISSION_DENIED", "access_denied"), ("UNAUTHENTICATED", "access_denied"), ("INVALID_ARGUMENT", "error")],
)
@pytest.mark.parametrize("method", READS)
async def test_a_refusal_is_asked_once_more_and_then_names_its_connection(
    scene: Scene, code: str, cause: str, method: str
) -> None:
    one = await scene.start()
    scene.server.set_rules({"kind": "code", "code": code, "match": {"method": method}})
    made = len(scene.clients)
    record = failure(await scene.wait(one, steps=(nothing,)))
    assert record["cause"] == cause
    assert cause in CAUSES
    assert f"connection {scene.config.temporal.conn_id}, namespace ingestion" in record["reason"]
    assert code in record["reason"]
    # The second time with the connection as it was then.
    assert len(scene.clients) == made + 2


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "UNAUTHENTICATED"])
async def test_a_key_that_was_renewed_in_time_goes_on(scene: Scene, code: str) -> None:
    one = await scene.start()
    refused = {"kind": "code", "code": code, "match": {"method": "DescribeWorkflowExecution"}}

    async def refuse() -> None:
        scene.server.set_rules(refused)

    async def renew() -> None:
        scene.server.set_rules()

    # Refused twice, but not twice in a row.
    steps = (refuse, renew, nothing, refuse, renew, lambda: scene.ends(one))
    assert returned(await scene.wait(one, steps=steps))["status"] == "completed"


async def test_a_namespace_that_does_not_exist_is_not_a_workflow_that_is_gone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await scene.start()
    wrong = scene.config.temporal.model_copy(update={"namespace": "ingestoin"})
    config = scene.config.model_copy(update={"temporal": wrong})
    monkeypatch.setattr(wait, "cluster_config", lambda name: config)
    record = failure(await drive(scene.trigger(scene.reindexed(one)), nothing))
    assert record["cause"] == "configuration"
    assert "temporal.namespace" in record["reason"]
    assert "'ingestoin'" in record["reason"]


async def test_a_first_call_that_is_denied_is_not_taken_for_a_wrong_address(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config: ClusterConfig = cluster_file(tmp_path, monkeypatch, server.proxy)
    impatient(monkeypatch)
    server.set_rules({"kind": "code", "code": "UNAUTHENTICATED"})
    hook = TemporalHook(config.temporal.conn_id)
    with pytest.raises(RefusedError, match="does not accept this connection") as found:
        await hook.connect(config.temporal.namespace)
    assert config.temporal.conn_id in str(found.value)
    server.set_rules()

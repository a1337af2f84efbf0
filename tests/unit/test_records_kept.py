"""What a stage or a plan keeps for its own next try comes back as it was kept, and nothing is kept that was not set."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from include.scorecard_backfill.params.chosen import Chosen
from include.scorecard_backfill.planning.frozen import FrozenPlan
from include.scorecard_backfill.records import KeptStep, MadeJob, RecordError
from tests.kit import build


def test_a_step_is_kept_with_what_was_set() -> None:
    sending = KeptStep(state="sending", at=1.5, partitions=("p",))
    assert sending.to_json() == {"state": "sending", "at": 1.5, "partitions": ["p"]}
    assert KeptStep.from_json(json.loads(json.dumps(sending.to_json()))) == sending
    answered = sending.model_copy(update={"answered": True})
    assert answered.to_json() == {**sending.to_json(), "answered": True}
    assert KeptStep().to_json() == {}


@pytest.mark.parametrize("nothing", [None, {}])
def test_nothing_kept_is_nothing_known(nothing: object) -> None:
    assert (KeptStep.from_json(nothing).state, MadeJob.from_json(nothing)) == ("", MadeJob())


def test_what_cannot_be_a_step_is_refused() -> None:
    with pytest.raises(ValidationError):
        KeptStep.from_json({"state": "gone"})


def test_a_frozen_plan_comes_back_as_it_was() -> None:
    plan = FrozenPlan((build.window(0, 1),), {"mode": "cleanup", "dry_run": True}, {"windows": "d"}, ("a note",))
    kept = json.loads(json.dumps(plan.to_json()))
    assert FrozenPlan.from_json(kept) == plan
    assert plan.chosen == Chosen(mode="cleanup", dry_run=True)
    kept["windows"][0]["v"] = 99
    with pytest.raises(RecordError, match="99"):
        FrozenPlan.from_json(kept)

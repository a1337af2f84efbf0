"""A verdict owes its reader a reason."""

from __future__ import annotations

import pytest

from include.scorecard_backfill.verdicts.base import Verdict, failed, ok, wait


def test_a_verdict_owes_its_reader_a_reason() -> None:
    for make in (wait, lambda: failed("cause"), lambda: failed("", "reason")):
        with pytest.raises(ValueError, match="reason"):
            make()
    assert ok().text == "ok"
    assert wait("a", "b") == Verdict("wait", ("a", "b"))
    assert wait("a", "b").text == "a; b"
    assert (failed("killed", "x").cause, failed("killed", "x").state) == ("killed", "failed")

"""Every run that the pages tell people to start is one that a run's form takes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.params import RunParams, effective

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = ("from-the-scripts.md", "first-runs.md")
BLOCK = re.compile(r"```json\n(.*?)```", re.DOTALL)


def confs(page: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in BLOCK.findall((DOCS / page).read_text())]


@pytest.mark.parametrize(("page", "count"), [(page, 5) for page in PAGES])
def test_each_page_shows_its_runs(page: str, count: int) -> None:
    assert len(confs(page)) == count


@pytest.mark.parametrize("conf", [conf for page in PAGES for conf in confs(page)], ids=json.dumps)
def test_a_run_takes_the_form_that_a_page_shows(conf: dict[str, Any]) -> None:
    run = effective(
        RunParams.read(conf),
        run_type="manual",
        run_after=datetime(2026, 3, 1, tzinfo=UTC),
        cluster=ClusterConfig(name="demo"),
        given=conf,
    )
    assert run.mode == conf["mode"]
    # Nothing that a page shows deletes rows without asking.
    assert run.require_approval is run.destructive


def test_the_first_runs_begin_with_one_that_changes_nothing() -> None:
    runs = confs("first-runs.md")
    assert runs[0]["dry_run"] is True
    assert runs[1]["mode"] == "reindex"
    assert all(len(run.get("customers", [])) == 1 for run in runs[:4])

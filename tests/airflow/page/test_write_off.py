"""Writing a debt off, from the command to Airflow's database: who may, what is kept, and when it is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from airflow.models.asset import AssetModel
from airflow.models.asset_state_store import AssetStateStoreModel
from airflow.models.log import Log
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.orm import Session

from backfill.kit.debts import INDEX, cluster_asset, key_of
from tests.airflow.page.conftest import person
from tests.airflow.page.test_command_routes import call
from tests.kit.build import debt, table, window
from tests.kit.page_story import DAG, Story

CLUSTER = "sandbox-east"
DEBT = debt(window(cluster=CLUSTER), table({0: "abc"}))
ARGV = ("--cluster", CLUSTER, "write-off", DEBT.window, "--reason", "the customer is gone", "--yes")
ARGV = (ARGV[2], *ARGV[:2], *ARGV[3:])


@pytest.fixture
def book(story: Session) -> Iterator[Session]:
    """The state of the cluster's asset: one debt that can be read, one that cannot."""
    asset = cluster_asset(CLUSTER)
    row = AssetModel(name=asset.name, uri=asset.uri, group="asset")
    story.add(row)
    story.flush()
    spoiled = {"kind": "debt", "v": 99}
    for key, value in {INDEX: [DEBT.window, "k2"], key_of(DEBT.window): DEBT.to_json(), key_of("k2"): spoiled,
                       key_of("k3"): "paid"}.items():  # fmt: skip
        story.add(AssetStateStoreModel(asset_id=row.id, key=key, value=json.dumps(value)))
    Story(story, "manual__1", "failed")
    story.commit()
    yield story
    story.rollback()
    story.query(AssetStateStoreModel).delete()
    story.query(AssetModel).delete()
    story.query(Log).filter(Log.event == "backfill_write_off").delete()
    story.commit()


def stored(session: Session) -> dict[str, str]:
    """What is stored, by key."""
    session.expire_all()
    return {row.key: row.value for row in session.scalars(select(AssetStateStoreModel))}


def test_all_debts_are_listed_with_their_keys(fresh: FastAPI, book: Session) -> None:
    ended = call(fresh, "viewer", "debts", "--cluster", CLUSTER)
    assert ended.code == 0, ended.err
    assert f"{DEBT.window}  {DEBT.text}" in ended.out
    assert "k2  the debt of window k2 (customer and days not known) cannot be read: its version is 99" in ended.out
    assert "python -m backfill write-off k2 --reason" in ended.out
    assert "k3" not in ended.out


def test_the_page_is_shown_and_names_what_cannot_be_read(fresh: FastAPI, book: Session) -> None:
    ended = call(fresh, "viewer", "status", "--cluster", CLUSTER)
    assert "!! 1 debt of this cluster cannot be read." in ended.out, ended.err


def test_a_debt_is_written_off_with_name_and_reason_and_everything_that_it_said(fresh: FastAPI, book: Session) -> None:
    asked = call(fresh, "admin", *ARGV[:-1])
    assert (asked.code, json.loads(stored(book)[key_of(DEBT.window)])) == (2, DEBT.to_json()), asked.out
    ended = call(fresh, "admin", *ARGV)
    assert ended.code == 0, ended.err
    assert f"The debt of {DEBT.label} ({DEBT.window}) is written off" in ended.out
    now = stored(book)
    assert now[key_of(DEBT.window)] == '"paid"'
    kept = json.loads(now[f"written-off:{DEBT.window}"])
    assert (kept["by"], kept["reason"], json.loads(kept["stored"])) == ("mary", "the customer is gone", DEBT.to_json())
    entry = book.scalars(select(Log).where(Log.event == "backfill_write_off")).one()
    assert (entry.owner, json.loads(entry.extra or "")["stored"]) == ("mary", kept["stored"])
    # The other one is as it was.
    assert json.loads(now[key_of("k2")]) == {"kind": "debt", "v": 99}


def test_without_the_right_or_while_a_run_is_under_way_nothing_is_written_off(fresh: FastAPI, book: Session) -> None:
    before = stored(book)
    assert call(fresh, "viewer", *ARGV).code == 3
    Story(book, "manual__2", "running")
    book.commit()
    ended = call(fresh, "admin", *ARGV)
    assert (ended.code, "Run manual__2 of sandbox-east has not ended" in ended.err) == (1, True), ended.err
    assert stored(book) == before


async def test_only_what_was_shown_is_written_off(fresh: FastAPI, book: Session) -> None:
    body = {"key": DEBT.window, "digest": "0" * 16, "reason": "the customer is gone"}
    async with person(fresh, "admin") as client:
        answer = await client.post("/actions/write-off", params={"dag_id": DAG}, json=body)
    assert (answer.status_code, "Look again" in answer.json()["detail"]) == (409, True)
    assert call(fresh, "admin", ARGV[0], *ARGV[1:3], "k3", *ARGV[4:]).code == 1


def test_an_index_that_cannot_be_read_is_made_anew_from_the_debts(fresh: FastAPI, book: Session) -> None:
    row = book.scalars(select(AssetStateStoreModel).where(AssetStateStoreModel.key == INDEX)).one()
    row.value = "{ broken"
    book.commit()
    ended = call(fresh, "admin", "write-off", "--cluster", CLUSTER, INDEX, "--reason", "it was spoiled", "--yes")
    assert ended.code == 0, ended.err
    now = stored(book)
    assert json.loads(now[INDEX]) == sorted([DEBT.window, "k2"])
    assert json.loads(now[key_of(DEBT.window)]) == DEBT.to_json()

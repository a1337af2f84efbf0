"""Replan, report and tidy: joined by key, red unless every window is proven, cut once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, call

import pytest
from airflow.sdk.exceptions import AirflowFailException

from backfill.groups import ALL_GROUPS
from backfill.hooks.kubernetes import KubernetesJobs
from backfill.kit.debts import DebtBook, cluster_asset, verified_alias
from backfill.operators import report as report_module
from backfill.operators import tidy as module
from backfill.operators.replan import ReplanOperator
from backfill.operators.report import ReportOperator
from backfill.operators.tidy import TidyOperator
from backfill.operators.undo import UndoOperator, UndoPlanOperator
from backfill.settings import cluster_config
from include.scorecard_backfill.debts import Debt
from include.scorecard_backfill.names import LABEL_WINDOW
from include.scorecard_backfill.records import Deleted, Failure, Numbers, TableBalance, TableDays, Verified, Window
from tests.kit.store import AssetState, Store
from tests.kit.waits import COUNTED, NAME, PROOF, assets, cluster, context, deleted, window

__all__ = ["assets", "cluster"]

Json = dict[str, Any]
KEYS = [f"{number:016x}" for number in range(3)]
WINDOWS = [window(key=key, customer_id=f"acme-{n}") for n, key in enumerate(KEYS)]
LABELS = [w.label for w in WINDOWS]
BALANCE = TableBalance(database="acme_voice", table="scorecard", before=100, meant=10, after=90, removed=10, short=0,
                       over=0, doubled=0, moved=0, exact=True)  # fmt: skip


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Airflow's variables."""
    kept: dict[str, str] = {}
    fake = SimpleNamespace(get=lambda key, default=None: kept.get(key, default), set=kept.__setitem__)
    monkeypatch.setattr(module, "Variable", fake)
    return kept


@pytest.fixture(autouse=True)
def jobs(assets: AssetState, monkeypatch: pytest.MonkeyPatch) -> list[Json]:
    """Kubernetes Jobs of the cluster."""
    listed: list[Json] = []

    async def found(selector: str) -> list[Json]:
        return listed

    monkeypatch.setattr(KubernetesJobs, "for_worker", lambda config: SimpleNamespace(jobs=found))
    return listed


def job(key: str, name: str, *conditions: str) -> Json:
    """A Job of a window."""
    met = [{"type": kind, "status": "True"} for kind in conditions]
    return {"metadata": {"name": name, "labels": {LABEL_WINDOW: key}}, "status": {"conditions": met}}


def verified(key: str) -> str:
    """A result of verify as it is stored: a trigger's result has been encoded twice."""
    proof = PROOF.model_copy(update={"tables": (BALANCE,)})
    return json.dumps(json.dumps(Verified(key=key, status="verified", proof=proof).to_json()))


def failed(key: str, cause: str, stage: Any = "wait_workflows", **more: Any) -> Json:
    """A record that a failed stage leaves."""
    return Failure(key=key, stage=stage, cause=cause, reason=f"{cause} of {key}", **more).to_json()


def done(of: Window, **more: Any) -> Json:
    """What the delete stage of a window left."""
    counted = COUNTED.model_copy(update={"key": of.key})
    return deleted(key=of.key, window=of, counted=counted, **more).to_json()


def run(windows: list[Window], **stages: dict[int, Any]) -> Json:
    """The report's task of a run with this plan; stages by name, results by map index."""
    xcoms: dict[tuple[str, str], Any] = {
        ("plan", "return_value"): [w.to_json() for w in windows],
        ("plan", "run"): {"mode": "cleanup", "dry_run": False},
        ("plan", "markdown"): "the plan",
    }
    xcoms |= {(f"windows.{stage}", "return_value"): values for stage, values in stages.items()}
    made = context("report", xcoms)
    made["ti"].map_index = -1
    return made


def report(task: Json) -> Json:
    """Run the report."""
    return ReportOperator(task_id="report", cluster=NAME).execute(task)


def rejected(task: Json) -> tuple[str, Json]:
    """Run the report, which must be red; its message and the report that it leaves."""
    with pytest.raises(AirflowFailException) as error:
        report(task)
    left: Json = task["ti"].xcoms["report", "return_value"]
    return str(error.value), left


def deletes() -> dict[int, Any]:
    """Results of the delete stage."""
    return {n: done(w) for n, w in enumerate(WINDOWS)}


def test_all_verified_is_green(cluster: str) -> None:
    task = run(WINDOWS, delete=deletes(), verify={n: verified(key) for n, key in enumerate(KEYS)})
    made = report(task)
    assert (made["planned"], made["verified"], made["complete"]) == (3, 3, True)
    assert "acme-1" in task["ti"].xcoms["report", "markdown"]


def test_one_that_is_not_verified_makes_the_run_red_and_is_named(cluster: str) -> None:
    task = run(
        WINDOWS,
        delete=deletes(),
        wait_mutations={1: failed(KEYS[1], "stalled", "wait_mutations")},
        verify={0: verified(KEYS[0]), 2: verified(KEYS[2])},
    )
    text, left = rejected(task)
    assert "Not verified: 1 of 3 windows." in text
    assert "acme-1" in text
    # The reason stands once, in the report above it.
    assert "stalled" not in text
    assert "stalled" in task["ti"].xcoms["report", "markdown"]
    assert [r["status"] == "verified" for r in left["windows"]] == [True, False, True]


def test_live_jobs_that_nobody_waits_for_are_named(cluster: str, jobs: list[Json]) -> None:
    jobs += [job(KEYS[1], "b-live"), job(KEYS[2], "c-ended", "Failed"), job("f" * 16, "of-another-run")]
    task = run(WINDOWS, delete=deletes(), verify={0: verified(KEYS[0])})
    _, left = rejected(task)
    assert left["running"] == [{"label": LABELS[1], "job": "b-live"}]
    assert f"- {LABELS[1]}: `b-live`" in task["ti"].xcoms["report", "markdown"]


def test_jobs_that_cannot_be_listed_are_said_and_spoil_no_report(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: Any) -> None:
        raise ConnectionError("no route to the API server")

    monkeypatch.setattr(KubernetesJobs, "for_worker", refuse)
    task = run(WINDOWS, delete=deletes(), verify={0: verified(KEYS[0])})
    text, left = rejected(task)
    assert "Not verified: 2 of 3 windows." in text
    assert left["running_unknown"] == "ConnectionError: no route to the API server"
    assert "no route to the API server" in task["ti"].xcoms["report", "markdown"]


def test_results_are_joined_by_key_where_some_windows_left_none(cluster: str) -> None:
    # Airflow leaves holes out, so that the second result is the third window's.
    task = run(WINDOWS, delete=deletes(), verify={0: verified(KEYS[0]), 2: verified(KEYS[2])})
    _, left = rejected(task)
    assert {r["label"]: r["status"] == "verified" for r in left["windows"]} == {
        LABELS[0]: True, LABELS[1]: False, LABELS[2]: True,
    }  # fmt: skip


def test_a_stage_that_was_marked_as_success_by_hand_proves_nothing(cluster: str) -> None:
    task = run(WINDOWS[:1], delete={0: done(WINDOWS[0])}, verify={})
    text, left = rejected(task)
    assert "Not verified: 1 of 1 window." in text
    assert left["verified"] == 0


def test_a_run_in_which_nothing_was_reached_has_a_report_for_every_window(cluster: str) -> None:
    _, left = rejected(run(WINDOWS))
    assert len(left["windows"]) == 3


def test_without_a_plan_the_report_is_red_and_says_that_nothing_was_deleted(cluster: str) -> None:
    with pytest.raises(AirflowFailException, match="preflight or plan failed"):
        report(context("report", {}))


def test_a_plan_of_no_windows_is_green_and_says_so(cluster: str) -> None:
    made = report(run([]))
    assert (made["planned"], made["complete"]) == (0, True)


def test_a_single_window_is_read_as_well(cluster: str) -> None:
    # Airflow gives a single result without a list around it.
    task = run(WINDOWS[:1], delete={0: deletes()[0]}, verify={0: verified(KEYS[0])})
    assert report(task)["verified"] == 1


def test_a_thousand_windows_are_read_by_a_constant_number_of_calls(cluster: str) -> None:
    windows = [window(key=f"{n:016x}", customer_id=f"c{n}") for n in range(1_000)]
    results = {n: verified(w.key) for n, w in enumerate(windows)}
    task = run(windows, delete={n: done(w) for n, w in enumerate(windows)}, verify=results)
    assert report(task)["verified"] == 1_000
    assert len(task["ti"].pulls) < 25


def test_where_both_orders_are_allowed_the_sweep_is_asked_too(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    both = cluster_config(NAME).model_copy(update={"orders": ("delete_first", "reindex_first")})
    monkeypatch.setattr(report_module, "cluster_config", lambda _: both)
    nothing = deleted(key=KEYS[0], window=WINDOWS[0], status="nothing", sent=()).to_json()
    _, left = rejected(run(WINDOWS[:1], delete={0: nothing}, sweep={0: failed(KEYS[0], "not_rewritten", "delete")}))
    (row,) = left["windows"]
    assert row["status"] == "failed"
    assert row["note"].startswith("delete: not_rewritten: ")
    _, left = rejected(run(WINDOWS[:1], delete={0: nothing}, sweep={0: done(WINDOWS[0])}))
    assert left["windows"][0]["status"] == "deleted, not yet reindexed"


def test_the_report_of_a_dry_run_is_the_plan(cluster: str) -> None:
    task = run([])
    task["ti"].xcoms["plan", "run"]["dry_run"] = True
    assert report(task)["dry_run"] == "the plan"
    assert "Dry run: nothing was changed" in task["ti"].xcoms["report", "markdown"]


@pytest.mark.parametrize(
    ("left", "text"),
    [
        ({("approve", "rejected"): {"by": "jane"}}, "The plan was rejected by jane; nothing was deleted."),
        ({("plan", "refused"): "the plan is refused: soylnt"}, "the plan is refused: soylnt"),
        ({("preflight", "refused"): "preflight failed: x"}, "preflight failed: x"),
    ],
)
def test_a_run_that_was_refused_says_why_and_who(cluster: str, left: Json, text: str) -> None:
    task = run(WINDOWS)
    task["ti"].xcoms |= left
    message, made = rejected(task)
    assert message == made["refused"] == text
    assert text in task["ti"].xcoms["report", "markdown"]
    # The windows were never begun; a list of them would say that they had failed.
    assert "Not verified" not in task["ti"].xcoms["report", "markdown"]


def test_open_debts_of_the_cluster_are_in_the_report_and_what_was_paid_leaves_the_index(
    cluster: str, assets: AssetState
) -> None:
    day = {"2026-01-05": Numbers(rows=7, ids=7)}
    owed = Debt(window=KEYS[1], cluster=NAME, customer_id="acme-1", databases=(), start=WINDOWS[1].start,
                end=WINDOWS[1].end, before=(TableDays(database="d", table="scorecard", days=day),), run_id="r",
                since=datetime(2026, 2, 3, tzinfo=UTC))  # fmt: skip
    book = DebtBook(NAME)
    book.announce(KEYS)
    book.write(owed)
    _, left = rejected(run(WINDOWS, delete={0: done(WINDOWS[0])}, verify={0: verified(KEYS[0])}))
    assert left["debts"] == [owed.text]
    assert {r["label"]: r["status"] for r in left["windows"]}[LABELS[1]] == "deleted, not yet reindexed"
    assert book.indexed() == [KEYS[1]]
    # Two windows that were cleared announced themselves at the same time, and one of the two keys was lost.
    assets.set("debts", [])
    _, left = rejected(run(WINDOWS, delete={0: done(WINDOWS[0])}, verify={0: verified(KEYS[0])}))
    assert left["debts"] == [owed.text]
    assert book.indexed() == [KEYS[1]]


def test_side_work_comes_after_the_report_and_spoils_nothing(cluster: str, variables: dict[str, str]) -> None:
    variables[f"scorecard_backfill_learned__{NAME}"] = "{ broken"
    task = run(WINDOWS[:1], delete={0: done(WINDOWS[0])}, verify={0: verified(KEYS[0])})
    assert report(task)["complete"]


def test_tidy_remembers_what_was_too_big(cluster: str, variables: dict[str, str]) -> None:
    task = run(WINDOWS[:1], wait_workflows={0: failed(KEYS[0], "heartbeat_timeout")})
    TidyOperator(task_id="tidy", cluster=NAME).execute(task)
    assert "acme-0" in variables[f"scorecard_backfill_learned__{NAME}"]


def test_a_part_of_tidy_that_fails_keeps_no_other_from_being_done(
    cluster: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, done = f"scorecard_backfill_learned__{NAME}", []
    variables[name] = "{ broken"
    for part in ("_remove_snapshots", "_announce"):
        monkeypatch.setattr(TidyOperator, part, lambda *_, part=part: done.append(part))
    task = run(WINDOWS[:1], wait_workflows={0: failed(KEYS[0], "heartbeat_timeout")})
    with pytest.raises(module.TidyError, match=f"the Airflow Variable {name} cannot be read .*; mend or delete it"):
        TidyOperator(task_id="tidy", cluster=NAME).execute(task)
    assert done == ["_remove_snapshots", "_announce"]


@pytest.mark.parametrize("enabled", [True, False])
def test_tidy_drops_the_copies_that_the_servers_have_kept_for_too_long(
    enabled: bool, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = cluster_config(NAME)
    changed = config.model_copy(update={"snapshot": config.snapshot.model_copy(update={"enabled": enabled})})
    hook = SimpleNamespace(topology=lambda: "hosts")
    copies = Mock(remove_expired=Mock(return_value=["a copy"]))
    house, snapshots = Mock(return_value=hook), Mock(return_value=copies)
    monkeypatch.setattr(module, "cluster_config", lambda name: changed)
    monkeypatch.setattr(module, "BackfillClickHouse", house)
    monkeypatch.setattr(module, "Snapshots", snapshots)
    TidyOperator(task_id="tidy", cluster=NAME)._remove_snapshots()
    assert house.mock_calls == ([call(changed)] if enabled else [])
    assert snapshots.call_args_list == ([call(hook, "hosts")] if enabled else [])
    assert copies.remove_expired.call_count == enabled


def replan(task: Json) -> list[Json]:
    """Run the replan."""
    group = pass_of_replan(task["ti"].task_id)
    return ReplanOperator(task_id=task["ti"].task_id, cluster=NAME, group=group, max_windows=1024).execute(task)


def pass_of_replan(task_id: str) -> str:
    """The group whose windows a replan cuts."""
    return next(one.group for one in ALL_GROUPS if one.cut_by == task_id)


def cut_run() -> Json:
    """A run whose second window was too big."""
    task = run(
        WINDOWS,
        delete=deletes(),
        wait_workflows={1: failed(KEYS[1], "heartbeat_timeout"), 2: failed(KEYS[2], "workflow_failed")},
    )
    task["ti"].task_id = "replan"
    return task


def test_only_what_was_too_big_is_cut(cluster: str) -> None:
    task = cut_run()
    parts = replan(task)
    assert {p["part_of"] for p in parts} == {KEYS[1]}
    assert (parts[0]["start"], parts[-1]["end"]) == ("2026-01-01", "2026-02-01")
    assert task["ti"].xcoms["replan", "cut"] == [KEYS[1]]
    assert task["ti"].xcoms["replan", "customers"] == ["acme-1"] * len(parts)


def counted_days(of: Window, days: dict[str, int]) -> Json:
    """What the delete stage left that has counted these rows."""
    table = TableDays(database="acme_voice", table="scorecard",
                      days={d: Numbers(rows=n, conversations=n, ids=n, meant=0) for d, n in days.items()})  # fmt: skip
    record = Deleted.from_json(done(of))
    counted = COUNTED.model_copy(update={"key": of.key, "now": (table,), "before": (table,)})
    return record.model_copy(update={"counted": counted}).to_json()


def test_a_part_that_was_too_big_again_is_cut_into_days_with_their_first_counts(cluster: str) -> None:
    counted = {f"2026-01-{day:02d}": 100 + day for day in range(1, 32)}
    task = run(
        WINDOWS, delete={1: counted_days(WINDOWS[1], counted)}, wait_workflows={1: failed(KEYS[1], "heartbeat_timeout")}
    )
    task["ti"].task_id = "replan"
    parts = replan(task)
    assert len(parts) == 4
    xcoms = task["ti"].xcoms
    xcoms["replan", "return_value"] = parts
    # The part found only what the failed attempt had written; its other days were gone already.
    again = counted_days(Window.from_json(parts[1]), {"2026-01-11": 3})
    xcoms["smaller_windows.delete", "return_value"] = {1: again}
    xcoms["smaller_windows.wait_workflows", "return_value"] = {1: failed(parts[1]["key"], "start_to_close_timeout")}
    task["ti"].task_id, task["task_state_store"] = "replan_days", Store()
    days = replan(task)
    assert [d["start"] for d in days] == [f"2026-01-{day}" for day in range(11, 21)]
    assert {d["part_of"] for d in days} == {parts[1]["key"]}
    first_counts = [Window.from_json(d).before[0] for d in days]
    assert [t.rows for t in first_counts] == list(range(111, 121))
    assert xcoms["replan_days", "cut"] == [parts[1]["key"]]
    assert xcoms["replan_days", "customers"] == ["acme-1"] * 10

    # Green only when every part is proven, those that were cut again by their days.
    xcoms["replan_days", "return_value"] = days
    xcoms["windows.verify", "return_value"] = {0: verified(KEYS[0]), 2: verified(KEYS[2])}
    xcoms["smaller_windows.verify", "return_value"] = {n: verified(parts[n]["key"]) for n in (0, 2, 3)}
    proven = {n: verified(day["key"]) for n, day in enumerate(days)}
    xcoms["single_days.verify", "return_value"] = {n: proven[n] for n in range(9)}
    task["ti"].task_id = "report"
    rejected(task)
    assert (
        "cut into 13, 1 of them not verified: acme-1 2026-01-20..2026-01-21" in task["ti"].xcoms["report", "markdown"]
    )
    xcoms["single_days.verify", "return_value"] = proven
    made = report(task)
    assert made["complete"]
    assert made["windows"][1]["note"] == "cut into 13"


def test_parts_stay_what_they_are_when_replan_runs_again(cluster: str) -> None:
    task = cut_run()
    parts = replan(task)
    # Cleared, the window has another failure now, and a further one was too big.
    task["ti"].xcoms["windows.wait_workflows", "return_value"] = {
        1: failed(KEYS[1], "other"), 2: failed(KEYS[2], "deadlock"),
    }  # fmt: skip
    again = replan(task)
    assert again[: len(parts)] == parts
    assert {p["part_of"] for p in again[len(parts) :]} == {KEYS[2]}


def test_nothing_to_cut_is_an_empty_list_and_the_report_goes_on(cluster: str) -> None:
    task = run(WINDOWS, verify={n: verified(key) for n, key in enumerate(KEYS)})
    task["ti"].task_id = "replan"
    assert replan(task) == []
    assert task["ti"].xcoms["replan", "cut"] == []


def test_replan_without_a_plan_makes_nothing(cluster: str) -> None:
    assert replan(context("replan", {})) == []


@pytest.mark.parametrize("stage", ["look", "restore"])
def test_nothing_is_put_back_while_a_run_may_delete(stage: str, cluster: str) -> None:
    classes: Json = {"look": UndoPlanOperator, "restore": UndoOperator}
    task = context(stage, params={"run_id": "r", "customers": ["acme"], "all_customers": False})
    asked: list[Any] = []

    def count(dag_id: str, states: list[str]) -> int:
        asked.append((dag_id, states))
        return 1

    task["ti"].get_dr_count = count
    with pytest.raises(AirflowFailException, match="1 runs of scorecard_backfill__waits are not finished"):
        classes[stage](task_id=stage, cluster=NAME).execute(task)
    assert asked == [(f"scorecard_backfill__{NAME}", ["running", "queued"])]


def test_tidy_announces_each_verified_month_as_an_event_of_the_clusters_asset(cluster: str) -> None:
    task = run(WINDOWS[:1])
    rows = [{"customer_id": "acme", "start": "2026-01-01", "end": "2026-02-01", "status": "verified"},
            {"customer_id": "globex", "start": "2026-01-01", "end": "2026-02-01", "status": "failed"}]  # fmt: skip
    task["ti"].xcoms["report", "return_value"] = {"windows": rows}
    TidyOperator(task_id="tidy", cluster=NAME).execute(task)

    (event,) = task["outlet_events"][verified_alias(NAME)].asset_alias_events
    assert event.dest_asset_key.name == cluster_asset(NAME).name
    assert (event.extra["customer"], event.extra["month"], event.extra["whole"], event.extra["run_id"]) == (
        "acme", "2026-01", True, "manual__1",
    )  # fmt: skip


def test_a_complete_report_announces_each_verified_month_itself_and_tidy_does_not_again(cluster: str) -> None:
    # A clear of what has failed runs the report again, and not tidy, which has ended well.
    task = run(WINDOWS, verify={n: verified(key) for n, key in enumerate(KEYS)})
    report = ReportOperator(task_id="report", cluster=NAME).execute(task)
    told = task["outlet_events"][verified_alias(NAME)].asset_alias_events
    assert sorted({event.extra["customer"] for event in told}) == [w.customer_id for w in WINDOWS]

    again = run(WINDOWS)
    again["ti"].xcoms["report", "return_value"] = report
    TidyOperator(task_id="tidy", cluster=NAME).execute(again)
    assert again["outlet_events"][verified_alias(NAME)].asset_alias_events == []


def test_the_end_of_a_run_is_told_although_the_report_is_red(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    counted: list[Any] = []
    monkeypatch.setattr("backfill.operators.report.tell", lambda config, notice: told.append(notice.subject))
    monkeypatch.setattr("backfill.operators.report.metrics.windows_by_state", lambda *args: counted.append(args))
    with pytest.raises(AirflowFailException):
        ReportOperator(task_id="report", cluster=NAME).execute(run(WINDOWS[:2], verify={0: verified(KEYS[0])}))

    assert told == [f"{NAME}: NOT complete, 1 of 2 windows verified"]
    assert counted == [(NAME, {"waiting": 0, "running": 0, "verified": 1, "failed": 1})]

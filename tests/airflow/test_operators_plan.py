"""Parameters and plan: what a run is about is decided once."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.context import NEVER_EXPIRE

from backfill.kit.store import RunStore
from backfill.known import known_customers
from backfill.operators import plan as module
from backfill.operators import preflight
from backfill.operators.checks.airflow import airflow_notes
from backfill.operators.plan import PlanOperator
from backfill.operators.preflight import PreflightOperator, run_parameters
from backfill.settings import cluster_config
from include.scorecard_backfill.params.form import params_schema
from include.scorecard_backfill.planning import plan
from tests.kit.airflow_home import ROOT
from tests.kit.store import AssetState, Store
from tests.kit.waits import NAME, assets, cluster, context

__all__ = ["assets", "cluster"]

Json = dict[str, Any]

MARCH = datetime(2026, 3, 2, 6, tzinfo=UTC)


class Run(SimpleNamespace):
    """A DAG run as a task sees it; there is no logical date and no data interval to read."""

    triggering_user_name = "jane"

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"dag_run.{name} was read; a manual run of Airflow 3 may not have it")


def task(task_id: str = "plan", run_type: str = "manual", run_after: datetime = MARCH, **conf: Any) -> Json:
    """What Airflow gives to a task of a run that was triggered with this form."""
    defaults = {name: schema["default"] for name, schema in params_schema().items()}
    run = Run(run_id="manual__1", run_type=run_type, run_after=run_after, conf=conf)
    return context(task_id, dag_run=run, params=defaults | conf)


@pytest.fixture
def stock(assets: AssetState, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The customers that the cluster has; a test may change the list."""
    customers = ["acme", "globex"]

    def inventory(hook: Any, days: Any) -> Any:
        volumes = tuple(plan.Volume(f"{c}_voice", "scorecard", c, "voice", date(2026, 1, 5), 90, 30) for c in customers)
        tables = {f"{c}_voice": ("scorecard",) for c in customers}
        return plan.Inventory(tables, {f"{c}_voice": ((c, "voice"),) for c in customers}, volumes), {}

    monkeypatch.setattr(module, "read_inventory", inventory)
    monkeypatch.setattr(Variable, "get", lambda key, default=None: default)
    return customers


def planner(max_windows: int = 1024) -> PlanOperator:
    """The plan task."""
    return PlanOperator(task_id="plan", cluster=NAME, max_windows=max_windows)


JANUARY: Json = {"start_date": "2026-01-01", "end_date": "2026-02-01", "window": "month"}


def test_a_plan_is_made_once_for_a_run_whatever_changes_meanwhile(cluster: str, stock: list[str]) -> None:
    made = task(mode="cleanup", all_customers=True, **JANUARY)
    windows = planner().execute(made)
    assert [w["customer_id"] for w in windows] == ["acme", "globex"]
    shown = dict(made["ti"].xcoms)
    stock.remove("acme")
    stock += ["hooli", "initech"]
    assert planner().execute(made) == windows
    assert made["ti"].xcoms == shown
    # Another run looks again.
    other = planner().execute(task(mode="cleanup", all_customers=True, **JANUARY))
    assert [w["customer_id"] for w in other] == ["globex", "hooli", "initech"]


def test_what_is_to_be_said_of_a_plan_is_left_for_the_page(
    cluster: str, stock: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Variable, "get", lambda key, default=None: "{ broken")
    made = task(customers=["acme"], **JANUARY)
    planner().execute(made)
    learned, history = made["ti"].xcoms["plan", "notes"]
    assert learned.startswith(f"the Airflow Variable scorecard_backfill_learned__{NAME} cannot be read and is not used")
    assert history.startswith(f"the Airflow Variable scorecard_backfill_history__{NAME} cannot be read: ")
    assert history.endswith("; it is not used")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"mode": "cleanup", "overlap": True}, True),
        ({"mode": "cleanup"}, False),
        ({"mode": "reindex", "overlap": True}, False),
    ],
)
def test_a_plan_says_that_overlap_is_not_used(cluster: str, stock: list[str], asked: Json, said: bool) -> None:
    made = task(customers=["acme"], **asked, **JANUARY)
    planner().execute(made)
    notes = [note for note in made["ti"].xcoms.get(("plan", "notes"), []) if "overlap" in note]
    assert [note.partition(":")[0] for note in notes] == ["overlap is not used for windows with scorecard"] * said


HISTORY = f"scorecard_backfill_history__{NAME}"


def keep_history(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a history into Airflow's Variables."""
    monkeypatch.setattr(Variable, "get", lambda key, default=None: text if key == HISTORY else default)


def imported(**states: str) -> str:
    """The history of customers, each in one state for January."""
    entries = [{"customer_id": c, "start": "2026-01-01", "end": "2026-02-01", "state": state, "source": "old.json"}
               for c, state in states.items()]  # fmt: skip
    return json.dumps({"v": 1, "cluster": NAME, "entries": entries})


@pytest.mark.parametrize(
    ("asked", "planned", "notes"),
    [
        ({"all_customers": True}, ["acme", "globex", "initech"],
         ["left out, excluded in the old scripts' history: hooli",
          "the old scripts' history: rows may be deleted and not written again: globex 2026-01-01..2026-02-01",
          "the old scripts' history: done by the scripts, which proves nothing; again: acme 2026-01-01..2026-02-01"]),
        ({"all_customers": True, "skip_imported": True}, ["globex", "initech"],
         ["left out, excluded in the old scripts' history: hooli",
          "left out, done by the old scripts' history (never proven here): acme",
          "the old scripts' history: rows may be deleted and not written again: globex 2026-01-01..2026-02-01"]),
        ({"customers": ["hooli", "initech"], "skip_imported": True}, ["hooli", "initech"],
         ["the old scripts' history: excluded, and in this plan because it is named or owed:"
          " hooli 2026-01-01..2026-02-01"]),
    ],
)  # fmt: skip
def test_the_imported_history_is_asked(
    cluster: str, stock: list[str], monkeypatch: pytest.MonkeyPatch, asked: Json, planned: list[str], notes: list[str]
) -> None:
    stock += ["hooli", "initech"]
    keep_history(monkeypatch, imported(acme="done", globex="open", hooli="excluded"))
    made = task(mode="cleanup", **asked, **JANUARY)
    assert [w["customer_id"] for w in planner().execute(made)] == planned
    assert made["ti"].xcoms["plan", "notes"] == notes


def test_a_history_that_cannot_be_read_stops_a_plan_for_everybody(
    cluster: str, stock: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_history(monkeypatch, "{ broken")
    with pytest.raises(AirflowFailException, match="Whom it excludes is not known"):
        planner().execute(task(mode="cleanup", all_customers=True, **JANUARY))


def test_a_plan_with_too_many_windows_is_refused_with_the_number(cluster: str, stock: list[str]) -> None:
    made = task(customers=["acme", "globex"], **{**JANUARY, "window": "1d"})
    with pytest.raises(
        AirflowFailException, match=r"62 windows > 61 \(\[core\] max_map_length, \[triggerer\] capacity\)"
    ):
        planner(61).execute(made)
    assert made["task_state_store"].values == {}
    assert len(planner(62).execute(made)) == 50
    assert len(made["ti"].xcoms["plan", "planned"]) == 62


def test_a_dry_run_shows_its_plan_and_maps_over_nothing(cluster: str, stock: list[str]) -> None:
    made = task(mode="cleanup", customers=["acme"], dry_run=True, **JANUARY)
    assert planner().execute(made) == []
    assert len(made["ti"].xcoms["plan", "planned"]) == 1
    assert "ALTER TABLE" in made["ti"].xcoms["plan", "markdown"]
    assert made["ti"].xcoms["plan", "run"]["destructive"] is False


def test_what_a_task_exchanges_is_small(cluster: str, stock: list[str]) -> None:
    made = task(mode="cleanup", customers=["acme", "globex"], **{**JANUARY, "window": "1d"})
    windows = planner().execute(made)
    assert max(len(json.dumps(w)) for w in windows) < 1_000


@pytest.mark.parametrize("conf", [{}, {"customers": []}, {"customers": None}, {"customers": ""}])
def test_an_untouched_form_chooses_nobody_and_never_everybody(cluster: str, stock: list[str], conf: Json) -> None:
    with pytest.raises(AirflowFailException, match="nothing was deleted") as refused:
        planner().execute(task(**conf))
    assert "nobody is chosen" in str(refused.value) or "customers" in str(refused.value)


@pytest.mark.parametrize(
    ("days", "text"),
    [
        ({"start_date": "2026-02-30", "end_date": "2026-03-01"}, "start_date"),
        ({"start_date": "2026-2-1", "end_date": "2026-03-01"}, "start_date"),
        ({"start_date": "01/02/2026", "end_date": "2026-03-01"}, "start_date"),
        ({"start_date": "2026-02-01T00:00:00", "end_date": "2026-03-01"}, "start_date"),
        ({"start_date": "2026-02-01"}, "end_date: is empty"),
    ],
)
def test_a_date_that_cannot_be_meant_is_refused_with_its_field(cluster: str, days: Json, text: str) -> None:
    operator = PreflightOperator(task_id="preflight", cluster=NAME)
    with pytest.raises(AirflowFailException, match="nothing was deleted") as refused:
        operator.execute(task("preflight", customers=["acme"], **days))
    assert text in str(refused.value)


@pytest.mark.parametrize("empty", [None, ""])
def test_empty_dates_are_the_month_before_by_the_moment_of_the_run(cluster: str, empty: Any) -> None:
    made = task(customers=["acme"], start_date=empty, end_date=empty)
    run = run_parameters(made, cluster_config(NAME))
    assert (run.start_date, run.end_date) == (date(2026, 2, 1), date(2026, 3, 1))


def test_a_scheduled_run_reindexes_the_month_before_and_deletes_nothing(cluster: str, stock: list[str]) -> None:
    made = task(run_type="scheduled", run_after=datetime(2026, 2, 2, 6, tzinfo=UTC))
    windows = planner().execute(made)
    assert {(w["start"], w["end"], w["mode"]) for w in windows} == {("2026-01-01", "2026-02-01", "reindex")}
    assert {w["customer_id"] for w in windows} == {"acme", "globex"}
    run = made["ti"].xcoms["plan", "run"]
    assert (run["destructive"], run["require_approval"]) == (False, False)


def test_airflows_own_backfill_is_refused(cluster: str) -> None:
    with pytest.raises(AirflowFailException, match="trigger the DAG with start_date and end_date instead"):
        run_parameters(task(run_type="backfill", customers=["acme"]), cluster_config(NAME))


def test_each_parameter_is_logged_with_where_it_came_from(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = PreflightOperator(task_id="preflight", cluster=NAME)
    said: list[str] = []
    monkeypatch.setattr(operator.log, "info", lambda text, *args: said.append(text % args))
    monkeypatch.setattr(preflight, "checks", lambda: ())
    operator.execute(task("preflight", customers=["acme"], max_parallel=3))
    assert "parameter customers = [acme] (form)" in said
    assert "parameter max_parallel = 3 (form)" in said
    assert "parameter mode = reindex (default)" in said


def test_preflight_names_everything_that_is_wrong_and_is_not_repeated(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("CLICKHOUSE", "KUBERNETES", "TEMPORAL"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{kind}_{NAME.upper()}")
    with pytest.raises(AirflowFailException, match="preflight failed, nothing was deleted") as refused:
        PreflightOperator(task_id="preflight", cluster=NAME).execute(task("preflight", customers=["acme"]))
    for kind in ("clickhouse", "kubernetes", "temporal"):
        assert f"{kind}: connection '{kind}_{NAME}' is not defined in Airflow" in str(refused.value)


@pytest.mark.parametrize(("value", "refused"), [("True", True), ("False", False), (None, False)])
def test_preflight_refuses_an_airflow_that_forgets_what_a_stage_has_kept(
    value: str | None, refused: bool, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS"
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(preflight, "checks", lambda: ())
    operator = PreflightOperator(task_id="preflight", cluster=NAME)
    if not refused:
        assert operator.execute(task("preflight", customers=["acme"]))["cluster"] == NAME
        return
    with pytest.raises(AirflowFailException, match=r"\[state_store\] clear_on_success is True") as found:
        operator.execute(task("preflight", customers=["acme"]))
    assert f"{name}=False" in str(found.value)


@pytest.mark.parametrize(
    ("windows", "selected", "said"), [(100, "50", False), (101, "50", True), (101, "9", True), (101, "8", False)]
)
def test_a_plan_says_when_its_windows_may_stop_a_triggerer(
    windows: int, selected: str, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__TRIGGERER__MAX_TRIGGER_TO_SELECT_PER_LOOP", selected)
    notes = airflow_notes(windows)
    assert len(notes) == said
    if said:
        assert notes[0].startswith(f"101 windows, and [triggerer] max_trigger_to_select_per_loop is {selected}: ")


def test_the_number_of_a_plans_windows_is_what_the_notes_are_about(
    cluster: str, stock: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backfill.operators.plan.airflow_notes", lambda windows: [f"of {windows}"])
    made = task(mode="cleanup", all_customers=True, **JANUARY)
    windows = planner().execute(made)
    assert made["ti"].xcoms["plan", "notes"] == [f"of {len(windows)}"] != ["of 0"]


def test_what_a_stage_keeps_does_not_expire() -> None:
    kept: list[Any] = []

    class Recording(Store):
        def set(self, key: str, value: Any, *, retention: Any = None) -> None:
            kept.append(retention)

    RunStore({"task_state_store": Recording()}).set("sent", 1)
    assert kept == [NEVER_EXPIRE]


def test_each_plan_refreshes_the_forms_list_of_customers(
    cluster: str, stock: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, str] = {}
    written: list[str] = []
    monkeypatch.setattr(Variable, "get", lambda key, default=None: kept.get(key, default))

    def write(key: str, value: str, **_: Any) -> None:
        kept[key] = value
        written.append(key)

    monkeypatch.setattr(Variable, "set", write)
    for run in range(2):
        planner().execute(task(customers=["acme"], dry_run=True, **JANUARY) | {"run": run})
    assert written == ["scorecard_backfill_customers"]
    assert known_customers() == {NAME: ("acme", "globex")}
    # Lists of other clusters stay; what is not ours is a form without a list, and written anew by the next plan.
    kept[written[0]] = json.dumps({"another": ["initech"], NAME: ["acme"]})
    planner().execute(task(customers=["acme"], dry_run=True, **JANUARY))
    assert known_customers() == {"another": ("initech",), NAME: ("acme", "globex")}
    for text in ("{ broken", "[]", '{"another": 3}'):
        kept[written[0]] = text
        assert known_customers() == {}
        planner().execute(task(customers=["acme"], dry_run=True, **JANUARY))
        assert known_customers() == {NAME: ("acme", "globex")}


def test_a_list_that_cannot_be_written_stops_no_plan(
    cluster: str, stock: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(Variable, "set", refuse)
    assert planner().execute(task(customers=["acme"], **JANUARY))


LOGGED = """
import io, json
from airflow.sdk.log import configure_logging
from airflow.sdk.exceptions import AirflowFailException
from backfill.kit.refusal import Refusal
out = io.BytesIO()
configure_logging(json_output=True, output=out, sending_to_supervisor=True)
import structlog
log = structlog.get_logger("task")
log.info("a logger that was in use before")
for kind in (Refusal, Refusal, AirflowFailException, ValueError):
    try:
        raise kind("what is wrong\\nwhat to do")
    except kind:
        log.exception("Task failed with exception")
print(json.dumps([json.loads(line) for line in out.getvalue().splitlines()][1:]))
"""


def test_a_refusals_last_line_is_its_sentence_and_an_error_keeps_its_traceback(
    airflow_environment: dict[str, str],
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOGGED], env=airflow_environment, cwd=ROOT, capture_output=True,
        text=True, timeout=110, check=True,
    )  # fmt: skip
    first, second, theirs, error = json.loads(done.stdout.splitlines()[-1])
    assert (first["event"], second["event"]) == ("what is wrong\nwhat to do",) * 2
    assert "exception" not in first
    assert "exception" not in second
    assert [one["exception"][0]["exc_type"] for one in (theirs, error)] == ["AirflowFailException", "ValueError"]

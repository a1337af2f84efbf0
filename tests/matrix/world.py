"""A scene's month in ClickHouse, a reindexer that behaves as the scene says, and runs of the product over both."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from backfill import settings
from backfill.groups import BATCHES, PASSES, Group
from backfill.operators.approve import PlanApproval
from backfill.operators.delete import DeleteOperator
from backfill.operators.open import OpenOperator
from backfill.operators.plan import PlanOperator
from backfill.operators.reindex import ReindexOperator
from backfill.operators.replan import ReplanOperator
from backfill.operators.report import ReportOperator
from backfill.operators.verify import VerifyOperator
from backfill.operators.wait_mutations import WaitMutationsOperator
from backfill.operators.wait_workflows import WaitWorkflowsOperator
from include.scorecard_backfill.graph import stage_of, tasks_of
from include.scorecard_backfill.params.form import RunParams
from standins.clickhouse.client import ClickHouseSandbox
from standins.kubernetes.client import KubernetesSandbox
from tests.kit.mini_airflow import MiniAirflow
from tests.kit.reindexer import Answer, Order, Reindexer
from tests.matrix.cells import DAYS, PROFILES, Right, Scorecard, right, truth, written
from tests.matrix.choices import CUSTOMERS, Scene
from tests.standins.clickhouse_fixtures import until

Json = dict[str, Any]

NAME = "matrix"
CLUSTER = "conversations"
LONG_AGO, BEFORE_THAT = "2024-01-01 00:00:00.000", "2023-01-01 00:00:00.000"
"""When the rows that are there were written; the time that an old reindexer gives to what it writes."""

FILE: Json = {
    "name": NAME,
    "timezone": "UTC",
    "clickhouse": {
        "tables": ["scorecard", "score"],
        "query_timeout_seconds": 60,
        "ddl_timeout_seconds": 30,
        "mutation_poll_seconds": 0.2,
        "verify_poll_seconds": 0.2,
        "verify_tolerance_share": 0.0,
        "clock_skew_seconds": 1,
        "meant_to_go": {
            "scorecard": {"column": "scorecard_type", "equals": "appeal"},
            "score": {"by": "scorecard", "id_column": "scorecard_id"},
        },
        "written_columns": {"scorecard": {"column": "updated_at"}, "score": {"column": "updated_at"}},
    },
    "kubernetes": {"context": NAME, "poll_seconds": 0.2},
    "temporal": {"poll_seconds": 0.2},
    "waits": {"first_poll_after_seconds": 0},
    "admission": {"max_failures": 1_000},
}
COLUMNS = {
    "scorecard": "scorecard_id String, customer_id String, profile_id String, conversation_id String,"
    " scorecard_time DateTime64(3, 'UTC'), scorecard_type String, updated_at DateTime64(3, 'UTC')",
    "score": "score_id String, scorecard_id String, customer_id String, profile_id String, conversation_id String,"
    " scorecard_time DateTime64(3, 'UTC'), updated_at DateTime64(3, 'UTC')",
}
KEYS = {"scorecard": "conversation_id, scorecard_id", "score": "conversation_id, scorecard_id, score_id"}


def databases(customers: Iterable[str] = CUSTOMERS) -> list[str]:
    """The customers' databases."""
    return [f"{customer}_{profile}" for customer in customers for profile in PROFILES[customer]]


def create_tables(clickhouse: ClickHouseSandbox) -> None:
    """Make the databases and tables on every node; a partition is a day, so that every window consists of some."""
    node = clickhouse.nodes()[0]
    for database in databases():
        node.query(f"CREATE DATABASE {database} ON CLUSTER {CLUSTER}")
        for table, columns in COLUMNS.items():
            node.query(
                f"CREATE TABLE {database}.{table} ON CLUSTER {CLUSTER} ({columns}) ENGINE ="
                f" ReplacingMergeTree(updated_at) PARTITION BY toYYYYMMDD(scorecard_time) ORDER BY ({KEYS[table]})"
            )
            node.query(
                f"CREATE TABLE {database}.{table}_d ON CLUSTER {CLUSTER} ({columns}) ENGINE ="
                f" Distributed({CLUSTER}, {database}, {table}, cityHash64(conversation_id))"
            )


def connections(clickhouse: ClickHouseSandbox, kubernetes: KubernetesSandbox) -> dict[str, str]:
    """Airflow's connections as environment variables."""
    address = clickhouse.topology.node("node-1-1")
    house = {"conn_type": "clickhouse", "host": address.host, "port": address.port, "login": "admin",
             "password": clickhouse.password}  # fmt: skip
    cluster = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(kubernetes.kubeconfig)}}
    temporal = {"conn_type": "temporal", "host": "127.0.0.1", "port": 1, "extra": {"tls": False}}
    found = {"CLICKHOUSE": house, "KUBERNETES": cluster, "TEMPORAL": temporal}
    return {f"AIRFLOW_CONN_{kind}_{NAME.upper()}": json.dumps(made) for kind, made in found.items()}


@dataclass
class World:
    """One scene: its month, what the reindexer does now, and Airflow."""

    scene: Scene
    clickhouse: ClickHouseSandbox
    kubernetes: KubernetesSandbox
    reindexer: Reindexer
    air: MiniAirflow
    fails: str = ""
    """What the reindexer does instead of its work: ``exit`` or ``too big``."""

    good: bool = False
    """True while the reindexer does all of its work, whatever the scene says."""

    attempts: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.node = self.clickhouse.nodes()[0]
        self.month = date(2000 + self.scene.number // 12, 1 + self.scene.number % 12, 1)
        self.next_month = (self.month + timedelta(days=32)).replace(day=1)
        self.prefix = f"{self.scene.number}:"
        self.reindexer.play = self.play
        self.air.answer = lambda _: "Reject" if self.scene.approval == "rejected" and not self.before else "Approve"
        self.first_statement = max((s["id"] for s in self.node.statements()), default=0)
        self.first_request = self.kubernetes.last_request_id()
        self.insert((s for customer in self.scene.present for s in truth(customer)), LONG_AGO)

    @property
    def before(self) -> bool:
        """True during the run before the one that is judged: it is carried out in any case."""
        return self.good or self.fails == "exit"

    def configure(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        """Write the cluster's file for the scene."""
        scene = self.scene
        file: Json = json.loads(json.dumps(FILE))
        file["clickhouse"]["delete"] = {"drop_partition": scene.drop}
        file["snapshot"] = {"enabled": scene.snapshot}
        file["orders"] = [scene.order]
        file["windows"] = {"mode": scene.window} | ({"batch_size": 1, "batches": 4} if scene.batches else {})
        if scene.how == "scheduled":
            everybody = scene.customers == "all"
            file["schedule"] = {
                "mode": scene.mode,
                "all_customers": everybody,
                "customers": [] if everybody else list(scene.behaviours),
                "allow_scheduled_cleanup": True,
                "require_approval": scene.approval != "not asked",
            }
        (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(file), encoding="utf-8")
        patch.setenv(settings.CLUSTERS_ENV, str(folder))
        settings._load.cache_clear()

    def insert(self, cards: Iterable[Scorecard], at: str, *, local: str = "", shift: int = 0) -> None:
        """Write scorecards and their scores through the Distributed tables, or into one node's own."""
        by_place: dict[tuple[str, str], list[str]] = {}
        for card in cards:
            when = f"{self.month + timedelta(days=card.day + shift)} 12:00:00.000"
            # FINAL compares keys over all partitions: each scene has ids of its own.
            name = f"{self.prefix}{card.id}"
            where = f"'{card.customer}', '{card.profile}', 'c-{name}', '{when}'"
            database = f"{card.customer}_{card.profile}"
            kind = "appeal" if card.meant else "manual"
            by_place.setdefault((database, "scorecard"), []).append(f"('{name}', {where}, '{kind}', '{at}')")
            by_place.setdefault((database, "score"), []).append(f"('{name}', '{name}', {where}, '{at}')")
        node = self.clickhouse.node(local) if local else self.node
        for (database, table), rows in by_place.items():
            node.query(f"INSERT INTO {database}.{table}{'' if local else '_d'} VALUES {', '.join(rows)}")

    def play(self, order: Order) -> Answer:
        """Do the work of a pod: what the scene says for the customer."""
        self.attempts[order.customer, order.start, order.end] += 1
        first, last = (
            min(max((date.fromisoformat(text) - self.month).days, 0), DAYS) for text in (order.start, order.end)
        )
        profiles = PROFILES[order.customer]
        if self.fails == "exit":
            return Answer(code=3)
        if self.fails == "too big" and (date.fromisoformat(order.end) - date.fromisoformat(order.start)).days > 1:
            half = [s for s in truth(order.customer) if s.day == first and not s.meant]
            self.insert(half, _instant(-5))
            return Answer(0, profiles, "timed_out", "heartbeat_timeout")
        behaviour = "all" if self.good else self.scene.behaviours[order.customer]
        cards, doubled = ([], []) if first >= last else written(behaviour, order.customer, range(first, last))
        moved = [s for s in cards if s.day == first] if behaviour == "other_days" and last - first > 1 else []
        at = BEFORE_THAT if behaviour == "old_written" else _instant(0)
        self.insert([s for s in cards if s not in moved], at)
        self.insert(moved, at, shift=1)
        for shard in ("node-1-1", "node-2-1"):
            self.insert(doubled, at, local=shard)
        return Answer(0, profiles)

    def wait_until_old(self) -> None:
        """Wait until ClickHouse's clock has left the skew behind which a row that was written now counts as old."""
        written = float(self.node.query("SELECT toUnixTimestamp64Milli(now64(3)) / 1000")[0][0])
        skew = FILE["clickhouse"]["clock_skew_seconds"]
        # Moments are cut to whole seconds (sql/census.py).
        until(
            lambda: float(self.node.query("SELECT toUnixTimestamp(now())")[0][0]) > written + skew + 1,
            "the rows are old for the next run",
        )

    def forget(self) -> None:
        """Take all rows away: each mutation of a later scene would otherwise go through all parts of all scenes."""
        for node in self.clickhouse.nodes():
            for database in databases(self.scene.present):
                for table in COLUMNS:
                    node.query(f"TRUNCATE TABLE {database}.{table}")

    def rows(self, table: str) -> dict[str, dict[str, int]]:
        """Rows of the scene's month by customer and id, as FINAL shows them over all shards, with their copies."""
        found: dict[str, Counter[str]] = {customer: Counter() for customer in self.scene.present}
        listed = "|".join(databases(self.scene.present))
        answer = self.node.query(
            f"SELECT _database, {table}_id FROM cluster('{CLUSTER}', merge(REGEXP('^({listed})$'), '^{table}$')) FINAL"
            f" WHERE scorecard_time >= '{self.month}' AND scorecard_time < '{self.next_month}'"
        )
        for database, name in answer:
            found[database.partition("_")[0]][name.removeprefix(self.prefix)] += 1
        return {customer: dict(counted) for customer, counted in found.items()}

    def deletes(self) -> list[str]:
        """The statements that delete rows of the product's tables, as the server saw them."""
        return [
            row["statement"]
            for row in self.node.statements(since=self.first_statement)
            if " DELETE WHERE " in row["statement"] or "DROP PARTITION" in row["statement"]
        ]

    def jobs(self) -> list[str]:
        """Names of the Jobs that were created, as the server saw them."""
        posts = self.kubernetes.requests("POST", "/jobs", self.first_request)
        return [row["body"]["metadata"]["name"] for row in posts if not row["query"] and row["status"] == 201]

    def run(self, run_id: str) -> Run:
        """Carry out a run of the scene's choice, to its end."""
        run = Run(self, run_id)
        run.carry_out()
        return run


def _instant(seconds: float) -> str:
    moment = datetime.fromtimestamp(time.time() + seconds, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}"


class Run:
    """One run: its tasks in the order of the graph."""

    def __init__(self, world: World, run_id: str) -> None:
        scene = self.scene = world.scene
        self.world, self.air, self.run_id = world, world.air, run_id
        scheduled = scene.how == "scheduled"
        conf: Json = {} if scheduled else self._form(world)
        self.dag_run = SimpleNamespace(
            run_id=run_id,
            run_type="scheduled" if scheduled else "manual",
            run_after=datetime.combine(world.next_month, datetime.min.time(), UTC) + timedelta(days=1, hours=6),
            conf=conf,
            params=RunParams().model_dump(mode="json") | conf,
            triggering_user_name="" if scheduled else "jane",
        )
        self.failed: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.opened = 0
        """Batches after the first one."""

    def _form(self, world: World) -> Json:
        scene = self.scene
        everybody = scene.customers == "all"
        sent: Json = {
            "mode": scene.mode,
            "start_date": str(world.month),
            "end_date": str(world.month + timedelta(days=2)),
            "customers": [] if everybody else list(scene.behaviours),
            "all_customers": everybody,
            "overlap": scene.overlap,
            "require_approval": scene.approval != "not asked",
            "dry_run": scene.dry_run and not world.before,
        }
        if scene.how == "manual":
            # The form sends every field, a REST client those that it means.
            return RunParams().model_dump(mode="json") | sent | {"window": scene.window, "order": scene.order}
        return sent

    def one(self, operator: Any, map_index: int = -1) -> str:
        """Run one task instance."""
        return self.air.run(self.dag_run, operator, map_index)

    def carry_out(self) -> None:
        """Run every task of the run once."""
        if self.one(PlanOperator(task_id="plan", cluster=NAME, max_windows=1_024)) != "success":
            self.failed["plan"] = self.air.errors[self.run_id, "plan", -1]
        else:
            self._windows()
        self.report()

    def _windows(self) -> None:
        approve = PlanApproval(task_id="approve", cluster=NAME, subject="?", body="?", fail_on_reject=True)
        if self.one(approve) != "success":
            self.failed["approve"] = self.air.errors[self.run_id, "approve", -1]
            return
        for groups in PASSES:
            for one in groups:
                if not self._opened(one):
                    break
                for index, window in enumerate(self.air.result(self.run_id, one.opened_by or one.source) or []):
                    self.keys[window["key"]] = window["customer_id"]
                    self.window(one.group, index, window)
            if cut_by := groups[0].cut_by:
                replan = ReplanOperator(task_id=cut_by, cluster=NAME, group=groups[0].group, max_windows=1_024)
                assert self.one(replan) == "success", self.air.errors

    def _opened(self, group: Group) -> bool:
        """Let a batch come into being. One that the plan does not need is skipped, with those after it."""
        if not group.opened_by:
            return True
        if group in BATCHES[settings.cluster_config(NAME).windows.batches :]:
            return False
        state = self.one(OpenOperator(task_id=group.opened_by, cluster=NAME, group=group.group))
        assert state in ("success", "skipped"), self.air.errors
        self.opened += state == "success"
        return state == "success"

    def window(self, group: str, index: int, window: Json) -> None:
        """Take a window through its stages, up to the one that fails."""
        for task in tasks_of(settings.cluster_config(NAME).orders):
            if stage_of(task) == "admit":
                self.air.states[self.run_id, f"{group}.{task}", index] = "success"
            elif self.one(operator_of(group, task, window), index) != "success":
                return

    def report(self) -> None:
        """Write the report; it is red unless every window of the plan is verified."""
        self.state = self.one(ReportOperator(task_id="report", cluster=NAME))
        self.found: Json = self.air.result(self.run_id, "report") or {}

    def causes(self, customer: str) -> set[str]:
        """The causes by which windows of a customer have failed, of those that were not cut."""
        mine = [
            json.loads(value) if isinstance(value, str) else value
            for (run, task, _, key), value in self.air.xcoms.items()
            if run == self.run_id and key == "return_value" and "." in task
        ]
        return {
            record["cause"]
            for record in mine
            if record and record.get("kind") == "failure" and self.keys.get(record["key"]) == customer
        } - {"heartbeat_timeout"}

    def right(self, customer: str) -> Right:
        """What is right for a customer, by how quick its mutations were."""
        ended = [
            record["status"] == "gone"
            for (run, task, _, key), record in self.air.xcoms.items()
            if (run, key, task.rpartition(".")[2]) == (self.run_id, "return_value", "wait_mutations")
            and self.keys.get(record["key"]) == customer
        ]
        return right(self.scene, customer, seen=bool(ended) and all(ended))

    def verified(self, customer: str) -> bool:
        """True when the report says so of all of a customer's windows."""
        mine = [row for row in self.found["windows"] if row["customer_id"] == customer]
        return bool(mine) and all(row["status"] == "verified" for row in mine)


def operator_of(group: str, task: str, window: Json) -> Any:
    """The operator of a task of a window, as the DAG makes it."""
    name: Json = {"task_id": f"{group}.{task}", "cluster": NAME}
    stage = stage_of(task)
    if stage == "delete":
        return DeleteOperator(window=window, **name)
    if stage == "reindex":
        return ReindexOperator(window=window, **name)
    kinds = {"wait_mutations": WaitMutationsOperator, "wait_workflows": WaitWorkflowsOperator, "verify": VerifyOperator}
    return kinds[stage](group=group, **name)

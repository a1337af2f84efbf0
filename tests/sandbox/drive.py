"""Drives a run as a user does, and asks the servers afterwards what they have seen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from sandbox.airflow_api import AirflowApi
from sandbox.data.truth import by_customer, read_truth
from sandbox.stack_model import Cluster, Stack
from standins.clickhouse.client import NodeClient

Json = dict[str, Any]

APPROVAL_SECONDS = 120
RUN_SECONDS = 420
TABLES = ("scorecard", "score")


@dataclass(frozen=True)
class Driver:
    """One cluster's DAG, its servers, and the customers' truth."""

    api: AirflowApi
    stack: Stack
    cluster: Cluster

    @property
    def dag_id(self) -> str:
        """Id of the cluster's DAG."""
        return self.cluster.dag_id

    def start(self, run_id: str, *, approve: bool = True, **conf: Any) -> str:
        """Trigger a run and approve its plan."""
        self.api.unpause(self.dag_id)
        self.api.trigger(self.dag_id, {"mode": "cleanup", **conf}, run_id)
        if approve:
            self.api.approve(self.dag_id, run_id, APPROVAL_SECONDS)
        return run_id

    def finish(self, run_id: str, seconds: float = RUN_SECONDS) -> str:
        """Wait for the end of a run and return its state."""
        return self.api.wait_for_run(self.dag_id, run_id, seconds)

    def plan(self, run_id: str) -> list[Json]:
        """Return the windows of a run, those of every batch."""
        return list(self.api.xcom(self.dag_id, run_id, "plan", "planned"))

    def report(self, run_id: str) -> Json:
        """Return the report of a run."""
        return dict(self.api.xcom(self.dag_id, run_id, "report"))

    def report_text(self, run_id: str) -> str:
        """Return the report of a run as people read it."""
        return str(self.api.xcom(self.dag_id, run_id, "report", "markdown"))

    def look(self, run_id: str) -> Json:
        """Return what the page shows of a run."""
        return dict(self.api.page("/scorecard-backfill/run", dag_id=self.dag_id, run_id=run_id).json())

    def failed(self, run_id: str) -> dict[str, list[int]]:
        """Return the map indexes of failed task instances by task id."""
        found: dict[str, list[int]] = {}
        for task in self.api.tasks(self.dag_id, run_id):
            if task.state == "failed":
                found.setdefault(task.task_id, []).append(task.map_index)
        return found

    def kubernetes(self) -> Any:
        """Return the admin client of the cluster's Kubernetes API."""
        from standins.kubernetes.client import KubernetesAdmin

        return KubernetesAdmin(self.cluster.kubernetes_url)

    def nodes(self) -> list[NodeClient]:
        """Return the ClickHouse nodes."""
        return [NodeClient(node.url, self.stack.clickhouse_password) for node in self.cluster.nodes]

    def jobs_made(self, window: Mapping[str, Any]) -> list[str]:
        """Return the names of the Jobs of a window that the API server stored, in order."""
        return [
            record["body"]["metadata"]["name"]
            for record in self.kubernetes().requests("POST", "/jobs")
            if record["status"] in (201, 500)
            and "dryRun" not in record["query"]
            and (record["body"]["metadata"].get("labels") or {}).get("scorecard-backfill/window") == window["key"]
        ]

    def deletes(self, window: Mapping[str, Any]) -> Counter[str]:
        """Return how often the nodes were asked by clients to delete rows of a window's databases, by table.

        Only statements that were carried out count; those of other windows over the same database are told apart by
        the marker, dropped partitions by their month (a test uses a customer's month in one run only).
        """
        seen: Counter[str] = Counter()
        month = window["start"][:7].replace("-", "")
        for node in self.nodes():
            for row in node.statements(contains="ALTER TABLE"):
                text = row["statement"]
                ours = f"backfill:{window['key']}:" in text or f"DROP PARTITION ID '{month}'" in text
                for database in window["databases"]:
                    for table in database["tables"]:
                        if ours and f"`{database['name']}`.`{table}`" in text:
                            seen[f"{database['name']}.{table}"] += 1
        return seen

    def changes(self) -> int:
        """Return how many ALTER statements the nodes and Jobs the API server were sent since they started.

        What only asks (CHECK GRANT ALTER DELETE, a Job's creation as a dry run) changes nothing.
        """
        sent = [row["statement"] for node in self.nodes() for row in node.statements(contains="ALTER")]
        alters = [text for text in sent if text.lstrip().upper().startswith("ALTER")]
        jobs = [row for row in self.kubernetes().requests("POST", "/jobs") if "dryRun" not in row["query"]]
        return len(alters) + len(jobs)

    def rows(self, window: Mapping[str, Any], table: str) -> int:
        """Return the rows (FINAL, over the distributed twin) of a window."""
        total = 0
        for database in window["databases"]:
            answer = self.nodes()[0].query(
                f"SELECT count() FROM `{database['name']}`.`{table}_d` FINAL"
                f" WHERE scorecard_time >= toDateTime('{window['start']} 00:00:00', 'UTC')"
                f" AND scorecard_time < toDateTime('{window['end']} 00:00:00', 'UTC')"
            )
            total += int(answer[0][0])
        return total

    def truth(self, start: str, end: str) -> Mapping[str, Mapping[str, Any]]:
        """Return the right counts per customer and table of the days (end exclusive)."""
        days = date.fromisoformat(start), date.fromisoformat(end)
        return by_customer(profile.total(*days) for profile in read_truth(self.cluster.truth))

    def check_report(self, run_id: str, start: str, end: str, customers: Iterable[str]) -> None:
        """Assert that the report's numbers of the customers are the truth to the row."""
        truth = self.truth(start, end)
        listed = {item["customer_id"]: item["tables"] for item in self.report(run_id)["customers"]}
        for customer in customers:
            for table in TABLES:
                expected = truth[customer][table]
                shown = listed[customer][table]
                assert (shown["before"], shown["after"], shown["removed"]) == (
                    expected.before,
                    expected.after,
                    expected.removed,
                ), f"{customer} {table}"

    def set_worker_faults(self, *rules: Json) -> None:
        """Replace the rules that the reindex worker and the Job obey."""
        self.cluster.faults.write_text(json.dumps({"rules": list(rules)}))

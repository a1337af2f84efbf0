"""From Airflow's database to the slots that started nothing; three queries, whatever the number of clusters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from datetime import datetime

from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun
from airflow.utils.types import DagRunType
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from backfill.api.access import cluster_of
from backfill.settings import cluster_config
from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.overview.missed import ByHand, made_up, slot_missed_by
from include.scorecard_backfill.planning.schedule import MissedSlot


def missed_slots(session: Session, dag_ids: Collection[str], now: datetime) -> dict[str, MissedSlot]:
    """Return by DAG the last slot of its schedule that started nothing and that nobody has made up for by hand.

    A slot from before the DAG's first appearance in Airflow was not missed.
    """
    configs = {dag_id: config for dag_id in dag_ids if (config := _scheduled(dag_id)) is not None}
    if not configs:
        return {}
    last = _by_dag(
        session,
        select(DagRun.dag_id, func.max(DagRun.run_after))
        .where(DagRun.dag_id.in_(configs), DagRun.run_type == DagRunType.SCHEDULED)
        .group_by(DagRun.dag_id),
    )
    since = _by_dag(
        session,
        select(DagVersion.dag_id, func.min(DagVersion.created_at))
        .where(DagVersion.dag_id.in_(configs))
        .group_by(DagVersion.dag_id),
    )
    missed = {
        dag_id: found
        for dag_id, config in configs.items()
        if (found := slot_missed_by(config, now=now, last=last.get(dag_id), since=since.get(dag_id))) is not None
    }
    runs = _by_hand(session, missed) if missed else {}
    return {
        dag_id: found
        for dag_id, found in missed.items()
        if not made_up(configs[dag_id], found.days, runs.get(dag_id, ()))
    }


def _scheduled(dag_id: str) -> ClusterConfig | None:
    """Return the configuration of a cluster with a schedule; a file that cannot be read has no DAG, so no slot."""
    try:
        config = cluster_config(cluster_of(dag_id))
    except LookupError:
        return None
    return config if config.schedule.cron else None


def _by_dag(session: Session, statement: object) -> dict[str, datetime]:
    return {row[0]: row[1] for row in session.execute(statement)}  # type: ignore[call-overload]


def _by_hand(session: Session, missed: dict[str, MissedSlot]) -> dict[str, list[ByHand]]:
    """Return the runs since the earliest missed slot that no schedule has started."""
    found: dict[str, list[ByHand]] = defaultdict(list)
    rows = session.execute(
        select(DagRun.dag_id, DagRun.run_type, DagRun.run_after, DagRun.conf).where(
            DagRun.dag_id.in_(missed),
            DagRun.run_type != DagRunType.SCHEDULED,
            DagRun.run_after >= min(one.slot for one in missed.values()),
        )
    )
    for dag_id, kind, after, sent in rows:
        if after >= missed[dag_id].slot:
            found[dag_id].append(ByHand(str(kind), after, sent or {}))
    return found

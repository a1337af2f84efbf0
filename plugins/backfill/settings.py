"""Where the cluster files are and how a stage finds its own."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import CLUSTERS_FOLDER, ClusterError, load_clusters

CLUSTERS_ENV = "SCORECARD_BACKFILL_CLUSTERS"
"""Environment variable: folder of cluster YAML files; default: the eight production ones shipped in include/."""

DAG_ID_PREFIX = "scorecard_backfill__"
UNDO_DAG_ID_PREFIX = "scorecard_backfill_undo__"
BROKEN_DAG_ID_PREFIX = "scorecard_backfill_broken__"

OVERRIDE_VARIABLE = "scorecard_backfill_override__{cluster}"
"""Airflow Variable: a person's override of a cluster's limits as JSON (include/scorecard_backfill/overrides.py)."""

LEARNED_VARIABLE = "scorecard_backfill_learned__{cluster}"
"""Airflow Variable with what finished windows say about customers as JSON (include/scorecard_backfill/learned.py)."""

HISTORY_VARIABLE = "scorecard_backfill_history__{cluster}"
"""Airflow Variable with what the old scripts did as JSON (include/scorecard_backfill/tracking/history.py)."""


def clusters_folder() -> Path:
    """Return the folder of cluster files."""
    return Path(os.environ.get(CLUSTERS_ENV) or CLUSTERS_FOLDER)


@lru_cache(maxsize=4)
def _load(folder: Path) -> tuple[ClusterConfig | ClusterError, ...]:
    return tuple(load_clusters(folder))


def load_all() -> tuple[ClusterConfig | ClusterError, ...]:
    """Return every cluster file's configuration or its error, in order of their names; read once per process."""
    return _load(clusters_folder())


def cluster_config(name: str) -> ClusterConfig:
    """Return the configuration of one cluster. Raises LookupError naming folder and known clusters."""
    known = []
    for item in load_all():
        if isinstance(item, ClusterConfig):
            if item.name == name:
                return item
            known.append(item.name)
        elif item.name == name:
            raise LookupError(f"cluster {name!r}: {item.message}")
    raise LookupError(
        f"cluster {name!r} has no usable file in {clusters_folder()}; known: {', '.join(sorted(known)) or 'none'}."
        " A run that is under way needs its cluster file until it has ended."
    )

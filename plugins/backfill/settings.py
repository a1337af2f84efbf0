"""Where the cluster files are and how a stage finds its own."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from include.scorecard_backfill.config import ClusterConfig
from include.scorecard_backfill.config.load import CLUSTERS_FOLDER, ClusterError, ClusterFolder

CLUSTERS_ENV = "SCORECARD_BACKFILL_CLUSTERS"
"""Environment variable: folder of cluster YAML files; default: the eight production ones shipped in include/."""

DAG_ID_PREFIX = "scorecard_backfill__"
UNDO_DAG_ID_PREFIX = "scorecard_backfill_undo__"
BROKEN_DAG_ID_PREFIX = "scorecard_backfill_broken__"

OVERRIDE_VARIABLE = "scorecard_backfill_override__{cluster}"
"""Airflow Variable: a person's override of a cluster's limits as JSON (planning/overrides.py of include)."""

LEARNED_VARIABLE = "scorecard_backfill_learned__{cluster}"
"""Airflow Variable with what finished windows say about customers as JSON (planning/learned.py of include)."""

CUSTOMERS_VARIABLE = "scorecard_backfill_customers"
"""Airflow Variable: the customers that the last plans have seen, by cluster, as JSON (plugins/backfill/known.py)."""

HISTORY_VARIABLE = "scorecard_backfill_history__{cluster}"
"""Airflow Variable with what the old scripts did as JSON (tracking/history.py of include)."""


def clusters_folder() -> Path:
    """Return the folder of cluster files."""
    return Path(os.environ.get(CLUSTERS_ENV) or CLUSTERS_FOLDER)


@lru_cache(maxsize=4)
def _load(folder: Path) -> ClusterFolder:
    return ClusterFolder(folder)


def load_all() -> tuple[ClusterConfig | ClusterError, ...]:
    """Return every cluster file's configuration or its error, in order of their names; read once per process."""
    return _load(clusters_folder()).all()


def load_for(dag_id: str | None, *prefixes: str) -> tuple[ClusterConfig | ClusterError, ...]:
    """Return what a DAG file needs: every cluster without a DAG id, else that of the DAG, whose file alone is read.

    Args:
        dag_id: the DAG that a worker wants, None in the DAG processor (airflow.sdk.get_parsing_context).
        prefixes: beginnings of the file's DAG ids; what follows is the cluster's name.
    """
    if dag_id is None:
        return load_all()
    names = {dag_id.removeprefix(prefix) for prefix in prefixes if dag_id.startswith(prefix)}
    folder = _load(clusters_folder())
    return tuple(item for name in sorted(names) for item in folder.named(name))


def cluster_config(name: str) -> ClusterConfig:
    """Return the configuration of one cluster. Raises LookupError naming folder and known clusters."""
    for item in _load(clusters_folder()).named(name):
        if isinstance(item, ClusterConfig):
            return item
        raise LookupError(f"cluster {name!r}: {item.message}")
    known = sorted(item.name for item in load_all() if isinstance(item, ClusterConfig))
    raise LookupError(
        f"cluster {name!r} has no usable file in {clusters_folder()}; known: {', '.join(known) or 'none'}."
        " A run that is under way needs its cluster file until it has ended."
    )

"""The customers of each cluster as its last plan has seen them: for the form's list. Nothing is decided by them.

One Variable has all clusters: the DAG processor reads it at each parsing, and each read costs it milliseconds of CPU.
If plans of two clusters write at the same moment, one list may be lost; that cluster's next plan writes it again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping

from airflow.sdk import Variable

from backfill.settings import CUSTOMERS_VARIABLE
from include.scorecard_backfill.jsontext import from_text

log = logging.getLogger(__name__)

Known = Mapping[str, tuple[str, ...]]


def remember(cluster: str, customers: Iterable[str]) -> None:
    """Keep the customers for the form; for workers. Never raises: a form without a list stops no plan.

    It is written when it has changed only: each change is another version of the DAG.
    """
    try:
        known, seen = _read(), tuple(sorted(set(customers)))
        if known.get(cluster) != seen:
            text = json.dumps({**known, cluster: seen}, sort_keys=True)
            Variable.set(CUSTOMERS_VARIABLE, text, description="Written by each plan; the customers in Trigger's form")
    except Exception as error:
        log.warning("the form's list of customers was not refreshed (%s): %s", CUSTOMERS_VARIABLE, error)


def known_customers() -> Known:
    """Return the customers that each cluster's form offers, as far as they are known; for the DAG processor.

    Never raises: what cannot be read is a form without a list.
    """
    try:
        return _read()
    except Exception as error:
        log.warning("the forms have no lists of customers: %s", error)
        return {}


def _read() -> Known:
    """Return the lists; none when the text is not ours, so that the next plan writes it anew."""
    try:
        found = from_text(Variable.get(CUSTOMERS_VARIABLE, default=None) or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        str(cluster): tuple(one for one in names if isinstance(one, str))
        for cluster, names in found.items()
        if isinstance(names, list)
    }

"""The customers of a cluster as its last plan has seen them: for the form's list. Nothing is decided by them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from airflow.sdk import Variable

from backfill.settings import CUSTOMERS_VARIABLE

log = logging.getLogger(__name__)


def remember(cluster: str, customers: Iterable[str]) -> None:
    """Keep the customers for the form; for workers. Never raises: a form without a list stops no plan.

    It is written when it has changed only: each change is another version of the DAG.
    """
    name = CUSTOMERS_VARIABLE.format(cluster=cluster)
    try:
        text = json.dumps(sorted(set(customers)))
        if Variable.get(name, default=None) != text:
            Variable.set(name, text, description="Written by each plan; the list of customers in the form of Trigger")
    except Exception as error:
        log.warning("the form's list of customers was not refreshed (%s): %s", name, error)


def known_customers(cluster: str) -> tuple[str, ...]:
    """Return the customers that the form offers, () when none are known; for the DAG processor. Never raises."""
    try:
        found = json.loads(Variable.get(CUSTOMERS_VARIABLE.format(cluster=cluster), default=None) or "[]")
        return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()
    except Exception as error:
        log.warning("the form has no list of customers of %s: %s", cluster, error)
        return ()

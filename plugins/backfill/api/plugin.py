"""What the plugin tells Airflow about the page; it imports neither FastAPI nor ORM models.

The plugin's module is imported by scheduler, workers, triggerer and DAG processor, too. Only the API server asks a
plugin for its ``fastapi_apps``, so that the app is built when it is asked for.
"""

from __future__ import annotations

from include.scorecard_backfill.foreign import ForeignJson

URL_PREFIX = "/scorecard-backfill"
BUNDLE_URL = f"{URL_PREFIX.removeprefix('/')}/static/backfill.js"
"""Without a leading slash: resolved against Airflow's base address, which may be a sub-path."""

RUN_TAB, DAG_TAB, NAV_ENTRY = "Backfill", "Scorecards", "Scorecard backfills"
"""Labels of the views, and the names under which the bundle sets its components.

Not "Backfills" for a DAG: where a DAG has a schedule, Airflow shows a tab of its own by this name.
"""


class OnDemand:
    """Attribute of the plugin's class whose value is made when it is first asked for."""

    def __init__(self) -> None:
        self._made: list[ForeignJson] | None = None

    def __get__(self, instance: object, owner: type | None = None) -> list[ForeignJson]:
        """Return the list of apps, built once."""
        if self._made is None:
            from backfill.api.app import build_app

            self._made = [{"app": build_app(), "url_prefix": URL_PREFIX, "name": "Scorecard backfill"}]
        return self._made


def react_apps() -> list[ForeignJson]:
    """Return the tabs and the entry in the menu; all are one bundle."""
    return [
        {"name": RUN_TAB, "bundle_url": BUNDLE_URL, "destination": "dag_run", "url_route": "backfill"},
        {"name": DAG_TAB, "bundle_url": BUNDLE_URL, "destination": "dag", "url_route": "scorecards"},
        {
            "name": NAV_ENTRY,
            "bundle_url": BUNDLE_URL,
            "destination": "nav",
            "url_route": "scorecard-backfills",
            "category": "browse",
        },
    ]

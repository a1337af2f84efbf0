"""The page's FastAPI app: JSON for each look, actions, and the built bundle. Built in the API server only."""

from __future__ import annotations

from fastapi import FastAPI

from backfill.api import actions, bundle, debts, looks
from backfill.api.access import MAY_LOOK


def build_app() -> FastAPI:
    """Return the app; every route of it asks for a login and the right to see DAG runs."""
    app = FastAPI(title="Scorecard backfill", dependencies=list(MAY_LOOK), docs_url=None, redoc_url=None,
                  openapi_url=None)  # fmt: skip
    app.include_router(looks.router)
    app.include_router(actions.router)
    app.include_router(debts.router)
    app.include_router(bundle.router)
    return app

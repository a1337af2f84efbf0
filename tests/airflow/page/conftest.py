"""The page's routes over a database of Airflow's own models, and people with different rights."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from airflow.api_fastapi.app import create_auth_manager, get_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from fastapi import FastAPI
from sqlalchemy.orm import Session

from backfill.api import looks, memory
from backfill.api.app import build_app
from backfill.api.plugin import URL_PREFIX
from tests.kit.page_story import DAG, make_tables


@pytest.fixture(scope="session")
def page_app() -> FastAPI:
    """The app as Airflow mounts it, with Airflow's tables."""
    make_tables()
    os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = secrets.token_hex(64)
    create_auth_manager()
    root = FastAPI()
    root.mount(URL_PREFIX, build_app())
    return root


@pytest.fixture
def fresh(page_app: FastAPI) -> FastAPI:
    """The app without answers of an earlier test."""
    looks.answers.forget()
    memory.forget()
    return page_app


def token(role: str | None, name: str = "joe") -> dict[str, str]:
    """The header of a person with a role of Airflow's simple auth manager, {} for nobody."""
    if role is None:
        return {}
    manager: Any = get_auth_manager()
    return {"Authorization": f"Bearer {manager.generate_jwt(SimpleAuthManagerUser(username=name, role=role))}"}


@asynccontextmanager
async def person(app: FastAPI, role: str | None, name: str = "joe") -> AsyncIterator[httpx.AsyncClient]:
    """A client of somebody with a role; None: not logged in."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url=f"http://airflow{URL_PREFIX}", headers=token(role, name)
    ) as client:
        yield client


@pytest.fixture
def story(page_app: FastAPI) -> Iterator[Session]:
    """A session whose runs are removed afterwards."""
    with create_session() as session:
        yield session
        session.rollback()
    with create_session() as session:
        for run in session.query(DagRun).filter(DagRun.dag_id == DAG):
            session.delete(run)

"""Airflow for these tests: importing its home sets the environment, before any test module imports Airflow."""

from __future__ import annotations

from tests.kit.airflow_home import airflow_environment

__all__ = ["airflow_environment"]

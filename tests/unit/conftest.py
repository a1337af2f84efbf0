"""Hypothesis for the unit tests: no deadline, as the machine may be busy; few examples, as the whole must be quick."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("unit", deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")

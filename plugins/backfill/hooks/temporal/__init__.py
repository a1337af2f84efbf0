"""Temporal: a connection type of our own, and the questions that the waits ask."""

from backfill.hooks.temporal.connection import TemporalHook
from backfill.hooks.temporal.errors import RefusedError, is_lost, is_transient, refusal
from backfill.hooks.temporal.workflows import Workflows

__all__ = ["RefusedError", "TemporalHook", "Workflows", "is_lost", "is_transient", "refusal"]

"""Stages that need a worker, and the tasks that start in the triggerer."""

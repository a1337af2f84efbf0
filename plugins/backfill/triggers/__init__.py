"""Waits that run wholly in the triggerer, and the two that follow a worker."""

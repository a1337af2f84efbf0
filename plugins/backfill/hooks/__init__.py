"""Connections to ClickHouse, Kubernetes and Temporal."""

"""Seeded data of the sandbox: generator, source store (SQLite), ClickHouse loader and the right counts."""

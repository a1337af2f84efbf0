"""From what ClickHouse holds and what a person asks for to windows, and which of them are cut."""

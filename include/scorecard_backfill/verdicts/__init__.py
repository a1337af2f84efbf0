"""Snapshots in, verdicts out. Unknown is never ok."""

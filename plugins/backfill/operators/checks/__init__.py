"""Preflight's looks at each system: what the stages will do, done harmlessly before anything is deleted."""

"""What the old scripts' JSON files say was done: read tolerantly, kept as a history per cluster."""

"""The sandbox's reindexer: what the Job starts, as Temporal workflows over the source store."""

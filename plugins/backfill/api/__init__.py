"""The page's routes. Nothing in here is imported by scheduler, workers, triggerer or DAG processor (see plugin.py)."""

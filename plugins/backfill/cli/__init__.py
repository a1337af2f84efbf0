"""The command `python -m backfill`: a client of the page's routes. It imports no Airflow and starts fast."""

"""Messages to people over Airflow's notifiers; what is told and when is decided in include (notices.py)."""

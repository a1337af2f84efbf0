"""What Airflow must load: hooks, operators, triggers and the shared poll of the scorecard backfill."""

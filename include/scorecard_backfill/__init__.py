"""Pure decisions of the scorecard backfill: values in, records and verdicts out; knows nothing of Airflow."""

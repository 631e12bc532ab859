"""Pipelines inside orchestrators: assets of Dagster, tasks of Airflow and Prefect. Nothing else imports them."""

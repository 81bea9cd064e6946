"""PostgreSQL, an S3 server and an MLflow server on this machine, from packages and without containers."""

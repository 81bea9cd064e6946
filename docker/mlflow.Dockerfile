# MLflow's server with what it needs for PostgreSQL, S3 and accounts, of the versions that morphad is tested with.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS environment
COPY constraints.txt /build/
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint /build/constraints.txt boto3 flask-wtf mlflow psycopg2-binary \
    && /opt/venv/bin/pip uninstall --yes pip setuptools

FROM ${BASE_IMAGE}
RUN useradd --uid 10001 --gid 0 --no-create-home --home-dir /tmp mlflow
COPY --from=environment /opt/venv /opt/venv
COPY --chmod=0755 docker/mlflow_server.py /usr/local/bin/mlflow-server
COPY --chmod=0644 docker/mlflow_access.py /opt/morphad/
# Eight processes less: morphad has no jobs for them. /tmp is all that must be writable.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/morphad \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
LABEL org.opencontainers.image.title="morphad-mlflow" \
      org.opencontainers.image.description="MLflow's server for PostgreSQL and S3, with accounts" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 10001:0
WORKDIR /tmp
EXPOSE 5000
ENTRYPOINT ["mlflow-server"]

#!/opt/venv/bin/python
"""Makes the bucket that MLflow's artifacts go to, unless it is there, and becomes MLflow's server."""

import os
import sys
import urllib.parse

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def main() -> None:
    """Check the settings, make the bucket, start the server with this program's arguments."""
    missing = [
        name for name in ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION") if not os.environ.get(name)
    ]
    if missing:
        sys.exit(f"mlflow-server: {' and '.join(missing)} not set in the environment")
    destination = urllib.parse.urlsplit(os.environ["MLFLOW_ARTIFACTS_DESTINATION"])
    if destination.scheme == "s3":
        make_bucket(destination.netloc)
    everywhere = "0.0.0.0"  # noqa: S104  # of the container; what leaves it is for those who run it to say
    command = ["mlflow", "server", "--host", everywhere, "--port", "5000", "--serve-artifacts", *sys.argv[1:]]
    os.execvp(command[0], command)  # noqa: S606  # becomes the server, so that signals reach it


def make_bucket(name: str) -> None:
    """Make a bucket where there is none. Keys that may only read and write an existing one will do."""
    client = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)
    try:
        try:
            client.head_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in {"404", "NoSuchBucket"}:
                raise
            client.create_bucket(Bucket=name)
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"mlflow-server: bucket {name} at {client.meta.endpoint_url}: {error}")


if __name__ == "__main__":
    main()

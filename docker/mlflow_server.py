#!/opt/venv/bin/python
"""Makes the bucket that MLflow's artifacts go to, unless it is there, and becomes MLflow's server with accounts."""

import base64
import hashlib
import os
import sys
import tempfile
import urllib.parse

import boto3
from botocore.exceptions import BotoCoreError, ClientError

_NEEDED = (
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_ARTIFACTS_DESTINATION",
    "MLFLOW_AUTH_ADMIN_PASSWORD",  # of the account admin; counts at the first start only
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
)


def main() -> None:
    """Check the settings, make the bucket, start the server with this program's arguments."""
    missing = [name for name in _NEEDED if not os.environ.get(name)]
    if missing:
        sys.exit(f"mlflow-server: {' and '.join(missing)} not set in the environment")
    destination = urllib.parse.urlsplit(os.environ["MLFLOW_ARTIFACTS_DESTINATION"])
    if destination.scheme == "s3":
        make_bucket(destination.netloc)
    set_accounts()
    everywhere = "0.0.0.0"  # noqa: S104  # of the container; what leaves it is for those who run it to say
    command = ["mlflow", "server", "--app-name", "basic-auth", "--host", everywhere, "--port", "5000"]
    command += ["--serve-artifacts", *sys.argv[1:]]
    os.execvp(command[0], command)  # noqa: S606  # becomes the server, so that signals reach it


def set_accounts() -> None:
    """Lead MLflow to its accounts, in the database of its records, unless the environment says where they are."""
    if "MLFLOW_AUTH_CONFIG_PATH" not in os.environ:
        # Parsed by configparser, to which a % is special, as it is in a password within an address.
        uri = os.environ["MLFLOW_BACKEND_STORE_URI"].replace("%", "%%")
        settings = {
            "default_permission": "READ",
            "database_uri": uri,
            "authorization_function": "mlflow_access:authenticate",
            "auth_cache_ttl_seconds": "60",  # a password that was changed may count that long with another worker
        }
        file, path = tempfile.mkstemp(suffix=".ini")  # readable by its owner only
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            stream.writelines(["[mlflow]\n", *(f"{key} = {value}\n" for key, value in settings.items())])
        os.environ["MLFLOW_AUTH_CONFIG_PATH"] = path
    # Drawn anew at every start, as MLflow would, the key of webhooks' secrets could not read those that are there.
    key = hashlib.sha256(os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"].encode()).digest()
    os.environ.setdefault("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", base64.urlsafe_b64encode(key).decode())


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

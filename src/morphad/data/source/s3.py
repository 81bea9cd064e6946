"""A bucket, patiently: what a server, a network or a clock can do wrong becomes a repetition or a clear error.

Endpoint, region and credentials come from the usual AWS environment: AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_ACCESS_KEY_ID
and AWS_SECRET_ACCESS_KEY, AWS_PROFILE and the files it names, or the role of the machine or pod.
"""

import hashlib
import io
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore import exceptions as aws
from botocore.config import Config

from morphad import __version__
from morphad.base.errors import BadInputError, OutageError
from morphad.base.files import cannot_write
from morphad.base.text import masked
from morphad.data.source.s3_errors import (
    UNREACHED,
    ObjectGoneError,
    code_of,
    failed,
    is_busy,
    is_final,
    one_line,
    refused,
    status_of,
)

T = TypeVar("T")

_CHUNK = 1 << 18  # bytes of an object in memory, for each transfer
_CONNECT_SECONDS, _READ_SECONDS = 10, 60
_REPLACED = 3  # times that an object may be replaced while it is read
_PUT_BYTES = 5 << 30  # more than that is not one PUT


class _TornError(Exception):
    """An answer that broke off before its end."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An object as its bucket lists it.

    Attributes:
        key: Its whole key.
        etag: Its entity tag, quoted.
        size: In bytes.
        modified: When it was written, ISO 8601.
    """

    key: str
    etag: str
    size: int
    modified: str

    @property
    def identity(self) -> str:
        """What changes when the object is overwritten."""
        return f"{self.etag} {self.size} {self.modified}"


@dataclass(frozen=True, slots=True)
class Received:
    """An object that was fetched.

    Attributes:
        listed: As it was listed, or has become since.
        sha256: Of its bytes.
        version: The bucket's id of the version; "" where it keeps none.
    """

    listed: Listed
    sha256: str
    version: str


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key.

    Raises:
        BadInputError: It is no such address, or holds credentials.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise BadInputError(f"{url}: expected s3://bucket/prefix")
    if not {"@", ":"}.isdisjoint(bucket):  # neither is in a bucket's name
        raise BadInputError(
            f"{masked(url)}: holds credentials; expected s3://bucket/prefix, and AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, in the environment"
        )
    return bucket, key


def prefix_of(key: str) -> str:
    """A folder's name as what its objects' keys begin with: "" or with a slash at the end, so that a is not ab."""
    return f"{key.strip('/')}/" if key.strip("/") else ""


class Bucket:
    """One bucket. May be used from several threads.

    Args:
        name: The bucket's name.
        patience_seconds: How long a server may not answer, or say that it is busy, before that is an error.
        connections: How many threads will use it.

    Raises:
        BadInputError: There are no credentials, or the environment contradicts itself.
    """

    def __init__(self, name: str, patience_seconds: float = 60, connections: int = 16) -> None:
        self.name = name
        self._patience = patience_seconds
        self._answered = time.monotonic()  # when the server last did
        self._told = threading.Lock()
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            max_pool_connections=connections,
            # Repetitions are ours: botocore's know nothing of answers that break off, nor of other threads' success.
            retries={"mode": "standard", "total_max_attempts": 1},
            user_agent_extra=f"morphad/{__version__}",
            # Servers other than Amazon's do not all know the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        try:
            # A session of its own: boto3's default one keeps the first credentials that it saw.
            self._client = boto3.Session().client("s3", config=config)
            address = urlsplit(masked(self._client.meta.endpoint_url))
            self.endpoint = f"{address.scheme}://{address.hostname}" + (f":{address.port}" if address.port else "")
        except (aws.BotoCoreError, ValueError) as error:
            raise BadInputError(f"S3: {one_line(error)}; check the variables AWS_*") from error

    def list(self, prefix: str, page: int = 1000) -> Iterator[Listed]:
        """Every object below a prefix, page by page, in the order of the keys.

        Args:
            prefix: What their keys begin with.
            page: Objects a request, 1..1000.
        """
        token: dict[str, str] = {}
        while True:
            answer = self._patiently(
                partial(self._client.list_objects_v2, Bucket=self.name, Prefix=prefix, MaxKeys=page, **token), prefix
            )
            for found in answer.get("Contents", ()):
                yield Listed(found["Key"], found["ETag"], found["Size"], found["LastModified"].isoformat())
            if not answer.get("IsTruncated"):
                return
            token = {"ContinuationToken": answer["NextContinuationToken"]}

    def tags(self, key: str) -> dict[str, str]:
        """The tags of an object.

        Raises:
            ObjectGoneError: It is there no longer.
        """
        answer = self._patiently(partial(self._client.get_object_tagging, Bucket=self.name, Key=key), key)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def fetch(self, listed: Listed, temporary: Path, max_bytes: float) -> Received:
        """Fetch an object's bytes to a file, hashing them on the way. They are of one version of the object, whole.

        Args:
            listed: The object; where it was replaced since, what it was replaced by is fetched.
            temporary: The file to write; the caller removes or renames it.
            max_bytes: More than that is refused.

        Raises:
            ObjectGoneError: It is there no longer.
            BadInputError: It was replaced time and again, has become too large, or the file cannot be written.
        """
        for _ in range(_REPLACED):
            try:
                return self._patiently(lambda: self._receive(listed, temporary), listed.key)  # noqa: B023 -- called at once
            except _ReplacedError:
                listed = self._look(listed.key)
                if listed.size > max_bytes:
                    raise BadInputError(
                        f"s3://{self.name}/{listed.key}: was replaced while it was read, by "
                        f"{listed.size / 1e6:,.0f} MB; at most {max_bytes / 1e6:g} MB (ingest.max_megabytes)"
                    ) from None
        raise BadInputError(
            f"s3://{self.name}/{listed.key}: was replaced {_REPLACED} times while it was read; run again when nobody "
            "writes to it"
        )

    def read(self, key: str, max_bytes: int) -> bytes:
        """A small object's bytes.

        Raises:
            BadInputError: It is not there, or larger.
        """

        def once() -> bytes:
            answer = self._client.get_object(Bucket=self.name, Key=key)
            if answer["ContentLength"] > max_bytes:
                raise BadInputError(f"s3://{self.name}/{key}: is over {max_bytes / 1e6:g} MB large")
            data: bytes = answer["Body"].read()
            if len(data) != answer["ContentLength"]:
                raise _TornError("the answer broke off")
            return data

        try:
            return self._patiently(once, key)
        except ObjectGoneError as error:
            raise BadInputError(f"s3://{self.name}/{key}: not found at {self.endpoint}") from error

    def put(self, file: Path, key: str) -> None:
        """Send a file; an object of that key is replaced.

        Raises:
            BadInputError: The file cannot be read or is too large for one request.
        """

        def once() -> Any:
            with file.open("rb") as body:
                return self._client.put_object(Bucket=self.name, Key=key, Body=body)

        try:
            if file.stat().st_size > _PUT_BYTES:
                raise BadInputError(f"{file}: is over 5 GiB large, more than S3 accepts as one object in one request")
            self._patiently(once, key)
        except OSError as error:
            raise BadInputError(f"{file}: cannot be read ({error.strerror or error}); check its permissions") from error

    def _receive(self, listed: Listed, temporary: Path) -> Received:
        try:
            answer = self._client.get_object(Bucket=self.name, Key=listed.key, IfMatch=listed.etag)
        except aws.ClientError as error:
            if status_of(error) == 412:
                raise _ReplacedError from error
            raise
        digest, size = hashlib.sha256(), 0
        with _opened(temporary) as out, closing(answer["Body"]) as body:
            while chunk := _next(body):
                digest.update(chunk)
                size += len(chunk)
                _write(out, chunk, temporary)
        if answer["ETag"] != listed.etag:  # a server that does not know If-Match
            raise _ReplacedError
        if size != answer["ContentLength"] or size != listed.size:
            raise _TornError(f"{size} of {listed.size} bytes came")
        return Received(listed, digest.hexdigest(), answer.get("VersionId", ""))

    def _look(self, key: str) -> Listed:
        found = self._patiently(partial(self._client.head_object, Bucket=self.name, Key=key), key)
        return Listed(key, found["ETag"], found["ContentLength"], found["LastModified"].isoformat())

    def _patiently(self, request: Callable[[], T], key: str) -> T:
        """Ask again while the server does not answer or is busy, until it has been silent for too long."""
        pause, begun = 0.25, time.monotonic()
        failure: Exception
        while True:
            try:
                answer = request()
            except (*UNREACHED, _TornError) as error:
                if is_final(error):
                    raise failed(error, self.endpoint, self.name) from error
                reason, failure = one_line(error), error
            except aws.ClientError as error:
                if not is_busy(error):
                    raise refused(error, self.endpoint, self.name, key) from error
                reason, failure = code_of(error), error
            except aws.BotoCoreError as error:
                raise failed(error, self.endpoint, self.name) from error
            else:
                self._answered = time.monotonic()
                return answer
            silent = time.monotonic() - max(begun, self._answered)
            if silent + pause > self._patience:
                raise OutageError(
                    f"S3 at {self.endpoint}: no answer for {silent:.0f} s about s3://{self.name}/{key} ({reason}); is "
                    "the server up and AWS_ENDPOINT_URL_S3 right? What was fetched is kept: run again to go on"
                ) from failure
            self._tell(reason)
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 -- so that threads do not ask all at once
            pause = min(2 * pause, 10.0)

    def _tell(self, reason: str) -> None:
        """Say once that the server is waited for."""
        if self._told.acquire(blocking=False):
            sys.stderr.write(
                f"morphad: S3 at {self.endpoint} is slow to answer ({reason}); waiting up to {self._patience:g} s\n"
            )


def _opened(file: Path) -> io.FileIO:
    try:
        return io.FileIO(file, "wb")
    except OSError as error:
        raise cannot_write(file, error) from error


def _write(out: io.FileIO, chunk: bytes, file: Path) -> None:
    try:
        while chunk:
            chunk = chunk[out.write(chunk) :]
    except OSError as error:
        raise cannot_write(file, error) from error


def _next(body: Any) -> bytes:
    try:
        chunk: bytes = body.read(_CHUNK)
    except OSError as error:  # a socket's own; boto3 gives the others its own names
        raise _TornError(one_line(error)) from error
    return chunk


class _ReplacedError(Exception):
    """The object is another one than was listed."""


def read_object(url: str, max_bytes: int = 1 << 28) -> bytes:
    """The bytes of one object, s3://bucket/key.

    Raises:
        BadInputError: There is no such bucket or object, or it is larger than `max_bytes`.
        ServiceError: The server refused or did not answer.
    """
    bucket, key = split_url(url)
    return Bucket(bucket).read(key, max_bytes)

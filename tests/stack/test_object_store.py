"""The S3 server for tests and for one machine."""

from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from morphad.base.errors import ServiceError
from stack.object_store import ObjectStore
from stack.ports import HOST, is_free


def test_environment_leads_boto3_to_a_new_bucket(s3: ObjectStore, s3_bucket: str) -> None:
    client = boto3.Session().client("s3")
    assert client.meta.endpoint_url == s3.endpoint
    assert client.list_objects_v2(Bucket=s3_bucket)["KeyCount"] == 0
    client.put_object(Bucket=s3_bucket, Key="lot 7/ä.png", Body=b"x" * 9_000_000)
    assert client.get_object(Bucket=s3_bucket, Key="lot 7/ä.png")["Body"].read() == b"x" * 9_000_000


def test_buckets_are_not_shared(s3_bucket: str) -> None:
    assert "Contents" not in boto3.Session().client("s3").list_objects_v2(Bucket=s3_bucket)


def test_data_survive_a_kill(s3: ObjectStore, s3_bucket: str) -> None:
    client = s3.client()
    client.put_object(Bucket=s3_bucket, Key="k", Body=b"kept")
    s3.kill()
    assert not s3.running
    with pytest.raises(EndpointConnectionError):
        client.get_object(Bucket=s3_bucket, Key="k")
    s3.start()
    assert client.get_object(Bucket=s3_bucket, Key="k")["Body"].read() == b"kept"


def test_strangers_are_refused(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")
    stranger = boto3.Session().client("s3")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.list_objects_v2(Bucket=s3_bucket)


def test_two_at_once(s3: ObjectStore, tmp_path: Path) -> None:
    other = ObjectStore(tmp_path)
    try:
        other.start()
        other.create_bucket("only-here")
        assert "only-here" not in [bucket["Name"] for bucket in s3.client().list_buckets()["Buckets"]]
    finally:
        other.kill()
    assert s3.running


def test_taken_port_is_named(s3: ObjectStore, tmp_path: Path) -> None:
    s3.start()
    assert not is_free(s3.port)
    with pytest.raises(ServiceError, match=rf"port {s3.port} of {HOST} is in use by process \d+ \(weed\)"):
        ObjectStore(tmp_path, port=s3.port).start()

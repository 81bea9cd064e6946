"""A folder's files to a bucket; what is there already is not sent again."""

import hashlib
from functools import partial
from pathlib import Path

from morphad.base.errors import BadInputError
from morphad.base.progress import track
from morphad.data.loading import in_order
from morphad.data.source.s3 import Bucket, prefix_of, split_url


def upload_folder(folder: Path, url: str, what: str) -> tuple[int, int]:
    """Send every file of a folder to s3://bucket/prefix; what is there with the same bytes is not sent again.

    Args:
        folder: The folder; links are followed, hidden files are sent too.
        url: Where its files go; their paths below the folder follow the prefix.
        what: A few words for the person who waits.

    Returns:
        How many files were sent, and how many there were.

    Raises:
        BadInputError: There is no such folder or bucket, or a file cannot be read.
        ServiceError: The server refused or did not answer; run again to go on.
    """
    name, prefix = split_url(url)
    prefix = prefix_of(prefix)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise BadInputError(f"{folder}: {'is empty' if folder.is_dir() else 'no such folder'}; nothing to upload")
    bucket = Bucket(name)
    there = {listed.key: (listed.etag.strip('"'), listed.size) for listed in bucket.list(prefix)}

    def send(file: Path) -> int:
        key = prefix + file.relative_to(folder).as_posix()
        if key in there and there[key] == (_md5(file), file.stat().st_size):
            return 0
        bucket.put(file, key)
        return 1

    sent = sum(track(in_order(send, files, 16), what, total=len(files)))
    return sent, len(files)


def _md5(file: Path) -> str:
    """The ETag that S3 gives to bytes that came in one request, unless they are encrypted with a key of the user's."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.md5, usedforsecurity=False)).hexdigest()

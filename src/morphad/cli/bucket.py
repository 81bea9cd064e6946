"""The verbs that send files to a bucket."""

import argparse
from pathlib import Path

from morphad.base.errors import BadInputError
from morphad.base.verbs import Verbs
from morphad.cli.shared import open_line


def add_verbs(verbs: Verbs) -> None:
    """Add upload and demo."""
    upload = verbs.add_for_line(
        "upload", _upload, "send a line's page, figures and detector to a bucket", "pv-mono s3://models/pv-mono"
    )
    upload.add_argument("url", metavar="S3_URL", help="where to: s3://bucket/prefix")
    demo = verbs.add_for_project(
        "demo",
        _demo,
        "put the demonstration's images into a bucket and read them from there",
        "--source s3://parts/demo",
    )
    demo.add_argument("--source", required=True, metavar="S3_URL", help="the bucket: s3://bucket/prefix")


def _upload(options: argparse.Namespace) -> None:
    from morphad.data.source.uploading import upload_folder

    _, _, place = open_line(options)
    folders = {"report": place.report, "detector": place.detector}
    missing = [str(folder) for folder in folders.values() if not folder.is_dir()]
    if missing:
        raise BadInputError(f"{', '.join(missing)}: not found; run `dvc repro` first")
    for name, folder in folders.items():
        url = f"{options.url.rstrip('/')}/{options.line}/{name}"
        sent, files = upload_folder(folder, url, f"uploading {options.line}")
        print(f"{options.line}: {sent} of {files} files sent to {url}, the others were there")


def _demo(options: argparse.Namespace) -> None:
    from morphad.jobs.demo import move_to_bucket

    params: Path = options.params
    for line, (sent, images) in move_to_bucket(params, options.source).items():
        print(f"{line}: {sent} of {images} images sent; {params} now reads them from the bucket")
    print(f"the way back: git checkout {params}")

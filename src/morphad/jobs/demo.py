"""The demonstration with its images in a bucket, as a plant has them: put them there, and let the settings say so."""

import io
import tempfile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from morphad.base.errors import BadInputError
from morphad.base.files import write_text
from morphad.data.source.demo import DEMO_LICENCE
from morphad.data.source.finding import find_images
from morphad.data.source.uploading import upload_folder
from morphad.settings import IngestSettings
from morphad.settings.reading import load_settings


def move_to_bucket(params: Path, url: str) -> dict[str, tuple[int, int]]:
    """Upload the packaged images of every demonstration line and point the line to them, in the settings file.

    What is in the bucket already is not sent again. Comments and all other settings stay as they are.

    Args:
        params: The settings file, which is changed.
        url: s3://bucket/prefix; each line gets a folder of its own there, in MVTec AD layout.

    Returns:
        For each line how many images were sent, and how many there are.

    Raises:
        BadInputError: No line has the demonstration's images, or there is no such bucket.
        ServiceError: The server refused or did not answer.
    """
    url = url.rstrip("/")
    lines = {
        name: line.ingest
        for name, line in load_settings(params).lines.items()
        if line.ingest.source == "demo" or line.ingest.path == f"{url}/{name}"
    }
    if not lines:
        raise BadInputError(
            f"{params}: no line has the demonstration's images (ingest: {{source: demo}}) or has them at {url}; "
            "restore the file from version control"
        )
    sent = {name: _upload(ingest, f"{url}/{name}") for name, ingest in lines.items() if ingest.source == "demo"}
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    settings: Any = yaml.load(params.read_text(encoding="utf-8"))
    for name in sent:
        own = settings["lines"][name]["ingest"]
        own.update({"source": "s3", "path": f"{url}/{name}", "licence": DEMO_LICENCE})
    text = io.StringIO()
    yaml.dump(settings, text)
    if sent:
        write_text(params, text.getvalue())
    return sent


def _upload(ingest: IngestSettings, url: str) -> tuple[int, int]:
    with tempfile.TemporaryDirectory() as temporary:
        for image in find_images(ingest):
            part = "train/good" if image.label == "good" else f"test/{image.defect}"
            target = Path(temporary, part, image.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(image.file)
        return upload_folder(Path(temporary), url, f"uploading to {url}")

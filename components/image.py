"""The images that components run in."""

import os

from morphad.base.errors import BadInputError

# Read when a pipeline is compiled. Never move a tag to other code: Kubeflow's cache knows an image by its name alone.
IMAGE = os.environ.get("MORPHAD_IMAGE", "").strip() or "localhost/morphad-python:0.1.0"


def with_cuda(image: str) -> str:
    """The image of the same code with CUDA: `docker/build` puts -cuda at the tag's end.

    Raises:
        BadInputError: The image has no tag that this could be put to.
    """
    name, _, tag = image.rpartition(":")
    if not name or "/" in tag or "@" in image:
        raise BadInputError(
            f"image {image!r}: the one with CUDA, which steps with GPUs run in, is named by its tag, and it has none; "
            "give it one, or name the other as `image` of those steps in pipelines/cluster.yaml"
        )
    return image if tag.endswith("-cuda") else f"{image}-cuda"

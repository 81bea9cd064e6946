"""The image that every component runs in."""

import os

# Read when a pipeline is compiled. Never move a tag to other code: Kubeflow's cache knows an image by its name alone.
IMAGE = os.environ.get("MORPHAD_IMAGE", "").strip() or "localhost/morphad-python:0.1.0"
